"""What time it is according to servers: the ``Date`` headers of their responses (RFC 9110, section 6.6.1).

A wrong clock makes a publisher sign a manifest that is valid for too long, and end the grace of what it keeps. Each run asks
registries anyway, and their responses say what time it is there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOLERANCE = 600.0  # seconds
_MAX_AGE_DIGITS = 9


@dataclass(frozen=True)
class ClockComparison:
    """A clock compared with those of servers.

    Attributes:
        agreeing: number of servers whose clocks differ by ten minutes at most.
        differing: server -> its time now, seconds since the epoch, of the others.
    """

    agreeing: int
    differing: Mapping[str, float]

    @property
    def is_right(self) -> bool | None:
        """Return whether more servers agree than differ; None if as many do, or none was asked."""
        if self.agreeing == len(self.differing):
            return None
        return self.agreeing > len(self.differing)


class ServerDates:
    """The newest ``Date`` of each server. One server has one voice, however often it answers.

    Args:
        monotonic: returns seconds, monotonic; what a server said a while ago is advanced by it.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._ahead: dict[str, float] = {}  # server -> its clock minus the monotonic one

    def record(self, server: str, headers: Mapping[str, str]) -> None:
        """Record a response; one without a valid ``Date`` is ignored. ``Age`` says how old the answer of a cache is."""
        try:
            date = parsedate_to_datetime(headers["Date"]).timestamp()
        except (KeyError, ValueError, OverflowError):
            return
        age = headers.get("Age", "").strip()
        date += int(age) if age.isascii() and age.isdigit() and len(age) <= _MAX_AGE_DIGITS else 0
        self._ahead[server] = date - self._monotonic()

    def compare(self, now: float) -> ClockComparison:
        """Compare a clock that says ``now`` (seconds since the epoch) with those of the servers."""
        dates = {server: ahead + self._monotonic() for server, ahead in list(self._ahead.items())}
        differing = {server: date for server, date in dates.items() if abs(date - now) > _TOLERANCE}
        return ClockComparison(len(dates) - len(differing), differing)
