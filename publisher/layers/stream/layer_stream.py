"""A layer opened for reading: its uncompressed copy where there is one, otherwise its blob."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from publisher.layers.stream.decompress import decompressed
from publisher.layers.stream.uncompressed import opened_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.layers.stream.uncompressed import UncompressedCopy

    Read = Callable[[int], bytes]
    Write = Callable[[memoryview | bytes], object]


class LayerStream(NamedTuple):
    """The tar stream of a layer, which is read once.

    Attributes:
        read: returns up to n bytes, ``b""`` at the end.
        copy: the uncompressed copy that ``read`` belongs to, None if a blob is decompressed.
    """

    read: Read
    copy: UncompressedCopy | None = None


@contextlib.contextmanager
def opened_layer(
    blob: Path, copies: Path | None, progress: Callable[[int], None], write: Write | None = None, pipe: int | None = None
) -> Iterator[LayerStream]:
    """Yield the tar stream of a layer.

    Args:
        blob: the layer.
        copies: the directory of uncompressed copies of layers, of which any may be missing; None for none.
        progress: called with the number of compressed bytes read since the last call, in the thread that reads; at the end of the
            block with the rest of them.
        write: receives what the uncompressed copy copies; None if nothing is.
        pipe: descriptor of the pipe that ``write`` writes to, None if it is no pipe.

    Raises:
        LayerError: the layer is damaged; also raised by ``read``.
        OSError: it cannot be read.
    """
    told = _Progress(blob.stat().st_size, progress)
    with opened_copy(copies, blob, write or _refuse, pipe, told.advance_in_proportion) as copy:
        if copy is not None:
            yield LayerStream(copy.read, copy)
            told.finish()
            return
    with blob.open("rb", buffering=0) as file:
        compressed = _CountedReader(file.read)
        with decompressed(compressed.read) as read:
            yield LayerStream(_reporting(read, compressed, told))
    told.finish()


def _refuse(_: memoryview | bytes) -> None:
    raise AssertionError("a stream without an output cannot be copied")


class _Progress:
    """What was reported of one layer.

    Args:
        total: size of its blob in bytes.
        progress: called with the number of bytes since the last call.
    """

    def __init__(self, total: int, progress: Callable[[int], None]) -> None:
        self._total = total
        self._progress = progress
        self._reported = 0

    def advance_to(self, count: int) -> None:
        """Report that so many bytes of the blob were read."""
        if count > self._reported:
            self._progress(count - self._reported)
            self._reported = count

    def finish(self) -> None:
        """Report that the whole layer was read, or is not needed any more."""
        self.advance_to(self._total)

    def advance_in_proportion(self, position: int, size: int) -> None:
        """Report where a reader of the uncompressed layer is."""
        self.advance_to(self._total * position // max(1, size))


class _CountedReader:
    """A ``read`` function that counts its bytes, in whichever thread decompresses them."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.total = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.total += len(data)
        return data


def _reporting(read: Callable[[int], bytes], compressed: _CountedReader, told: _Progress) -> Callable[[int], bytes]:
    """Return ``read`` with reports of progress in the thread that calls it."""

    def reporting(size: int) -> bytes:
        data = read(size)
        told.advance_to(compressed.total)
        return data

    return reporting
