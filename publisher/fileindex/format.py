r"""The file index of an image: every path of the published tree with what it is and, for files, the sha256 of its content.

Text, zstd-compressed, one line per path in the order of the stream::

    kind SP mode SP uid SP gid SP size SP mtime SP content TAB path LF

``kind`` is ``f`` file, ``h`` another name of a file (``content`` is that file's path), ``l`` symbolic link (``content`` is its
target), ``d`` directory, ``p`` fifo. ``mode`` is octal, numbers are decimal, ``content`` of a file is 64 hex digits and ``-``
where there is none. In paths and targets, bytes up to 0x20, ``\``, 0x7f and above are written ``\xHH``.
Two of them, compared by content, say what a new version of an image changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator

_ESCAPED = re.compile(rb"[\x00-\x20\\\x7f-\xff]")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_KINDS = {b"0": b"f", b"1": b"h", b"2": b"l", b"5": b"d", b"6": b"p"}


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One line of a file index; ``content`` as the module says, unescaped."""

    kind: str
    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    content: bytes


class FileIndexWriter:
    """Writes a file index to ``out`` as the stream is emitted; counts what goes by.

    Attributes:
        files: paths written so far.
        unpacked_size: bytes of all regular files, each counted once.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._compressed = zstandard.ZstdCompressor(level=3).stream_writer(out, closefd=False)
        self._lines: list[bytes] = []
        self.files = 0
        self.unpacked_size = 0

    def add(self, kind: bytes, path: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, content: bytes) -> None:  # noqa: PLR0917 - the columns
        """Add a path; ``kind`` is a tar type flag, ``content`` a digest of 32 bytes, a link's target, or empty."""
        if kind == b"0":
            self.unpacked_size += size
            shown = content.hex().encode()
        else:
            shown = _escaped(content) or b"-"
        self.files += 1
        self._lines.append(b"%s %o %d %d %d %d %s\t%s\n" % (_KINDS[kind], mode, uid, gid, size, mtime, shown, _escaped(path)))
        if len(self._lines) == 1024:  # noqa: PLR2004 - a portion
            self._flush()

    def close(self) -> None:
        """Write what is left; ``out`` stays open."""
        self._flush()
        self._compressed.close()  # type: ignore[no-untyped-call]  # zstandard's stub lacks it

    def _flush(self) -> None:
        self._compressed.write(b"".join(self._lines))
        self._lines.clear()


def read_file_index(file: IO[bytes]) -> Iterator[IndexedFile]:
    """The lines of a file index, in its order."""
    with zstandard.ZstdDecompressor().stream_reader(file) as stream:
        rest = b""
        while chunk := stream.read(1 << 20):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(_parsed, lines)


def _parsed(line: bytes) -> IndexedFile:
    columns, _, name = line.partition(b"\t")
    kind, mode, uid, gid, size, mtime, content = columns.split(b" ")
    numbers = (int(mode, 8), int(uid), int(gid), int(size), int(mtime))
    return IndexedFile(kind.decode(), _unescaped(name), *numbers, b"" if content == b"-" else _unescaped(content))


def _escaped(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: b"\\x%02x" % ord(found[0]), text)


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text)
