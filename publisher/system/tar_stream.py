"""A tar stream in GNU tar's format, as ``cvmfs_server ingest`` reads it.

libarchive, which reads it there, takes names in GNU headers as they are, and converts those of PAX headers to the character set
of the locale.
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Write = Callable[[bytes | memoryview], object]

_BLOCK = 512
_NAME = 100  # bytes of a name or link in a header
_ID_LIMIT = 1 << 21  # the first number that needs more than seven octal digits
_SIZE_LIMIT = 1 << 33  # the first that needs more than eleven
_TORN = 256  # no member of an archive ends here: members are whole blocks
_PAGE = 4096  # a write(2) to a pipe that is interrupted has written whole pages, pipe(7)
_PORTION = 1 << 20


class TarStream:
    """A tar stream whose reader cannot take it for complete before :meth:`end`, however the writer ends.

    A tar archive may end after any member, without zero blocks: whoever reads half a stream may find half the files, and no
    error. So the writes are such that, wherever one is cut off, the stream ends within a block.

    Args:
        write: writes all of its bytes to a pipe.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[bytes | memoryview] = []
        self._size = 0
        self._is_begun = False

    def add(self, header: bytes, content: Iterable[bytes | memoryview] = (), size: int = 0) -> None:
        """Add a member: its header blocks, and ``size`` bytes of content."""
        self._put(header)
        for part in content:
            self._put(part)
        if size % _BLOCK:
            self._put(bytes(-size % _BLOCK))

    def hold(self) -> None:
        """Write everything but the end of the last member."""
        self._pass_on(_BLOCK)

    def end(self) -> None:
        """Write what was held, and the end of the archive."""
        self.hold()
        self._waiting.append(bytes(2 * _BLOCK))
        self._write(b"".join(self._waiting))
        self._waiting, self._size = [], 0

    def _put(self, data: bytes | memoryview) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size > _PORTION + _PAGE:
            self._pass_on(_PAGE)

    def _pass_on(self, unit: int) -> None:
        """Write as many units as are waiting; what was written ends within a block."""
        data = b"".join(self._waiting)
        first = 0
        if not self._is_begun and data:
            first, self._is_begun = _TORN, True
            self._write(data[:first])
        end = first + max(0, len(data) - first - 1) // unit * unit
        if end > first:
            self._write(memoryview(data)[first:end])
        self._waiting, self._size = [data[end:]], len(data) - end


def header(
    name: bytes, kind: bytes, *, mode: int, uid: int = 0, gid: int = 0, size: int = 0, mtime: int = 0, link: bytes = b""
) -> bytes:
    """Return the header blocks of a member, in GNU tar's format.

    Args:
        name: path without a leading slash.
        kind: type flag: ``0`` file, ``1`` hard link, ``2`` symbolic link, ``5`` directory, ``6`` fifo.
        mode: permission bits.
        uid: numeric owner.
        gid: numeric group.
        size: bytes of data that follow.
        mtime: seconds since the epoch, less than 2**33.
        link: target of a link.
    """
    long_texts = b""
    if len(link) > _NAME:
        long_texts += _long_text(b"K", link)
    if len(name) > _NAME:
        long_texts += _long_text(b"L", name)
    return long_texts + _block(name, kind, mode, uid, gid, size, mtime, link)


def _long_text(kind: bytes, text: bytes) -> bytes:
    size = len(text) + 1
    return _long_head(kind, size) + text.ljust(-(-size // _BLOCK) * _BLOCK, b"\0")


@functools.lru_cache(1024)
def _long_head(kind: bytes, size: int) -> bytes:
    return _block(b"././@LongLink", kind, 0o644, 0, 0, size, 0, b"")


def _block(  # noqa: PLR0917 - the fields of a header, in its order
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes
) -> bytes:
    head = b"%b%07o\0%b%b%b%011o\0" % (
        name[:_NAME].ljust(_NAME, b"\0"),
        mode,
        _number(uid, 8, _ID_LIMIT),
        _number(gid, 8, _ID_LIMIT),
        _number(size, 12, _SIZE_LIMIT),
        mtime,
    )
    tail = (kind + link[:_NAME].ljust(_NAME, b"\0") + b"ustar  \0").ljust(_BLOCK - len(head) - 8, b"\0")
    whole = head + b" " * 8 + tail
    return b"%b%06o\0 %b" % (head, byte_sum(whole), tail)


def byte_sum(block: bytes | bytearray) -> int:
    """Return the sum of the bytes of a header block.

    The lower half of Adler-32 is that sum plus one, modulo 65521, at the speed of C. A block of ASCII has a smaller sum.
    """
    return (zlib.adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)


def _number(value: int, width: int, limit: int) -> bytes:
    """Return a number in octal digits; in base 256 if it needs more of them."""
    return b"%0*o\0" % (width - 1, value) if value < limit else b"\x80" + value.to_bytes(width - 1, "big")
