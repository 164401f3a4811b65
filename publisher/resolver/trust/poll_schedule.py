"""When places in the network are asked for the manifest: once in a while for a whole host, not for every job.

``asked`` beside the kept copies has when they were last asked (seconds since the epoch), how often in a row that was in vain, and
a factor for the pause until the next time. The factor is another one each time, so that hosts which started together spread out
and fifty thousand of them do not lean on one origin at once. ``asking-index`` is the lock of who asks.
"""

from __future__ import annotations

import os

_FIRST = 20.0  # seconds until the next try where one was in vain; doubled with each, up to the usual pause
_MOST_DOUBLINGS = 10
_WAIT = 60.0  # seconds by which it may lie in the future of who has been waiting for who asked
_LATELY = 2  # times the pause: an answer older than that is none
_MOST_BYTES = 100


class PollSchedule:
    """Of the copies in a directory.

    Args:
        directory: where they are.
        every: seconds between two times.
        now: this host's clock, seconds since the epoch.

    Attributes:
        lock: path of the lock.
    """

    def __init__(self, directory: str, every: float, now: float) -> None:
        self.lock = os.path.join(directory, "asking-index")
        self._path = os.path.join(directory, "asked")
        self._every = every
        self._now = now

    def due(self, *, usable: bool) -> bool:
        """Whether it is time. ``usable``: whether there is a copy to do with meanwhile; else a few seconds are enough."""
        state = self._read()
        if state is None or not state[0] <= self._now + _WAIT:  # a clock that was set back
            return True
        asked, failures, factor = state
        pause = min(self._every, _FIRST * 2 ** min(failures - 1, _MOST_DOUBLINGS)) if failures else self._every
        return not self._now < asked + factor * (pause if usable else min(pause, _FIRST))

    def answered(self) -> bool:
        """Whether they gave one when they were asked last, and that is not long ago: who hangs in asking says nothing."""
        state = self._read()
        return state is not None and state[1] == 0 and self._now <= state[0] + _LATELY * self._every

    def done(self, *, answered: bool) -> None:
        """They were asked just now; ``answered`` whether an index that has not expired was among the answers. Raises OSError."""
        from publisher.contract import files  # noqa: PLC0415 - a warm answer writes nothing

        state = self._read()
        failures = 0 if answered else 1 + (state[1] if state else 0)
        factor = 0.75 + os.urandom(1)[0] / 512
        files.replace(self._path, f"{self._now:.0f} {failures} {factor:.3f}".encode())

    def _read(self) -> tuple[float, int, float] | None:
        try:
            with open(self._path, "rb") as file:
                asked, failures, factor = file.read(_MOST_BYTES).split()
            return float(asked), max(0, int(failures)), min(2.0, float(factor))
        except (OSError, ValueError):
            return None
