"""A live table on a terminal: one line for each image in flight with what is done and the time left, and a line of totals.

An image is shown from its first step to its outcome; those that are built and wait for their transaction are only counted. If
more are in flight than the terminal has lines, they stand in columns, in short; if that is not enough, the last line counts the
rest by their steps. A step without a measure shows how long it lasts instead of a share.
"""

from __future__ import annotations

import textwrap
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from publisher.contract.units import format_size
from publisher.system.logs import printable
from publisher.system.progress import BUILT, FETCH, Display, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_RATE_AFTER = 3.0  # seconds of a step before its speed says something about the time left
_MARGIN = 2  # lines that are kept free, so that the table never scrolls
_STEP_WIDTH = 38  # columns of what is done
_CELL = 39  # characters of an image in short, at least


@dataclass
class _Work:
    """What an image is at; ``began`` is the time of the step's first report, ``first`` the bytes that it had then."""

    step: str
    began: float
    first: int
    done: int
    total: int


class TableDisplay(Display):
    """The live table; every line that :meth:`say` shows stays above it.

    Args:
        console: the terminal.
        clock: returns seconds, monotonic.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._phase, self._finished, self._total, self._failed = "", 0, 0, 0
        self._began = clock()
        self._work: dict[str, _Work] = {}
        self._fetched: dict[str, int] = {}
        self._console = console
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._live.stop()

    def begin(self, phase: str, total: int) -> None:
        """See :meth:`Display.begin`."""
        with self._lock:
            self._phase, self._total, self._finished, self._failed = phase, total, 0, 0
            self._began = self._clock()

    def advance(self) -> None:
        """See :meth:`Display.advance`."""
        with self._lock:
            self._finished += 1

    def step(self, image: str, step: str, done: int, total: int) -> None:
        """See :meth:`Display.step`."""
        with self._lock:
            if " " in image:  # a platform of an image whose layers were fetched together
                self._work.pop(image.partition(" ")[0], None)
            work = self._work.get(image)
            if work is None or work.step != step:
                work = self._work[image] = _Work(step, self._clock(), done, done, total)
            work.done, work.total = done, total
            if step == FETCH:
                self._fetched[image] = max(done, self._fetched.get(image, 0))

    def finish(self, image: str, outcome: str) -> None:
        """See :meth:`Display.finish`."""
        with self._lock:
            for name in [name for name in self._work if name.partition(" ")[0] == image]:  # with a platform behind it
                del self._work[name]
            self._finished += 1
            self._failed += outcome.startswith("failed")
        self.say(f"{image}: {outcome}")

    def say(self, line: str) -> None:
        """See :meth:`Display.say`."""
        self._console.print(printable(line), markup=False, highlight=False)

    def _render(self) -> Group:
        """Return the table as it is now."""
        with self._lock:
            now, size = self._clock(), self._console.size
            work = {image: work for image, work in self._work.items() if work.step != BUILT}
            built = len(self._work) - len(work)
            totals = textwrap.wrap(self._totals(now, len(work), built), size.width)
            lines = [Text(printable(line), style="bold") for line in totals]
        room = max(1, size.height - len(lines) - _MARGIN)
        if len(work) <= room:
            lines += [_line(image, one, now, size.width) for image, one in work.items()]
        else:
            lines += _columns(work, now, room, size.width)
        return Group(*lines)

    def _totals(self, now: float, active: int, built: int) -> str:
        """Return the line of totals: how many images are done, failed, in flight and waiting, the bytes, and the time left."""
        if not self._total:
            return self._phase
        parts = [f"{self._phase}: {self._finished} of {self._total} done"]
        parts += [f"{self._failed} failed"] if self._failed else []
        waiting = max(0, self._total - self._finished - active - built)
        parts += [f"{built} {BUILT}"] if built else []
        parts += [f"{active} in flight, {waiting} waiting"] if active or built else []
        parts += [f"{format_size(sum(self._fetched.values()))} fetched"] if self._fetched else []
        elapsed = now - self._began
        if 0 < self._finished < self._total and elapsed > _RATE_AFTER:
            parts.append(f"about {format_duration(elapsed / self._finished * (self._total - self._finished))} left")
        return ", ".join(parts)


def _line(image: str, work: _Work, now: float, width: int) -> Text:
    """Return the line of one image: its name, cut in the middle if it is too long, then what is done."""
    room = max(12, width - _STEP_WIDTH - 1)
    return Text(f"{_shortened(printable(image), room):<{room}} {_progress(work, now)}", no_wrap=True, overflow="ellipsis")


def _columns(work: dict[str, _Work], now: float, room: int, width: int) -> list[Text]:
    """Return ``room`` lines at most with all images in columns, in short; the last one counts those that have no place."""
    columns = max(1, width // _CELL)
    images = list(work)
    rest = images[columns * (room - 1) :] if len(images) > columns * room else []
    shown = images[: len(images) - len(rest)]
    cell = width // columns - 1
    cells = [_cell(image, work[image], now, cell) for image in shown]
    rows = -(-len(cells) // columns)
    lines = [Text(" ".join(cells[row::rows]), no_wrap=True, overflow="ellipsis") for row in range(rows)]
    if rest:
        steps = Counter(work[image].step for image in rest)
        counts = ", ".join(f"{count} {step}" for step, count in steps.items())
        lines.append(Text(f"and {len(rest)} more: {counts}", no_wrap=True, overflow="ellipsis"))
    return lines


def _cell(image: str, work: _Work, now: float, width: int) -> str:
    """Return an image in short: its name, cut in the middle if it is too long, its step, and the share or time of it."""
    measured = work.total > 1 and work.done > 0
    state = f"{work.step} {100 * work.done // work.total} %" if measured else f"{work.step} {format_duration(now - work.began)}"
    room = max(1, width - len(state) - 1)
    return f"{_shortened(printable(image), room):<{room}} {state}"


def _shortened(name: str, room: int) -> str:
    """Return a name with its middle left out if it is too long: its tag stays."""
    return name if len(name) <= room else f"{name[: room // 2 - 1]}…{name[-(room - room // 2) :]}"


def _progress(work: _Work, now: float) -> str:
    """Return the step with what is done and the time left; without a measure, with the time that it takes already."""
    lasted = now - work.began
    if work.total <= 1:
        return f"{work.step} for {format_duration(lasted)}"
    if not work.done:
        return f"{work.step}, begun {format_duration(lasted)} ago"
    done = f"{work.step} {format_size(work.done)} of {format_size(work.total)}"
    gained = work.done - work.first
    if lasted < _RATE_AFTER or gained <= 0 or work.done >= work.total:
        return done
    return f"{done}, {format_duration(lasted / gained * (work.total - work.done))} left"
