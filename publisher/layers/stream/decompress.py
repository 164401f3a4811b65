"""Decompression of a layer into its tar stream.

The compression is detected from the first bytes, not from the media type: registries contain gzip layers that are labelled zstd,
and the reverse. A gzip layer may have several members (eStargz); a zstd layer may have several frames and skippable ones
(zstd:chunked).
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
_ZSTD_SKIPPABLE = bytes([0x2A, 0x4D, 0x18])  # after a first byte of 0x50 to 0x5f: RFC 8878, section 3.1.2
_UNSUPPORTED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub calls the class an instance
_DECODING_ERRORS = (EOFError, OSError, zlib.error, _ISAL_ERROR, zstandard.ZstdError)


class _CompressedSource(io.RawIOBase):
    """A file object over a ``read`` function, which returns the bytes that were already read (``head``) first."""

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
    """Yield a ``read(n)`` over the tar stream of a compressed layer: up to n bytes, ``b""`` at the end.

    gzip is decompressed in a thread of its own, which calls ``read`` and has ended when the block ends; so ``read`` must not wait
    for anything that happens after the block. A truncated zstd frame ends early without an error; the digest of the stream is
    wrong then.

    Args:
        read: returns up to n bytes of the layer's blob, ``b""`` at its end.

    Raises:
        LayerError: the compressed data is damaged, or the compression is not supported; also raised by the yielded function.
    """
    head = b""
    while len(head) < 6 and (more := read(6 - len(head))):  # noqa: PLR2004 - the longest magic number below
        head += more
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise LayerError(
                f"the layer is compressed with {name}, which the OCI image specification does not allow",
                hint="the image's owner has to push it with gzip or zstd",
            )
    source = io.BufferedReader(_CompressedSource(head, read), 1 << 20)
    if head.startswith(_GZIP):
        inflated: IO[bytes] = igzip_threaded.open(source, "rb", threads=1)  # type: ignore[no-untyped-call]  # isal has no types
        with inflated:
            yield _translating_errors(inflated.read, "gzip")
    elif head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
        decompressor = zstandard.ZstdDecompressor()  # refuses windows over 128 MiB, which only `zstd --long` makes
        stream = decompressor.stream_reader(source, read_size=1 << 18, read_across_frames=True)
        yield _translating_errors(stream.read, "zstd")
    else:
        yield source.read1


def _translating_errors(read: Read, name: str) -> Read:
    def translating(size: int) -> bytes:
        try:
            return read(size)
        except _DECODING_ERRORS as error:
            raise _explained(name, str(error)) from error

    return translating


def _explained(name: str, problem: str) -> LayerError:
    """Return the error for a problem that a decompressor reports."""
    if "too much memory" in problem:
        return LayerError(
            "the layer's zstd data can be decompressed only with more than 128 MiB of memory, which is the limit",
            hint="the image's owner has to compress it without zstd --long, or with --long=27 at most",
        )
    if "Not a gzipped file" in problem:
        return LayerError(
            "the layer has other data after the end of its gzip data",
            hint="the image's owner has to build and push the layer again",
        )
    return LayerError(f"the layer's {name} data is damaged or truncated: {problem}", hint="its owner has to push it again")
