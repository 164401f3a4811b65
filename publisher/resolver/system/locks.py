"""Waiting for a lock among many: two hundred jobs may want the same SIF.

Nobody waits for long once there is nothing to wait for, and nobody spins: the pauses grow to a second, and are not alike.
flock(2) has no deadline, and an alarm would be the whole process's; hence the polling.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FIRST, _LONGEST, _GROWTH = 0.02, 1.0, 1.5  # seconds


@contextlib.contextmanager
def taken(
    paths: Sequence[str], until: float, done: Callable[[], bool] | None = None, why: str = "locked by another process"
) -> Iterator[int | None]:
    """Hold one of the exclusive locks of ``paths``, whichever is free first.

    Args:
        paths: files, made where they are not there and never removed; tried in this order.
        until: reading of the monotonic clock at which it is given up; one try is always made.
        done: tells whether there is nothing to wait for any more.
        why: what is said when it was in vain.

    Yields:
        the descriptor of the locked file, or None when ``done`` said so first. The kernel lets go when the holder dies.

    Raises:
        TimeoutError: all were held by others all the time.
        OSError: a file cannot be made.
    """
    pause = _FIRST
    while True:
        if done is not None and done():
            yield None
            return
        descriptor = _one_of(paths)
        if descriptor is not None:
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(why)
        time.sleep(min(left, pause * (0.5 + os.urandom(1)[0] / 256)))
        pause = min(_LONGEST, pause * _GROWTH)


def is_taken(path: str) -> bool:
    """Whether another process holds the lock of a file. Raises OSError."""
    descriptor = _one_of([path])
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _opened(path: str) -> int:
    """Made where it is not there; another user's, which we can only read, can be locked all the same."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _one_of(paths: Sequence[str]) -> int | None:
    for path in paths:
        descriptor = _opened(path)
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
