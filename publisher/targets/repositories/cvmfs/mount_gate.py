"""Keeps our own readers out of the published mount while the tool takes it away.

At the end of a publish, and of an abort, the tool unmounts what shows the published revision and mounts the next one. It is not
prepared for anybody who reads there: the unmounting fails as busy, and the tool ends with all half done.

Two files in the area, each with a flock(2), which no kill leaves behind: readers pass the ``gate`` one by one and hold
``readers`` while they look; who closes the gate holds both, so that nobody comes in any more and those inside go out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLL = 0.05  # seconds between two tries for a lock: flock(2) has no deadline of its own


class MountGate:
    """The gate of the repository whose own directory of ours is ``area``."""

    NAMES = ("gate", "readers")

    def __init__(self, area: Path) -> None:
        self._gate, self._readers = (area / name for name in self.NAMES)
        self._inside = False

    @contextlib.contextmanager
    def passed(self, patience: float) -> Iterator[None]:
        """Be inside while the block lasts; after ``patience`` seconds also without having been let in."""
        if self._inside:
            yield
            return
        deadline = time.monotonic() + patience
        with contextlib.ExitStack() as held:
            with _held(self._gate, fcntl.LOCK_SH, deadline):
                held.enter_context(_held(self._readers, fcntl.LOCK_SH, deadline))
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    def make(self) -> None:
        """Put it up. Raises OSError."""
        for path in (self._gate, self._readers):
            path.touch(mode=0o644)

    @contextlib.contextmanager
    def closed(self, patience: float) -> Iterator[None]:
        """Keep everybody out while the block lasts; after ``patience`` seconds although somebody is still inside."""
        deadline = time.monotonic() + patience
        with _held(self._gate, fcntl.LOCK_EX, deadline), _held(self._readers, fcntl.LOCK_EX, deadline):
            yield


@contextlib.contextmanager
def _held(path: Path, kind: int, deadline: float) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nothing was ever published here, or not for this user to see
        yield
        return
    try:
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    break
                time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)
