"""The squasher that is this program itself: it makes the bytes of mksquashfs 4.5.1 on every host, with less CPU time.

Without a tar stream, nothing but the contents of files passes; they are compressed outside of Python's lock, by the host's zstd,
whose version decides about the bytes (docs/decisions/0097-own-squasher.md). What an earlier SIF has is copied from it
(docs/decisions/0098-copies-from-the-earlier-sif.md).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from typing import TYPE_CHECKING

from publisher import __version__
from publisher.build.readback import ReadbackError
from publisher.build.sif import DATA_OFFSET
from publisher.build.squash.programs import Squasher
from publisher.errors import BuildError, SpaceError
from publisher.sifs.squashfs import ERRORS, Squashfs
from publisher.sifs.squashfs_layout import BLOCK
from publisher.squashfs.known_contents import KnownContents
from publisher.squashfs.writer import SquashfsWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from publisher.build.builder import EarlierSif
    from publisher.build.squash.source import SquashSource
    from publisher.layers.contents import Xattrs
    from publisher.layers.listing import ListedEntry
    from publisher.squashfs.libzstd import Libzstd

_log = logging.getLogger(__name__)

MKSQUASHFS = "4.5.1"
"""The version of mksquashfs whose bytes are made; tests compare them."""
_MAX_ENTRIES = 200_000  # they take some 800 bytes each, with those of an earlier SIF; a larger image is squashed by the program
_MAX_TEXT = 16 << 20  # bytes of all names, targets of links, and extended attributes that differ, likewise


class OwnSquasher(Squasher):
    """A squasher without a program, for images of usual size.

    Args:
        program: squashes larger images, with the same compression.
        zstd: the library that compresses.
        level: level of the compression.
        clock: returns monotonic seconds.
    """

    name, version = "publisher", __version__

    def __init__(self, program: Squasher, zstd: Libzstd, level: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.compression = program.compression
        self.versions = {**program.versions, **self._own_versions(zstd)}
        self.copies = program.copies
        self._program = program
        self.others = (program,)
        self._zstd = zstd
        self._level = level
        self._clock = clock

    def squash(self, out: Path, source: SquashSource, *, offset: int, deadline: float) -> Mapping[str, str]:
        """See :meth:`Squasher.squash`."""
        if source.entry_count <= _MAX_ENTRIES:
            try:
                self._squash(out, source, offset, deadline)
            except _TooLargeError:
                out.unlink()
            else:
                return self._own_versions(self._zstd)
        return self._program.squash(out, source, offset=offset, deadline=deadline)

    def _squash(self, out: Path, source: SquashSource, offset: int, deadline: float) -> None:
        """Make a squashfs. Raises as :meth:`squash`, and _TooLargeError."""
        ends = self._clock() + deadline

        def check() -> None:
            if self._clock() > ends:
                raise BuildError(f"squashing did not end within {deadline:g} s")

        mode, newest = source.totals.root[0], source.totals.newest
        descriptor = os.open(out, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with (
                self._known(source.earlier) as known,
                SquashfsWriter(
                    descriptor, offset, self._zstd, self._level, mode=mode, newest=newest, check=check, known=known
                ) as writer,
                _without_damage(known),
            ):
                _add_all(source, writer)
                writer.finish()
                if known is not None:
                    _log.debug("%d bytes were copied from %s", known.copied, source.earlier)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise SpaceError("no space left for the SIF", hint="free space in --state, or set another --state") from error
        finally:
            os.close(descriptor)

    @staticmethod
    def _own_versions(zstd: Libzstd) -> dict[str, str]:
        """Return the versions of what makes the bytes beside this program itself."""
        return {"zstd": zstd.version}

    @contextlib.contextmanager
    def _known(self, earlier: EarlierSif | None) -> Iterator[KnownContents | None]:
        """Yield the contents of an earlier SIF, None if there is none, or none whose blocks would be made the same way."""
        with contextlib.ExitStack() as stack:
            known = None
            if earlier is not None:
                try:
                    sif = stack.enter_context(earlier.sif.open("rb"))
                    squashfs = Squashfs(sif.fileno(), DATA_OFFSET)
                    if squashfs.inode_count > _MAX_ENTRIES:
                        raise ValueError("it has very many entries")
                    with earlier.file_index.open("rb") as file_index:
                        known = KnownContents(squashfs, file_index)
                    known.check_compression(self._zstd.compressor(self._level, BLOCK))
                except (OSError, *ERRORS) as error:
                    _log.debug("nothing is copied from %s: %s", earlier.sif, error)
                    known = None
            yield known


@contextlib.contextmanager
def _without_damage(known: KnownContents | None) -> Iterator[None]:
    """Raise ReadbackError, after which the SIF is made again without it, if an earlier SIF turns out to be damaged."""
    try:
        yield
    except ERRORS as error:
        if known is None:
            raise
        raise ReadbackError(f"the earlier SIF cannot be copied from: {error}") from error


class _TooLargeError(Exception):
    """The names, targets of links and extended attributes of an image would take too much memory."""


class _Texts:
    """The texts of an image that are kept until its tables are written.

    Files that have the same extended attributes share one copy of them.
    """

    def __init__(self) -> None:
        self._met: dict[Xattrs, Xattrs] = {}
        self._size = 0

    def count(self, entry: ListedEntry) -> None:
        """Count an entry's name, and its target. Raises _TooLargeError."""
        self._size += len(entry.path) - entry.path.rfind(b"/") + (len(entry.content) if entry.kind == b"2" else 0)
        if self._size > _MAX_TEXT:
            raise _TooLargeError

    def shared(self, xattrs: Xattrs) -> Xattrs:
        """Return the copy of these attributes, which are counted once."""
        if xattrs not in self._met:
            self._size += sum(len(name) + len(value) for name, value in xattrs)
        return self._met.setdefault(xattrs, xattrs)


def _add_all(source: SquashSource, writer: SquashfsWriter) -> None:
    texts = _Texts()
    with contextlib.closing(source.entries()) as entries:
        for entry, content, own_xattrs in entries:
            texts.count(entry)
            xattrs = texts.shared(own_xattrs) if own_xattrs else ()
            columns = (entry.path, entry.mode, entry.uid, entry.gid, entry.mtime)
            if content is None:
                writer.add(entry.kind, *columns, b"" if entry.kind == b"5" else entry.content, xattrs)
            else:
                writer.add_file(*columns, entry.size, content, xattrs, entry.content)
