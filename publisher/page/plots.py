"""The geometry of the plots: points in, coordinates and labels out; the templates make SVG of them. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.status.lag import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 28
DAY, WEEK = 86400, 7 * 86400
_MOST_BARS = 15


@dataclass(frozen=True)
class Line:
    """A line of a plot: its label, and the points of its polyline as SVG has them."""

    label: str
    points: str
    last: str


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its position in the plot's units, and its text."""

    position: float
    text: str


@dataclass(frozen=True)
class LinePlot:
    """A plot of lines over time.

    Attributes:
        title: what it shows; ``summary`` says the newest values in words, for those who cannot see it.
        lines: the lines, the first one drawn strongest.
        x_ticks, y_ticks: the marks of the axes.
    """

    title: str
    summary: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Bar:
    """A bar: label, value, and the share of the longest bar in percent."""

    label: str
    value: int
    percent: float


def line_plot(title: str, series: Mapping[str, Sequence[tuple[int, float]]], text: Callable[[float], str]) -> LinePlot | None:
    """Return a plot of points over time, None if there are not two times yet.

    Args:
        title: what it shows.
        series: label -> points as (seconds since the epoch, value), the oldest first.
        text: returns a value as text.
    """
    times = [time for points in series.values() for time, _ in points]
    if len(set(times)) < 2:  # noqa: PLR2004 - a line needs two points
        return None
    first, last = min(times), max(times)
    top = _round_up(max(value for points in series.values() for _, value in points))

    def x(time: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (time - first) / (last - first), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)

    lines = tuple(
        Line(label, " ".join(f"{x(time)},{y(value)}" for time, value in points), text(points[-1][1]))
        for label, points in series.items()
        if points
    )
    summary = f"{title} on {_day(last)}: " + ", ".join(f"{line.label} {line.last}" for line in lines)
    x_ticks = tuple(Tick(x(time), _day(time)) for time in (first, (first + last) / 2, last))
    y_ticks = tuple(Tick(y(value), text(value)) for value in (0, top / 2, top))
    return LinePlot(title, summary, lines, x_ticks, y_ticks)


def bars(values: Mapping[str, int]) -> list[Bar]:
    """Return the bars of a plot, the longest first; small ones beyond a number that fits are left out."""
    largest = max(values.values(), default=0)
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:_MOST_BARS]
    return [Bar(label, value, round(100 * value / largest, 1)) for label, value in ordered if value]


def lag_series(lags: Iterable[tuple[int, int]]) -> dict[str, list[tuple[int, float]]]:
    """Return median and 90th percentile of each week, from (time of publication, seconds that it took)."""
    weeks: dict[int, list[int]] = defaultdict(list)
    for time, seconds in lags:
        weeks[time // WEEK].append(seconds)
    return {
        label: [(week * WEEK, float(percentile(weeks[week], share))) for week in sorted(weeks)]
        for label, share in (("median", 0.5), ("90th percentile", 0.9))
    }


def size_text(value: float) -> str:
    """Return bytes for an axis."""
    return format_size(int(value))


def time_text(value: float) -> str:
    """Return seconds for an axis."""
    for unit, seconds in (("d", DAY), ("h", 3600), ("min", 60)):
        if value >= 2 * seconds:
            return f"{value / seconds:.3g} {unit}"
    return f"{value:.0f} s"


def count_text(value: float) -> str:
    """Return a number for an axis."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 6, 8, 10 times a power of ten that is not below a value."""
    if value <= 0:
        return 1
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10, 20) if step * power >= value)


def _day(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"
