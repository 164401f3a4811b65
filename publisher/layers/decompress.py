"""The bytes of a layer's tar stream, whatever it was compressed with.

The first bytes decide, not the media type: registries hold gzip layers that call themselves zstd and the reverse. gzip may
have several members (eStargz), zstd several frames and skippable ones (zstd:chunked).
"""

from __future__ import annotations

import contextlib
import io
import zlib
from typing import IO, TYPE_CHECKING

import zstandard
from isal import igzip_lib, igzip_threaded

from publisher.errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[int], bytes]

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = bytes([0x2A, 0x4D, 0x18])  # after a first byte 0x50 to 0x5f: RFC 8878, section 3.1.2
_REFUSED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub calls the class an instance
_DAMAGED = (EOFError, OSError, zlib.error, _ISAL_ERROR, zstandard.ZstdError)


class _CompressedSource(io.RawIOBase):
    """A file object over a ``read`` function, with the first bytes put back."""

    def __init__(self, head: bytes, read: Read) -> None:
        self._head = head
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's buffer is private
        data = self._head[: len(buffer)] or self._read(len(buffer))
        self._head = self._head[len(data) :] if self._head else b""
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def decompressed(read: Read) -> Iterator[Read]:
    """Yields a ``read(n)`` over the tar stream of the blob that ``read`` gives: up to n bytes, ``b""`` at the end.

    gzip is inflated in a thread of its own, which calls ``read``; it has ended when the block ends, so that a ``read`` that waits
    for bytes must not wait for the block's end. A zstd frame that is cut just ends early, and the digest of the stream is wrong.

    Raises:
        LayerError: (also from the yielded function) damaged compressed data, or a compression no registry should hold.
    """
    head = b""
    while len(head) < 6 and (more := read(6 - len(head))):  # noqa: PLR2004 - the longest magic number below
        head += more
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            raise LayerError(f"the layer is compressed with {name}, which the OCI image specification does not have")
    source = io.BufferedReader(_CompressedSource(head, read), 1 << 20)
    if head.startswith(_GZIP):
        inflated: IO[bytes] = igzip_threaded.open(source, "rb", threads=1)  # type: ignore[no-untyped-call]  # isal has no types
        with inflated:
            yield _guarded(inflated.read, "gzip")
    elif head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
        decompressor = zstandard.ZstdDecompressor()  # refuses windows of more than 128 MiB, which `zstd --long` needs
        yield _guarded(decompressor.stream_reader(source, read_size=1 << 18, read_across_frames=True).read, "zstd")
    else:
        yield source.read1


def _guarded(read: Read, name: str) -> Read:
    def guarded(size: int) -> bytes:
        try:
            return read(size)
        except _DAMAGED as error:
            raise LayerError(f"the layer's {name} data is damaged or cut: {error}") from error

    return guarded
