"""The clock that manifests are signed by. It refuses a time that is probably wrong: what is signed and removed depends on it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.contract.manifest import HARD_LIMIT
from publisher.errors import ClockError

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.net.server_dates import ServerDates

_BACKWARDS = 600.0  # seconds by which the newest manifest may be ahead of the clock
_SET_CLOCK = "nothing was signed; set the clock (timedatectl), and run again"
_ASK = "nothing was signed; set the clock if it is wrong; if it is right, publisher sync NAME asks registries for the time"


class SigningClock:
    """A clock, and what registries say of the time.

    Args:
        clock: returns seconds since the epoch.
        dates: the dates of the registries that this run has asked.
    """

    def __init__(self, clock: Callable[[], float], dates: ServerDates) -> None:
        self._clock = clock
        self._dates = dates

    def unchecked(self) -> int:
        """Return the time without a check, in seconds since the epoch."""
        return int(self._clock())

    def now(self, newest: int) -> int:
        """Return the time, in seconds since the epoch.

        Args:
            newest: when the newest manifest was signed, 0 if there is none.

        Raises:
            ClockError: most registries have another time; or the newest manifest was signed later, or so long ago that no reader
                accepts it any more, and no registry confirms the clock.
        """
        now = self._clock()
        compared = self._dates.compare(now)
        if compared.is_right is False:
            server, date = min(compared.differing.items())
            count = compared.agreeing + len(compared.differing)
            raise ClockError(
                f"this host's clock says {_format(now)}, but {len(compared.differing)} of {count} registries disagree, such as "
                f"{server}, which says {_format(date)}",
                hint=_SET_CLOCK,
            )
        if compared.is_right is None and newest and now < newest - _BACKWARDS:
            raise ClockError(
                f"this host's clock says {_format(now)}, but the newest manifest was signed later, at {_format(newest)}",
                hint=_ASK,
            )
        if compared.is_right is None and newest and now > newest + HARD_LIMIT:
            raise ClockError(
                f"this host's clock says {_format(now)}, and the newest manifest was signed long before, at {_format(newest)}",
                hint=_ASK,
            )
        return int(now)


def _format(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s since 1970"
