"""Download slots: they bound the number of simultaneous downloads, of one cache or of all caches that share a directory.

A shared directory has mode 1777, and any user can hold a lock in it for ever, or put something else in the place of a lock file.
The bound is a courtesy to the network and protects nothing. So a process waits for a shared slot for some minutes only, and then
downloads without one.
"""

from __future__ import annotations

import contextlib
import os
import time

from publisher.resolver.system import locks, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

SHARED_PATIENCE = 300.0
"""Seconds for which a shared slot is waited for."""
_MAX_SHARE = 0.25  # of the remaining time


class DownloadSlot:
    """A slot that is held during a ``with`` block."""

    def __init__(self, directory: str, sha256: str, count: int, end: float, *, shared: bool) -> None:
        """Describe the slot.

        Args:
            directory: of the lock files.
            sha256: of the SIF; each SIF begins with another slot.
            count: number of slots.
            end: reading of the monotonic clock at which waiting for a slot ends.
            shared: whether other users can write to the directory.
        """
        first = int(sha256[:8], 16) % count
        self._directory = directory
        self._paths = [os.path.join(directory, str(number)) for number in (*range(first, count), *range(first))]
        self._count = count
        self._end = end
        self._shared = shared
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        """Wait for the slot.

        Raises:
            TimeoutError: no slot of an own directory became free.
            OSError: an own directory cannot be used.
        """
        end = self._end
        if self._shared:
            now = time.monotonic()
            end = min(end, now + min(SHARED_PATIENCE, _MAX_SHARE * max(0.0, end - now)))
        busy = f"no download slot became free: the limit is {self._count} downloads at a time (setting fetches)"
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self._stack.enter_context(locks.acquire(self._paths, end, None, busy))
        except OSError as error:  # TimeoutError is one
            if not self._shared or time.monotonic() >= self._end:
                raise
            log.warning(f"downloading without a slot of {self._directory}: {error}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, where)
