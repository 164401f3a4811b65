"""Turns at what not everybody may do at once: one process for each SIF, a few for each host.

A turn is the flock(2) of a file, or of any one of several; the kernel ends it when its holder dies. Who waits asks again and
again. A blocking flock(2) has no deadline without a signal, which belongs to the process that we run in, or a child for
each of 200 waiters. The pause grows with the time waited, up to a second, by chance: 200 waiters wake up some 200 times a second
together, a short wait stays short, and nobody's turn depends on who came first. The waiter looks at the SIF itself too, so that
all of them go on at once when it is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SHORTEST, _LONGEST = 0.02, 1.0  # seconds of a pause
_PART = 0.25  # of the time waited so far


@contextlib.contextmanager
def turn(paths: Sequence[str], until: float, is_over: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Hold the lock of one of the files, which are made.

    Args:
        paths: tried from one of them on, by chance.
        until: reading of the monotonic clock at which waiting ends; each is tried once in any case.
        is_over: asked at each try; yields False without a turn when there is nothing to wait for any more.

    Raises:
        TimeoutError: others held all of them all the time.
        OSError: a file can neither be made nor opened.
    """
    began = time.monotonic()
    while True:
        descriptor = _first(paths)
        if descriptor is not None:
            break
        if is_over():
            yield False
            return
        now = time.monotonic()
        if now >= until:
            raise TimeoutError(f"others hold {paths[0]}")
        pause = min(_LONGEST, max(_SHORTEST, (now - began) * _PART)) * (0.5 + _chance())
        time.sleep(min(pause, until - now))
    try:
        yield True
    finally:
        os.close(descriptor)


def _first(paths: Sequence[str]) -> int | None:
    """A descriptor that holds the lock of one of the files."""
    start = int(_chance() * len(paths))
    for path in (*paths[start:], *paths[:start]):
        descriptor = _locked(path)
        if descriptor is not None:
            return descriptor
    return None


def _locked(path: str) -> int | None:
    """None where another process holds it, or has just removed it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # somebody else's file can be locked as well
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _chance() -> float:
    return os.urandom(1)[0] / 256
