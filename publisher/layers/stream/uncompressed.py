"""Uncompressed copies of layers in memory, so that a build need not decompress a layer again.

A fetch decompresses each layer anyway, for its digest and its header index, and leaves the tar stream in a file of a tmpfs while
there is room for it (:mod:`publisher.registry.blobs.copies`). A copy may be missing at any time: then the blob is read. It is
deleted once its image is built.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from publisher.errors import LayerError
from publisher.system.ownership import is_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Write = Callable[[memoryview | bytes], object]
    Progress = Callable[[int, int], object]

_PORTION = 1 << 20


def copy_path(copies: Path, blob: Path) -> Path:
    """Return where the uncompressed copy of a layer is, if there is one.

    Args:
        copies: the directory of the copies.
        blob: the layer, ``<2>/<62>`` of its digest.
    """
    return copies / f"{blob.parent.name}{blob.name}.tar"


def delete_copies(copies: Path | None, blobs: Iterable[Path]) -> None:
    """Delete the uncompressed copies of layers; who has one open can read on. Raises OSError."""
    if copies is not None:
        for blob in blobs:
            copy_path(copies, blob).unlink(missing_ok=True)


class UncompressedCopy:
    """An uncompressed copy that is read from its beginning to its end, or passed over.

    Args:
        descriptor: the open file, at its beginning.
        size: its size in bytes.
        write: receives what is copied.
        pipe: descriptor of the pipe that ``write`` writes to, so that what is copied goes there within the kernel; None if it is
            no pipe.
        progress: called as ``progress(position, size)``, in bytes, after each step.
    """

    def __init__(self, descriptor: int, size: int, write: Write, pipe: int | None, progress: Progress) -> None:
        self._descriptor = descriptor
        self._size = size
        self._write = write
        self._pipe = pipe
        self._progress = progress
        self._position = 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, ``b""`` at the end."""
        data = os.read(self._descriptor, size)
        self._advance(len(data))
        return data

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` bytes."""
        os.lseek(self._descriptor, count, os.SEEK_CUR)
        self._advance(count)

    def copy(self, count: int) -> None:
        """Copy the next ``count`` bytes to the output.

        Raises:
            LayerError: the file has fewer bytes.
            OSError: the output failed.
        """
        while count:
            copied = self._copy_some(count)
            if not copied:
                raise LayerError("the layer's uncompressed copy is shorter than the layer", hint="run again")
            count -= copied
            self._advance(copied)

    def _copy_some(self, count: int) -> int:
        if self._pipe is not None:
            return os.splice(self._descriptor, self._pipe, min(count, _PORTION))
        data = os.read(self._descriptor, min(count, _PORTION))
        self._write(data)
        return len(data)

    def _advance(self, count: int) -> None:
        self._position += count
        self._progress(self._position, self._size)


@contextlib.contextmanager
def opened_copy(
    copies: Path | None, blob: Path, write: Write, pipe: int | None, progress: Progress
) -> Iterator[UncompressedCopy | None]:
    """Yield the uncompressed copy of a layer, None if there is none, or if another account could have written it.

    Args:
        copies: the directory of the copies, None for none.
        blob: the layer.
        write: receives what is copied from it.
        pipe: the descriptor of the pipe that ``write`` writes to, None if it is no pipe.
        progress: called as ``progress(position, size)``, in bytes, while it is read.
    """
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = None if copies is None else os.open(copy_path(copies, blob), flags)
    except OSError:  # the blob has the same bytes
        descriptor = None
    if descriptor is None:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        usable = stat.S_ISREG(status.st_mode) and is_own(status)
        yield UncompressedCopy(descriptor, status.st_size, write, pipe, progress) if usable else None
    finally:
        os.close(descriptor)
