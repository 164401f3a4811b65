"""The sha256 of a growing file, computed in a second thread: hashing takes as long as receiving, and need not come on top.

The thread reads what was just written, which is still in memory. It also flushes the data to disk meanwhile, so that the final
flush is short.
"""

from __future__ import annotations

import hashlib
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20  # bytes
_FLUSH_BYTES = 64 << 20  # bytes after which the data is flushed to disk


class FileHasher:
    """The sha256 of an open file that grows.

    Args:
        descriptor: descriptor of the file, open for reading.
        size: current size of the file in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._buffer = memoryview(bytearray(_CHUNK))
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin()

    def set_size(self, size: int) -> None:
        """Tell the thread that the file has grown to ``size`` bytes."""
        self._size = size
        self._wake_thread()

    def add(self, piece: memoryview) -> None:
        """Hash what was just appended, which is still at hand: as set_size() does, without reading it again."""
        while self._hashed < self._size and self._hash_chunk():
            pass
        with self._lock:
            self._hash.update(piece)
            self._hashed += len(piece)
            self._size = self._hashed
        if self._hashed - self._flushed >= _FLUSH_BYTES:
            self._wake_thread()

    def hexdigest(self) -> str:
        """Return the sha256 of the whole file. Raise OSError if it cannot be read."""
        while self._hash_chunk():
            pass
        return self._hash.hexdigest()

    def restart(self, truncate: Callable[[], object]) -> None:
        """Start again with an empty file, which ``truncate`` empties."""
        with self._lock:
            truncate()
            self._size = 0
            self._begin()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None and not self._stop.is_set():
            self._stop.set()
            self._wake.set()
            self._thread.join()

    def _begin(self) -> None:
        self._hash = hashlib.sha256()
        self._hashed = self._flushed = 0

    def _wake_thread(self) -> None:
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the user's limit of threads may be reached; then hexdigest() does all the work
                self._stop.set()

    def _follow(self) -> None:
        """Hash and flush the file as it grows; the body of the thread."""
        try:
            while not self._stop.is_set():
                self._wake.wait()
                self._wake.clear()
                while not self._stop.is_set() and self._hash_chunk():
                    self._flush()
                self._flush()
        except OSError:
            pass  # hexdigest() meets the error again and raises it

    def _flush(self) -> None:
        """Flush the file to disk once enough has been hashed since the last time."""
        if self._hashed - self._flushed >= _FLUSH_BYTES:
            self._flushed = self._hashed
            os.fdatasync(self._descriptor)

    def _hash_chunk(self) -> bool:
        """Hash the next chunk, in one thread at a time; return False if there is none."""
        with self._lock:
            count = os.preadv(self._descriptor, [self._buffer[: max(0, self._size - self._hashed)]], self._hashed)
            self._hash.update(self._buffer[:count])
            self._hashed += count
            return count > 0
