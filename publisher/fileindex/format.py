r"""The file index of an image: every path of the published tree with its attributes and, for files, the sha256 of its content.

It is zstd-compressed text: the line ``#xattrs`` and one line per path, in the order of the layers' stream::

    kind SP mode SP uid SP gid SP size SP mtime SP content [SP xattrs] TAB path LF

``kind`` is ``f`` file, ``h`` hard link (``content`` is the path of the first name), ``l`` symbolic link (``content`` is its
target), ``d`` directory, ``p`` fifo. ``mode`` is octal, numbers are decimal, ``content`` of a file is 64 hex digits and ``-``
if there is none. ``xattrs`` is the sha256 of the extended attributes (:func:`digest_of_xattrs`), if there are any. An index
without the first line was written by a version that did not know extended attributes. In paths and targets, bytes up to 0x20,
``\``, 0x7f and above are written ``\xHH``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ESCAPED = re.compile(rb"[\x00-\x20\\\x7f-\xff]")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_XATTRS_KNOWN = b"#xattrs\n"
_KINDS = {b"0": b"f", b"1": b"h", b"2": b"l", b"5": b"d", b"6": b"p"}


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One line of a file index; ``path`` and ``content`` (see the module's docstring) are unescaped."""

    kind: str
    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    content: bytes
    xattrs: bytes = b""


class FileIndexWriter:
    """A writer of a file index to the stream ``out``, which also counts what it writes.

    Args:
        out: the stream.
        xattrs: whether the extended attributes of all files are known.

    Attributes:
        files: paths written so far.
        unpacked_size: bytes of all regular files, each counted once.
    """

    def __init__(self, out: IO[bytes], *, xattrs: bool = True) -> None:
        self._compressed = zstandard.ZstdCompressor(level=3).stream_writer(out, closefd=False)
        self._lines: list[bytes] = [_XATTRS_KNOWN] if xattrs else []
        self.files = 0
        self.unpacked_size = 0

    def add(  # noqa: PLR0917 - the columns
        self,
        kind: bytes,
        path: bytes,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime: int,
        content: bytes,
        xattrs: Mapping[bytes, bytes] | bytes | None = None,
    ) -> None:
        """Add a path.

        ``kind`` is a tar type flag, ``content`` a sha256 of 32 bytes, the target of a link, or empty; ``xattrs`` are extended
        attributes, or their digest (:func:`digest_of_xattrs`).
        """
        if kind == b"0":
            self.unpacked_size += size
            column = content.hex().encode()
        else:
            column = _escaped(content) or b"-"
        if xattrs:
            column += b" " + (xattrs if isinstance(xattrs, bytes) else digest_of_xattrs(xattrs))
        self.files += 1
        self._lines.append(b"%s %o %d %d %d %d %s\t%s\n" % (_KINDS[kind], mode, uid, gid, size, mtime, column, _escaped(path)))
        if len(self._lines) >= 1024:  # noqa: PLR2004 - lines per write
            self._flush()

    def close(self) -> None:
        """Write the remaining lines; ``out`` stays open."""
        self._flush()
        self._compressed.close()  # type: ignore[no-untyped-call]  # zstandard's stub lacks it

    def _flush(self) -> None:
        self._compressed.write(b"".join(self._lines))
        self._lines.clear()


def read_file_index(file: IO[bytes]) -> Iterator[IndexedFile]:
    """Yield the lines of a file index, in its order."""
    return map(parse_line, read_raw_lines(file))


def read_raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file index as they are written, for :func:`parse_line`: most are only compared."""
    with zstandard.ZstdDecompressor().stream_reader(file) as stream:
        rest = b""
        while chunk := stream.read(1 << 20):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines and lines[0].startswith(b"#"):
                del lines[0]
            yield from lines


def knows_xattrs(file: IO[bytes]) -> bool:
    """Return whether a file index was written by a version that knows extended attributes."""
    with zstandard.ZstdDecompressor().stream_reader(file) as stream:
        return stream.read(len(_XATTRS_KNOWN)) == _XATTRS_KNOWN


def digest_of_xattrs(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Return the sha256, in hexadecimal, of extended attributes (name -> value) in any order."""
    sha256 = hashlib.sha256()
    for name, value in sorted(xattrs.items()):
        sha256.update(b"%d %d %s%s" % (len(name), len(value), name, value))
    return sha256.hexdigest().encode()


def parse_line(line: bytes) -> IndexedFile:
    """Return what a line of :func:`read_raw_lines` says."""
    columns, _, name = line.partition(b"\t")
    kind, mode, uid, gid, size, mtime, content, *xattrs = columns.split(b" ")
    numbers = (int(mode, 8), int(uid), int(gid), int(size), int(mtime))
    content = b"" if content == b"-" else _unescaped(content)
    return IndexedFile(kind.decode(), _unescaped(name), *numbers, content, xattrs[0] if xattrs else b"")


def _escaped(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: b"\\x%02x" % ord(match[0]), text)


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text)
