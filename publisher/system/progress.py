"""Progress of long work: what every display shows, and plain lines. :mod:`publisher.system.live_table` is for terminals.

Progress goes to standard error, because standard output is for data. All displays may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Self

from publisher.system.logs import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

FETCH, WAITING, READ_BACK, BUILT = "fetch", "waiting", "read back", "built"
"""Steps: layers are fetched; the image waits for its build; its SIF is made and is read back; everything is built, and the image
waits for its transaction."""
_EVERY = 30.0  # seconds between two lines about the same step


def format_duration(seconds: float) -> str:
    """Return a time for people: ``8 s``, ``12 min``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 120:  # noqa: PLR2004 - two minutes
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"  # noqa: PLR2004 - two hours


class Display(AbstractContextManager["Display"], ABC):
    """A place where progress is shown; a context manager that shows it during its block."""

    @abstractmethod
    def begin(self, phase: str, total: int) -> None:
        """Begin a phase of ``total`` images; ``phase`` is its name."""

    @abstractmethod
    def advance(self) -> None:
        """Count one more image of the phase as done, without a line about it."""

    @abstractmethod
    def step(self, image: str, step: str, done: int, total: int) -> None:
        """Show that an image is at ``step``, with ``done`` of ``total`` bytes; ``total`` is 0 or 1 if that is not measured."""

    @abstractmethod
    def finish(self, image: str, outcome: str) -> None:
        """Count an image of the phase as done, and show its outcome."""

    @abstractmethod
    def say(self, line: str) -> None:
        """Show a line of text."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None


class LineDisplay(Display):
    """A display of plain lines, for log files: each step of each image once, and again every 30 s while it lasts."""

    def __init__(self, out: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._lock = threading.Lock()
        self._shown_at: dict[tuple[str, str], float] = {}
        self._total = self._done = 0

    def begin(self, phase: str, total: int) -> None:
        """See :meth:`Display.begin`."""
        self._total, self._done = total, 0
        self.say(f"{phase}: {total}")

    def advance(self) -> None:
        """See :meth:`Display.advance`."""
        with self._lock:
            self._done += 1

    def step(self, image: str, step: str, done: int, total: int) -> None:
        """See :meth:`Display.step`. That an image waits is no line."""
        if step == WAITING:
            return
        now = self._clock()
        with self._lock:
            last = self._shown_at.get((image, step))
            if last is not None and now - last < _EVERY:
                return
            self._shown_at[image, step] = now
        share = f" {100 * done // total} %" if total > 1 else ""
        self.say(f"{image}: {step}{share}")

    def finish(self, image: str, outcome: str) -> None:
        """See :meth:`Display.finish`."""
        self.advance()
        self.say(f"[{self._done}/{self._total}] {image}: {outcome}")

    def say(self, line: str) -> None:
        """See :meth:`Display.say`."""
        with self._lock:
            print(printable(line), file=self._out, flush=True)
