"""What the run under way is doing, in a file of the state directory that other processes read.

The run holds a lock beside the file, so that nobody takes what a killed run wrote for a run under way.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from typing import TYPE_CHECKING, Self

from publisher.contract import files
from publisher.system.progress import WAITING, Display

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

_log = logging.getLogger(__name__)
_NAME, _LOCK = "running.json", "running.lock"
_LOCK_DEADLINE = 5.0  # seconds; readers hold the lock for an instant


class RunningDisplay(Display):
    """A display that also writes, for other processes, at which step each image of the run is.

    Args:
        shown: the display that people see.
        state: the state directory.
    """

    def __init__(self, shown: Display, state: Path) -> None:
        self._shown = shown
        self._state = state
        self._steps: dict[str, str] = {}
        self._lock = threading.Lock()
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._resources.enter_context(files.locked(str(self._state / _LOCK), deadline=_LOCK_DEADLINE))
        except OSError as error:  # TimeoutError is one
            _log.debug("nobody can see what this run is doing: %s", error)
        self._resources.callback(self._remove)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._resources.close()

    def expect(self, names: Iterable[str]) -> None:
        """Say which images the run will publish."""
        with self._lock:
            self._steps = dict.fromkeys(names, WAITING)
            self._write()

    def begin(self, phase: str, total: int) -> None:
        """See :meth:`Display.begin`."""
        self._shown.begin(phase, total)

    def advance(self) -> None:
        """See :meth:`Display.advance`."""
        self._shown.advance()

    def step(self, image: str, step: str, done: int, total: int) -> None:
        """See :meth:`Display.step`."""
        name = image.partition(" ")[0]  # a platform may follow
        with self._lock:
            if name in self._steps and self._steps[name] != step:
                self._steps[name] = step
                self._write()
        self._shown.step(image, step, done, total)

    def finish(self, image: str, outcome: str) -> None:
        """See :meth:`Display.finish`."""
        with self._lock:
            if self._steps.pop(image, None) is not None:
                self._write()
        self._shown.finish(image, outcome)

    def say(self, line: str) -> None:
        """See :meth:`Display.say`."""
        self._shown.say(line)

    def _write(self) -> None:
        """Write the file; the run goes on without it where that fails."""
        try:
            files.replace(str(self._state / _NAME), json.dumps(self._steps).encode())
        except OSError as error:
            _log.debug("%s cannot be written: %s", self._state / _NAME, error)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            (self._state / _NAME).unlink(missing_ok=True)


def running_steps(state: Path) -> dict[str, str]:
    """Return name -> step of each image that the run under way has not finished: ``waiting``, ``fetch``, ``squash``, ….

    It is empty if no run is under way, or if this user cannot see it.
    """
    try:
        steps = json.loads((state / _NAME).read_bytes())
        with files.locked(str(state / _LOCK), deadline=0):
            return {}  # the run that wrote the file was killed
    except TimeoutError:
        return {str(name): str(step) for name, step in steps.items()}
    except (OSError, ValueError):
        return {}


def is_running(state: Path) -> bool:
    """Return whether a sync is under way, as far as this user can see."""
    try:
        with files.locked(str(state / _LOCK), deadline=0):
            return False
    except TimeoutError:
        return True
    except OSError:
        return False
