"""File locks with a deadline, for many processes that want the same lock: two hundred jobs may need the same SIF.

flock(2) has no deadline, and an alarm would affect the whole process; so the lock is polled, with pauses that grow to a second
and are jittered.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FIRST_PAUSE, _MAX_PAUSE, _GROWTH = 0.02, 1.0, 1.5  # seconds, seconds, factor


@contextlib.contextmanager
def acquire(
    paths: Sequence[str], until: float, done: Callable[[], bool] | None = None, why: str = "locked by another process"
) -> Iterator[int | None]:
    """Hold one exclusive lock of several, whichever is free first.

    Args:
        paths: lock files, tried in this order; created if absent and never removed.
        until: reading of the monotonic clock at which waiting ends; the locks are tried at least once.
        done: returns whether there is nothing left to wait for.
        why: message of the TimeoutError.

    Yields:
        the descriptor of the locked file, or None if ``done`` returned true first. The kernel releases the lock when the holder
        dies.

    Raises:
        TimeoutError: other processes held all locks all the time.
        OSError: a lock file cannot be created.
    """
    begun, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        if done is not None and done():
            yield None
            return
        descriptor = _lock_first_free(paths)
        if descriptor is not None:
            waited = time.monotonic() - begun
            if waited > _FIRST_PAUSE:
                log.debug("acquired the lock %s after %.2f s", paths[0], waited)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        left = until - time.monotonic()
        if left <= 0:
            log.debug("did not acquire the lock %s within %.2f s", paths[0], time.monotonic() - begun)
            raise TimeoutError(why)
        if pause == _FIRST_PAUSE:
            log.debug("waiting for the lock %s, for at most %.1f s", paths[0], left)
        time.sleep(min(left, pause * (0.5 + os.urandom(1)[0] / 256)))
        pause = min(_MAX_PAUSE, pause * _GROWTH)


def is_locked(path: str) -> bool:
    """Return whether another process holds the lock of a file. Raise OSError if the file cannot be opened or created."""
    descriptor = _lock_first_free([path])
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _open(path: str) -> int:
    """Open a lock file, and create it if absent. A file of another user that is only readable can be locked as well."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _lock_first_free(paths: Sequence[str]) -> int | None:
    """Lock the first file that no other process has locked and return its descriptor; return None if there is none."""
    for path in paths:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return descriptor
    return None
