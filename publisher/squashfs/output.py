"""The file that becomes a squashfs, written from its beginning to its end."""

from __future__ import annotations

import os

_MAX_PARTS = 1000  # of one write: IOV_MAX is 1024


class SquashfsOutput:
    """A file that grows.

    Args:
        descriptor: the open file.
        origin: offset of the squashfs in the file.
        start: offset in the squashfs of what comes first.

    Attributes:
        end: offset in the squashfs behind everything that was put.
    """

    def __init__(self, descriptor: int, origin: int, start: int) -> None:
        self.end = start
        self._descriptor = descriptor
        self._origin = origin
        self._parts: list[bytes] = []  # what is not written yet
        self._copy = (-1, 0, 0)  # what is not copied yet: descriptor of its file, offset there, bytes

    def put(self, data: bytes) -> None:
        """Append bytes. Raises OSError."""
        if self._copy[2]:
            self.flush()
        self._parts.append(data)
        self.end += len(data)
        if len(self._parts) == _MAX_PARTS:
            self.flush()

    def copy(self, descriptor: int, offset: int, count: int) -> None:
        """Append bytes of another file, which are copied at the latest by :meth:`flush`. Raises as that."""
        source, begin, length = self._copy
        if self._parts or (length and (source, begin + length) != (descriptor, offset)):
            self.flush()
            length = 0
        self._copy = (descriptor, begin if length else offset, length + count)
        self.end += count

    def flush(self) -> None:
        """Write everything that was put. Raises OSError; ValueError if a file to copy from is too short."""
        source, begin, length = self._copy
        if length:
            os.lseek(self._descriptor, self._origin + self.end - length, os.SEEK_SET)
            while length:
                copied = os.sendfile(self._descriptor, source, begin, length)
                if not copied:
                    raise ValueError("the file to copy from is too short")
                begin += copied
                length -= copied
            self._copy = (-1, 0, 0)
        if self._parts:
            size = sum(map(len, self._parts))
            self.write(self._parts, self.end - size)
            self._parts = []

    def write(self, parts: list[bytes], offset: int) -> None:
        """Write parts, one behind the other, at an offset of the squashfs. Raises OSError."""
        offset += self._origin
        written = os.pwritev(self._descriptor, parts, offset)
        if written < sum(map(len, parts)):  # no space, a signal, or very much
            rest = memoryview(b"".join(parts))[written:]
            while rest:
                count = os.pwrite(self._descriptor, rest, offset + written)
                written += count
                rest = rest[count:]
