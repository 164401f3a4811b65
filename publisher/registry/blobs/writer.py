"""One layer on its way in: written, hashed and indexed by a thread, from chunks that the event loop hands over.

The thread reads what an earlier, broken transfer left, then what arrives, and gives the very same bytes to the index, so that
a resumed layer too is read once. Between the loop and the thread at most :data:`_WAITING` chunks wait.
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

_WAITING = 16
_CHUNK = 1 << 18


@dataclass(frozen=True)
class WrittenBlob:
    """A file that is whole and on disk: its sha256 (64 hex), its bytes, and why it has no index (None where it has)."""

    sha256: str
    size: int
    not_a_layer: LayerError | None


class BlobWriter:
    """An asynchronous context manager around the writing of one file, continued where it exists.

    Leaving it early, by an error, keeps the file for the next try. :meth:`finish` says that all has arrived.

    Args:
        path: the file.
        index: where its header index goes.
        limits: what a layer may ask for.
    """

    def __init__(self, path: Path, index: Path, limits: LayerLimits) -> None:
        self._path = path
        self._index = index
        self._limits = limits
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_WAITING)
        self._whole = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="blob")  # its own: it may wait for the network for hours
        self._thread = self._loop.run_in_executor(executor, self._work)
        self._thread.add_done_callback(self._ended)
        executor.shutdown(wait=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._chunks.put(None)
        await asyncio.wait({self._thread})

    async def put(self, chunk: bytes) -> None:
        """Hand over the next bytes; waits while too many are waiting already.

        Raises:
            SpaceError: no room left.
            BlobError: the file cannot be written.
        """
        await self._room.acquire()
        if self._thread.done():
            self._thread.result()
        self._chunks.put(chunk)

    async def finish(self) -> WrittenBlob:
        """All bytes have been handed over: wait until they are on disk. Raises as :meth:`put`."""
        self._whole = True
        self._chunks.put(None)
        await asyncio.wait({self._thread})
        return self._thread.result()

    def _ended(self, thread: asyncio.Future[WrittenBlob]) -> None:
        thread.exception()  # seen: whoever hands over more, or finishes, gets it
        self._room.release()

    # --- in the thread

    def _work(self) -> WrittenBlob:
        with failures(BlobError, f"{self._path} cannot be written"), self._path.open("ab+") as file:
            file.seek(0)
            tee = _Tee(file, self._next)
            not_a_layer = None
            try:
                write_index(tee.read, self._index, self._limits)
            except LayerError as error:
                not_a_layer = error
            while tee.read(_CHUNK):  # all of the file counts for its digest, whatever the index needed or could read
                pass
            file.flush()
            os.fsync(file.fileno())
            return WrittenBlob(tee.sha256.hexdigest(), tee.size, not_a_layer)

    def _next(self) -> bytes:
        chunk = self._chunks.get()
        if chunk is None:
            if not self._whole:
                raise _BrokenOffError
            return b""
        self._loop.call_soon_threadsafe(self._room.release)
        return chunk


class _BrokenOffError(Exception):
    """Ends the thread of a transfer that has failed; nobody asks for the result."""


class _Tee:
    """Reads the file to its end, then what arrives, which is added to the file; all of it is hashed.

    A failure is remembered: the index takes one of the system's for damaged data, and the reading after it has to tell.
    """

    def __init__(self, file: BinaryIO, arriving: Callable[[], bytes]) -> None:
        self._file = file
        self._arriving = arriving
        self._replaying = True
        self._at_end = False
        self._failure: Exception | None = None
        self._rest = b""
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, ``b""`` at the end."""
        if self._failure is not None:
            raise self._failure
        if not self._rest:
            try:
                self._rest = self._more()
            except Exception as error:
                self._failure = error
                raise
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def _more(self) -> bytes:
        data = self._file.read(_CHUNK) if self._replaying else b""
        if not data:
            self._replaying = False
            data = b"" if self._at_end else self._arriving()
            self._at_end = not data
            self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        return data
