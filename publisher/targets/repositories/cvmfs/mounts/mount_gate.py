"""The mount gate: a lock that keeps our own readers out of the published mount while the tool replaces it.

At the end of a publish, and of an abort, the tool unmounts the published revision and mounts the next one. It cannot cope with
readers: unmounting fails because the mount is busy, and the tool ends with its work half done.

The gate is two files in our directory, each with a flock(2), which no kill leaves behind. Readers pass ``gate`` one by one and
hold ``readers`` while they read. A writer holds both, so that no reader enters any more and those inside leave.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)
_POLL = 0.05  # seconds between two attempts to lock: flock(2) has no timeout of its own
_PATIENCE = 5.0  # seconds of waiting after which it is reported


class MountGate:
    """The mount gate of a repository; ``area`` is our directory of that repository."""

    NAMES = ("gate", "readers")

    def __init__(self, area: Path) -> None:
        self._gate, self._readers = (area / name for name in self.NAMES)
        self._inside = False

    @contextlib.contextmanager
    def enter(self, timeout: float) -> Iterator[None]:
        """Be a reader for the block; after ``timeout`` seconds go on even if the gate is still closed."""
        if self._inside:
            yield
            return
        deadline = time.monotonic() + timeout
        with contextlib.ExitStack() as stack:
            with _flock(self._gate, fcntl.LOCK_SH, deadline, "a publish that replaces the mount"):
                stack.enter_context(_flock(self._readers, fcntl.LOCK_SH, deadline, "a publish that replaces the mount"))
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    def create(self) -> None:
        """Create the gate's files. Raises OSError."""
        for path in (self._gate, self._readers):
            path.touch(mode=0o644)

    @contextlib.contextmanager
    def close(self, timeout: float) -> Iterator[None]:
        """Keep all readers out for the block; after ``timeout`` seconds go on even if one is still inside."""
        deadline = time.monotonic() + timeout
        with (
            _flock(self._gate, fcntl.LOCK_EX, deadline, "readers that are entering"),
            _flock(self._readers, fcntl.LOCK_EX, deadline, "readers of the published mount"),
        ):
            yield


@contextlib.contextmanager
def _flock(path: Path, operation: int, deadline: float, holder: str) -> Iterator[None]:
    """Hold a flock(2) for the block; without it if the deadline has passed or the file cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nothing was ever published here, or this user may not see it
        yield
        return
    try:
        started = time.monotonic()
        said = False
        while True:
            try:
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now = time.monotonic()
                if now >= deadline:
                    _log.log(_level(now - started), "%s is still held by %s; going on without it", path, holder)
                    break
                if not said and now - started >= _PATIENCE:
                    said = True
                    _log.warning("waiting for %s, for %.0f s at most; `fuser -v %s` shows them", holder, deadline - now, path)
                time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


def _level(seconds: float) -> int:
    return logging.WARNING if seconds >= _PATIENCE else logging.INFO
