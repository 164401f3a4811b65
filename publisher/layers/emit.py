"""The surviving entries of an image as one tar stream for mksquashfs, in one pass over the layers.

Entries that need no change are copied byte by byte, without a look at them: the header index says which they are and where they
begin. What mksquashfs does not accept (tried with 4.5.1) is written anew: renamed entries, sparse files, negative times, global
records. Hard links follow all other entries of their layer, so that a target always precedes its links. A layer without
surviving entries is not read at all. The file index of the stream is made by :mod:`publisher.layers.listing`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import LayerError
from publisher.layers.flatten_plan import DROP, KEEP, RENAME
from publisher.layers.header import BLOCK, make_header, padded
from publisher.layers.index import read_attributes, read_entries
from publisher.layers.scan import Scanner
from publisher.layers.stream.layer_stream import opened_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from publisher.layers.flatten_plan import FlattenPlan
    from publisher.layers.member import Member

    Write = Callable[[memoryview | bytes], object]

_PORTION = 1 << 20  # bytes that are passed over at a time
_LINKED_FILE = struct.Struct("<IIIIQ")  # node of its first name, mode, uid, gid, time
_LINK_MODE = 0o777  # the mode that Linux shows for every symbolic link


@dataclass(frozen=True)
class ExtraEntry:
    """An entry that this host adds to the layers' entries, with the owner 0:0.

    Attributes:
        name: path from the root.
        kind: tar type flag.
        mode: permission bits.
        content: content of a file.
        link: target of a symbolic link.
    """

    name: bytes
    kind: bytes
    mode: int
    content: bytes = b""
    link: bytes = b""


def published_mode(kind: bytes, mode: int) -> int:
    """Return the permission bits that are published: ``a+rX``, because CVMFS clients and user namespaces enforce them."""
    if kind == b"2":
        return _LINK_MODE
    return mode | (0o555 if kind == b"5" or mode & 0o111 else 0o444)


class Output(NamedTuple):
    """Where a tar stream goes.

    Attributes:
        write: receives the bytes of the stream, in portions of any size.
        pipe: descriptor of the pipe that ``write`` writes to, None if it is no pipe.
    """

    write: Write
    pipe: int | None = None


class Emitter:
    """A writer of the tar stream.

    Args:
        out: where the stream goes.
        newest: the latest modification time to write (:class:`publisher.layers.survey.StreamSurvey`); later times become it.
    """

    def __init__(self, out: Output, newest: int) -> None:
        self._out = out
        self._write = out.write
        self._newest = newest

    def write_layers(
        self,
        plan: FlattenPlan,
        layers: Sequence[Path],
        indexes: Sequence[Path],
        progress: Callable[[int], None],
        copies: Path | None = None,
    ) -> None:
        """Write the surviving entries of all layers, from the bottom up.

        Args:
            plan: the plan.
            layers: the blobs, from the bottom up.
            indexes: their header indexes.
            progress: called with the number of compressed bytes read since the last call, in the calling thread.
            copies: the directory of uncompressed copies of the layers, of which any may be missing; None for none.

        Raises:
            LayerError: a layer differs from its index.
            OSError: ``write`` failed.
        """
        for number, (actions, path, index) in enumerate(zip(plan.actions, layers, indexes, strict=True)):
            if not any(actions):
                progress(path.stat().st_size)
                continue
            with opened_layer(path, copies, progress, *self._out) as stream:
                scanner = Scanner(stream.read, self._write, stream.copy)
                self._write_layer(scanner, actions, index, plan, number << 32)

    def write_directories(self, names: Iterable[bytes]) -> None:
        """Write directories that have no entry of their own, with the mode 0755."""
        for name in names:
            self.write_entry(ExtraEntry(name, b"5", 0o755))

    def write_entry(self, entry: ExtraEntry) -> None:
        """Write an entry that this host adds, with the newest time of the stream."""
        size = len(entry.content)
        mode = published_mode(entry.kind, entry.mode)
        self._write(make_header(entry.name, entry.kind, mode=mode, size=size, mtime=self._newest, link=entry.link))
        if size:
            self._write(entry.content + bytes(padded(size) - size))

    def write_end(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))

    def _write_layer(self, scanner: Scanner, actions: bytearray, index: Path, plan: FlattenPlan, base: int) -> None:
        linked_files = bytearray()
        last = len(actions.rstrip(b"\0")) - 1  # everything after it is dropped; where it ends, only its header says
        entries = zip(range(last + 1), actions, read_entries(index), read_attributes(index), strict=False)
        passed, copying = 0, False  # where the scanner is, and whether what follows there is copied unchanged
        for ordinal, action, (kind, *_), (_, mtime, offset, mode, _, _, reusable) in entries:
            copied = action == KEEP and self._is_unchanged(kind, mode, mtime, reusable) and ordinal < last
            if (copied or action == DROP) and copied == copying and offset - passed < _PORTION:
                continue
            scanner.pass_to(offset, ordinal, keep=copying)
            passed, copying = offset, copied
            if not copied and action != DROP:
                linked_files += self._write_member(scanner, plan, base | ordinal, renamed=action == RENAME)
        scanner.flush()
        for first, *attributes in _LINKED_FILE.iter_unpack(linked_files):
            self._write_links(plan.new_names.path(first), plan.new_names.following(first), *attributes)

    def _is_unchanged(self, kind: bytes, mode: int, mtime: int, reusable: bool) -> bool:
        """Return whether the header blocks of an entry are written as they are."""
        return reusable and mode == published_mode(kind, mode) and 0 <= mtime <= self._newest

    def _write_member(self, scanner: Scanner, plan: FlattenPlan, entry: int, *, renamed: bool) -> bytes:
        """Write the scanner's next member; return what the hard links of a file need, ``b""`` for everything else."""
        member = scanner.next_member()
        if member is None:
            raise LayerError("the layer has fewer entries than when it was downloaded")
        first = plan.new_names.first(entry) if renamed else 0
        if renamed:
            member.name = plan.new_names.path(first)
        mode = published_mode(member.kind, member.mode)
        mtime = min(max(member.mtime, 0), self._newest)
        header = member.new_header(member.name, mode, mtime) if renamed else member.replacement_header(mode, mtime)
        scanner.keep(member, header, digest=False)
        if not renamed:
            return b""
        if member.kind == b"0":
            return _LINKED_FILE.pack(first, mode, member.uid, member.gid, mtime)
        scanner.flush()
        self._write_copies(member, mtime, plan.new_names.following(first))
        return b""

    def _write_links(self, target: bytes, names: Iterable[bytes], mode: int, uid: int, gid: int, mtime: int) -> None:  # noqa: PLR0917
        """Write hard links to a file."""
        for name in names:
            self._write(make_header(name, b"1", mode=mode, uid=uid, gid=gid, mtime=mtime, link=target))

    def _write_copies(self, member: Member, mtime: int, names: Iterable[bytes]) -> None:
        """Write a symbolic link or a fifo, to which tar can link but squashfs cannot, under further names."""
        mode = published_mode(member.kind, member.mode)
        for name in names:
            self._write(member.new_header(name, mode, mtime))
