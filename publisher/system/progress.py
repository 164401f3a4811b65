"""Progress of long work: bars on a terminal, plain lines elsewhere. Talk goes to standard error; standard output is for data.

Safe to call from any thread.
"""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.progress import TaskID

_EVERY = 30.0  # seconds between two lines about one step


class Display(AbstractContextManager["Display"], ABC):
    """Where progress goes."""

    @abstractmethod
    def begin(self, what: str, total: int) -> None:
        """A phase of ``total`` images begins."""

    @abstractmethod
    def advance(self) -> None:
        """One more image of the phase is done, and nothing need be said of it."""

    @abstractmethod
    def step(self, image: str, step: str, done: int, total: int) -> None:
        """An image is at ``step``; ``done`` of ``total`` bytes, both 0 or 1 where the step cannot be measured."""

    @abstractmethod
    def finish(self, image: str, outcome: str) -> None:
        """An image is done with this phase."""

    @abstractmethod
    def say(self, line: str) -> None:
        """Anything else worth a line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None


class LineDisplay(Display):
    """Plain lines, for logs: each step of each image once, and again every half a minute while it lasts."""

    def __init__(self, out: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], float] = {}
        self._total = self._done = 0

    def begin(self, what: str, total: int) -> None:
        """See :meth:`Display.begin`."""
        self._total, self._done = total, 0
        self.say(f"{what}: {total}")

    def advance(self) -> None:
        """See :meth:`Display.advance`."""
        with self._lock:
            self._done += 1

    def step(self, image: str, step: str, done: int, total: int) -> None:
        """See :meth:`Display.step`."""
        now = self._clock()
        with self._lock:
            last = self._said.get((image, step))
            if last is not None and now - last < _EVERY:
                return
            self._said[image, step] = now
        share = f" {100 * done // total} %" if total > 1 else ""
        self.say(f"{image}: {step}{share}")

    def finish(self, image: str, outcome: str) -> None:
        """See :meth:`Display.finish`."""
        self.advance()
        self.say(f"[{self._done}/{self._total}] {image}: {outcome}")

    def say(self, line: str) -> None:
        """See :meth:`Display.say`."""
        with self._lock:
            print(line, file=self._out, flush=True)


class BarDisplay(Display):
    """A bar for the whole phase and one for every image under way."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._lock = threading.Lock()
        self._all: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, what: str, total: int) -> None:
        """See :meth:`Display.begin`."""
        with self._lock:
            if self._all is not None:
                self._progress.remove_task(self._all)
            self._all = self._progress.add_task(what, total=total)

    def advance(self) -> None:
        """See :meth:`Display.advance`."""
        with self._lock:
            if self._all is not None:
                self._progress.advance(self._all)

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
        self._progress.console.print(line, markup=False, highlight=False)


def display(out: IO[str] = sys.stderr) -> Display:
    """Bars where ``out`` is a terminal, lines elsewhere."""
    console = Console(file=out)
    return BarDisplay(console) if console.is_terminal and not console.is_dumb_terminal else LineDisplay(out)
