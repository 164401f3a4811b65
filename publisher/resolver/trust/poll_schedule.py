"""The schedule for polling the manifest's sources in the network: once in a while for the whole host, not for every job.

The file ``asked`` beside the cached manifest has the time of the last poll (seconds since the epoch), the number of failed polls
in a row, and a random factor of the next pause. The factor keeps thousands of hosts that started together from polling one origin
at once. ``asking-index`` is the lock of the polling process.
"""

from __future__ import annotations

import os

_FIRST_PAUSE = 20.0  # seconds after a failed poll; doubled with each, up to the usual pause
_MAX_DOUBLINGS = 10
_CLOCK_TOLERANCE = 60.0  # seconds by which the last poll may be in the future for a process that waited for it
_RECENT_PAUSES = 2  # an answer older than this many pauses is not recent
_MAX_BYTES = 100


class PollSchedule:
    """The poll schedule of the manifest that is cached in a directory.

    Args:
        directory: the directory.
        every: seconds between two polls.
        now: this host's clock, seconds since the epoch.

    Attributes:
        directory: the directory.
        lock: path of the lock of the polling process.
    """

    def __init__(self, directory: str, every: float, now: float) -> None:
        self.directory = directory
        self.lock = os.path.join(directory, "asking-index")
        self._path = os.path.join(directory, "asked")
        self._every = every
        self._now = now

    def is_due(self, *, usable: bool) -> bool:
        """Return whether it is time for a poll. Without a ``usable`` cached index the pause is at most a few seconds."""
        state = self._read()
        if state is None or not state[0] <= self._now + _CLOCK_TOLERANCE:  # the clock was set back
            return True
        last, failures, factor = state
        pause = min(self._every, _FIRST_PAUSE * 2 ** min(failures - 1, _MAX_DOUBLINGS)) if failures else self._every
        return not self._now < last + factor * (pause if usable else min(pause, _FIRST_PAUSE))

    def recently_answered(self) -> bool:
        """Return whether the last poll succeeded and is recent: a process that hangs in a poll leaves an old one."""
        state = self._read()
        return state is not None and state[1] == 0 and self._now <= state[0] + _RECENT_PAUSES * self._every

    def record_poll(self, *, answered: bool) -> None:
        """Record a poll; ``answered`` tells whether it found an index that has not expired. Raise OSError."""
        from publisher.contract import files  # noqa: PLC0415 - a warm answer writes nothing

        state = self._read()
        failures = 0 if answered else 1 + (state[1] if state else 0)
        factor = 0.75 + os.urandom(1)[0] / 512
        files.replace(self._path, f"{self._now:.0f} {failures} {factor:.3f}".encode())

    def _read(self) -> tuple[float, int, float] | None:
        """Return the time of the last poll, the failed polls in a row and the factor, or None if there was no poll."""
        try:
            with open(self._path, "rb") as file:
                last, failures, factor = file.read(_MAX_BYTES).split()
            return float(last), max(0, int(failures)), min(2.0, float(factor))
        except (OSError, ValueError):
            return None
