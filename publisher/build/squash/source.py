"""The entries of a planned image, for a squasher: as one tar stream, or one by one with their contents.

Whichever way the squasher takes, the file index is written meanwhile, and what reading back has to find is summed up.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from publisher.build.readback import ExpectedFiles
from publisher.fileindex.format import FileIndexWriter
from publisher.layers.contents import LayerContents
from publisher.layers.emit import Emitter, Output
from publisher.layers.listing import LOST_ACLS, added_entries, layer_entries, write_listing
from publisher.layers.stream.layer_stream import opened_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from publisher.build.builder import EarlierSif
    from publisher.layers.contents import Content, Xattrs
    from publisher.layers.emit import ExtraEntry
    from publisher.layers.flatten_plan import FlattenPlan
    from publisher.layers.listing import ListedEntry
    from publisher.layers.survey import StreamSurvey


class SourceEntry(NamedTuple):
    """An entry with its content.

    Attributes:
        entry: the entry.
        content: of a regular file that is no hard link; it has to be read, if at all, before the next entry is asked for.
        xattrs: names and values of its extended attributes, in the order of the names.
    """

    entry: ListedEntry
    content: Content | None = None
    xattrs: Xattrs = ()


@dataclass
class Listed:
    """What was found while the entries were passed.

    Attributes:
        files: number of paths and bytes of all files.
        expected: what reading back has to find.
    """

    files: FileIndexWriter
    expected: ExpectedFiles


class SquashSource:
    """The entries of an image.

    Args:
        plan: the plan of the image.
        totals: its totals.
        extras: the entries that this host adds.
        layers: the blobs of its layers, from the bottom up.
        indexes: their header indexes.
        copies: the directory of uncompressed copies of layers, of which any may be missing; None for none.
        file_index: where the file index goes.
        progress: called with the number of compressed bytes read since the last call.
        earlier: a SIF from which equal contents may be copied; None for none.
    """

    def __init__(
        self,
        plan: FlattenPlan,
        totals: StreamSurvey,
        extras: Sequence[ExtraEntry],
        *,
        layers: Sequence[Path],
        indexes: Sequence[Path],
        copies: Path | None,
        file_index: Path,
        progress: Callable[[int], None],
        earlier: EarlierSif | None = None,
    ) -> None:
        self.earlier = earlier
        self.totals = totals
        self.entry_count = plan.entry_count
        self._plan = plan
        self._extras = extras
        self._layers = layers
        self._indexes = indexes
        self._copies = copies
        self._file_index = file_index
        self._progress = progress
        self._listed: Listed | None = None

    @property
    def listed(self) -> Listed:
        """Return what was found, after all entries were passed."""
        if self._listed is None:
            raise AssertionError("nothing was passed yet")
        return self._listed

    def write_stream(self, out: Output) -> None:
        """Write all entries as a tar stream.

        Raises:
            LayerError: a layer differs from its index.
            OSError: the output failed, or a file could not be read or written.
        """
        with ThreadPoolExecutor(1) as beside:
            listing = beside.submit(self._list)
            emitter = Emitter(out, self.totals.newest)
            emitter.write_layers(self._plan, self._layers, self._indexes, self._progress, self._copies)
            emitter.write_directories(self._plan.implied_directories)
            for extra in self._extras:
                emitter.write_entry(extra)
            emitter.write_end()
        self._listed = listing.result()

    def entries(self) -> Generator[SourceEntry]:
        """Yield all entries, in the order of the tar stream. Raises as :meth:`write_stream`."""
        expected = ExpectedFiles()
        self._plan.dropped.pop(LOST_ACLS, None)  # of an earlier try
        with self._file_index.open("wb") as out:
            files = FileIndexWriter(out)
            for one in self._entries():
                entry = one.entry
                files.add(*entry[:9])
                expected.add_name(entry.path)
                if entry.kind == b"0":
                    expected.add_file(entry.mtime, entry.mode, entry.uid, entry.gid, entry.size, entry.content)
                yield one
            files.close()
        self._listed = Listed(files, expected)

    def _entries(self) -> Iterator[SourceEntry]:
        newest = self.totals.newest
        for number, (layer, index) in enumerate(zip(self._layers, self._indexes, strict=True)):
            if not any(self._plan.actions[number]):
                self._progress(layer.stat().st_size)
                continue
            with opened_layer(layer, self._copies, self._progress) as stream:
                yield from _with_contents(layer_entries(self._plan, number, index, newest), LayerContents(stream))
        contents = {extra.name: extra.content for extra in self._extras if extra.kind == b"0"}
        for entry in added_entries(self._plan, self._extras, newest):
            yield SourceEntry(entry, _content(contents[entry.path]) if entry.kind == b"0" else None)

    def _list(self) -> Listed:
        """Write the file index."""
        with self._file_index.open("wb") as out:
            files = FileIndexWriter(out)
            write_listing(files, self._plan, self._indexes, self._extras, self.totals.newest)
            files.close()
        return Listed(files, ExpectedFiles.of(self._file_index))


def _with_contents(entries: Iterator[ListedEntry], contents: LayerContents) -> Iterator[SourceEntry]:
    xattrs: Xattrs = ()
    for entry in entries:
        place = entry.place
        if place is None:  # a further name: of a file it is a hard link, otherwise it has the same attributes
            yield SourceEntry(entry, None, () if entry.kind == b"1" else xattrs)
            continue
        xattrs = contents.xattrs(place) if entry.xattrs else ()
        yield SourceEntry(entry, contents.of(place, entry.size) if entry.kind == b"0" else None, xattrs)


def _content(whole: bytes) -> Content:
    return lambda position, size: whole[position : position + size]
