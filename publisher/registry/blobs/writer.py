"""Writing of one layer: a thread writes, hashes and indexes the chunks that the event loop receives.

The thread first reads the bytes of an earlier, interrupted transfer, then the new ones, and indexes them in the same pass, so a
resumed layer is read only once too. At most :data:`_MAX_QUEUED` chunks wait between the event loop and the thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from publisher.errors import BlobError, LayerError
from publisher.layers.index import write_index
from publisher.system.durable import failures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO

    from publisher.layers.limits import LayerLimits
    from publisher.registry.blobs.copies import CopyWriter

_MAX_QUEUED = 16
_CHUNK = 1 << 18


@dataclass(frozen=True)
class WrittenBlob:
    """A complete file on disk.

    Attributes:
        sha256: its SHA-256, 64 hex digits.
        size: bytes.
        layer_error: why it has no index, None if it has one.
    """

    sha256: str
    size: int
    layer_error: LayerError | None


class BlobWriter:
    """An asynchronous context manager that writes one file, or appends to it if it exists.

    If an error ends the context, the file is kept for the next try. :meth:`finish` completes it.

    Args:
        path: the file.
        index: the file for its header index, None for a file that is no layer.
        limits: the limits on the content of a layer.
        copy: writes the layer's uncompressed copy, None for no copy.
    """

    def __init__(self, path: Path, index: Path | None, limits: LayerLimits, copy: CopyWriter | None = None) -> None:
        self._path = path
        self._index = index
        self._limits = limits
        self._copy = copy
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._free_slots = asyncio.Semaphore(_MAX_QUEUED)
        self._is_complete = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(
            1, thread_name_prefix="blob"
        )  # a thread of its own, because it may wait for the network for hours
        self._thread = self._loop.run_in_executor(executor, self._write)
        self._thread.add_done_callback(self._on_thread_end)
        executor.shutdown(wait=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._chunks.put(None)
        await asyncio.wait({self._thread})

    async def put(self, chunk: bytes) -> None:
        """Queue the next bytes; wait while the queue is full.

        Raises:
            SpaceError: the device is full.
            BlobError: the file cannot be written.
        """
        await self._free_slots.acquire()
        if self._thread.done():
            self._thread.result()
        self._chunks.put(chunk)

    async def finish(self) -> WrittenBlob:
        """Wait until all queued bytes are on disk, and return the complete file. Raises as :meth:`put`."""
        self._is_complete = True
        self._chunks.put(None)
        await asyncio.wait({self._thread})
        return self._thread.result()

    def _on_thread_end(self, thread: asyncio.Future[WrittenBlob]) -> None:
        thread.exception()  # marks it as retrieved; the next put() or finish() raises it
        self._free_slots.release()

    # --- in the thread

    def _write(self) -> WrittenBlob:
        with failures(BlobError, f"{self._path} cannot be written"), self._path.open("ab+") as file:
            os.fchmod(file.fileno(), 0o644)
            file.seek(0)
            tee = _Tee(file, self._next_chunk)
            layer_error = None
            try:
                if self._index is not None:
                    copy = None if self._copy is None else self._copy.write
                    write_index(tee.read, self._index, self._limits, copy)
            except LayerError as error:
                layer_error = error
            while tee.read(_CHUNK):  # the digest covers the whole file, even if the index did not need or could not read it
                pass
            file.flush()
            os.fsync(file.fileno())
            return WrittenBlob(tee.sha256.hexdigest(), tee.size, layer_error)

    def _next_chunk(self) -> bytes:
        chunk = self._chunks.get()
        if chunk is None:
            if not self._is_complete:
                raise _InterruptedError
            return b""
        self._loop.call_soon_threadsafe(self._free_slots.release)
        return chunk


class _InterruptedError(Exception):
    """Ends the thread of a transfer that has failed; nothing waits for its result."""


class _Tee:
    """Reads a file to its end, then new chunks, which it appends to the file; hashes all bytes.

    An error is raised again by each later read: the index mistakes an operating system error for damaged data, so the read after
    the index has to report it.

    Args:
        file: the file, open for reading and appending.
        next_chunk: returns the next chunk, ``b""`` at the end.

    Attributes:
        sha256: the hash of the bytes so far.
        size: the number of bytes so far.
    """

    def __init__(self, file: BinaryIO, next_chunk: Callable[[], bytes]) -> None:
        self._file = file
        self._next_chunk = next_chunk
        self._in_file = True
        self._at_end = False
        self._error: Exception | None = None
        self._buffer = b""
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, ``b""`` at the end."""
        if self._error is not None:
            raise self._error
        if not self._buffer:
            try:
                self._buffer = self._read_chunk()
            except Exception as error:
                self._error = error
                raise
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        return part

    def _read_chunk(self) -> bytes:
        data = self._file.read(_CHUNK) if self._in_file else b""
        if not data:
            self._in_file = False
            data = b"" if self._at_end else self._next_chunk()
            self._at_end = not data
            self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        return data
