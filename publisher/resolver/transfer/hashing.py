"""The sha256 of a file while it grows, in a thread beside: hashing takes as long as receiving, and need not come on top of it.

The thread follows by reading what was written, which is in memory still; and it sees to it that what was written goes to the disk
meanwhile, so that there is not all of it to wait for in the end.
"""

from __future__ import annotations

import hashlib
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20
_TO_DISK = 64 << 20  # bytes after which what is there goes to the disk


class FileHasher:
    """Of an open file.

    Args:
        descriptor: of the file, open for reading.
        size: bytes that are in it.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._buffer = memoryview(bytearray(_CHUNK))
        self._step = threading.Lock()
        self._wake = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin()

    def grown(self, size: int) -> None:
        """There are so many bytes now."""
        self._size = size
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # a job may have all the threads that its user may have; then it is done in the end
                self._over.set()

    def hexdigest(self) -> str:
        """Of all that is there. Raises OSError when it cannot be read."""
        while self._hash_some():
            pass
        return self._hash.hexdigest()

    def restart(self, empty: Callable[[], object]) -> None:
        """Begin anew with a file that ``empty`` has emptied."""
        with self._step:
            empty()
            self._size = 0
            self._begin()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None and not self._over.is_set():
            self._over.set()
            self._wake.set()
            self._thread.join()

    def _begin(self) -> None:
        self._hash = hashlib.sha256()
        self._hashed = self._on_disk = 0

    def _follow(self) -> None:
        try:
            while not self._over.is_set():
                self._wake.wait()
                self._wake.clear()
                while not self._over.is_set() and self._hash_some():
                    if self._hashed - self._on_disk >= _TO_DISK:
                        self._on_disk = self._hashed
                        os.fdatasync(self._descriptor)
        except OSError:
            pass  # hexdigest() meets it again, and says so

    def _hash_some(self) -> bool:
        """Hash the next piece, in one thread at a time; False where there is none."""
        with self._step:
            count = os.preadv(self._descriptor, [self._buffer[: max(0, self._size - self._hashed)]], self._hashed)
            self._hash.update(self._buffer[:count])
            self._hashed += count
            return count > 0
