"""Progress of long work: bars on a terminal, plain lines elsewhere.

Progress goes to standard error, because standard output is for data. All displays may be called from any thread.
"""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Self

from publisher.system.logs import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console
    from rich.progress import TaskID

_EVERY = 30.0  # seconds between two lines about the same step


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
        """See :meth:`Display.step`."""
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


class BarDisplay(Display):
    """A display of bars on a terminal: one for the phase, and one for every image in progress."""

    def __init__(self, console: Console) -> None:
        from rich import progress  # noqa: PLC0415 - only terminals need it, and commands that ask no registry show nothing

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
        )
        self._progress = progress.Progress(*columns, console=console, transient=True)
        self._lock = threading.Lock()
        self._phase: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, phase: str, total: int) -> None:
        """See :meth:`Display.begin`."""
        with self._lock:
            if self._phase is not None:
                self._progress.remove_task(self._phase)
            self._phase = self._progress.add_task(phase, total=total)

    def advance(self) -> None:
        """See :meth:`Display.advance`."""
        with self._lock:
            if self._phase is not None:
                self._progress.advance(self._phase)

    def step(self, image: str, step: str, done: int, total: int) -> None:
        """See :meth:`Display.step`."""
        with self._lock:
            if image not in self._tasks:
                self._tasks[image] = self._progress.add_task(image)
            measured = total if total > 1 else None
            self._progress.update(self._tasks[image], description=f"{image}: {step}", completed=done, total=measured)

    def finish(self, image: str, outcome: str) -> None:
        """See :meth:`Display.finish`."""
        with self._lock:
            task = self._tasks.pop(image, None)
            if task is not None:
                self._progress.remove_task(task)
        self.advance()
        self.say(f"{image}: {outcome}")

    def say(self, line: str) -> None:
        """See :meth:`Display.say`."""
        self._progress.console.print(printable(line), markup=False, highlight=False)


def display(out: IO[str] = sys.stderr) -> Display:
    """Return a display for a stream: bars if it is a terminal, plain lines otherwise."""
    if not out.isatty():
        return LineDisplay(out)
    from rich.console import Console  # noqa: PLC0415 - see BarDisplay

    console = Console(file=out)
    return BarDisplay(console) if console.is_terminal and not console.is_dumb_terminal else LineDisplay(out)
