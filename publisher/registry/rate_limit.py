"""How fast one host is asked: so many requests at a time, so many per second, and none while it wants peace.

All tasks that ask a host share its pace, so that one answer of 429 quiets all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from publisher.registry.transport import RegistryResponse

_FIRST, _LONGEST = 1.0, 20.0  # seconds of peace after 429s that do not say how much
_TOO_MANY, _UNAVAILABLE, _SERVER_ERRORS = 429, 503, 500
_LIMIT = re.compile(r"([0-9]{1,9});w=([1-9][0-9]{0,7})", re.ASCII)
_NEXT_RUN = "nothing was changed; it is asked again next time"


@dataclass(frozen=True)
class Pulls:
    """What a host said of its limit on pulls, and when: ``left`` of ``limit`` in ``window`` seconds, at time ``at``."""

    left: float
    limit: int
    window: int
    at: float

    def at_time(self, now: float) -> float:
        """How many are left; they come back evenly over the window."""
        return min(self.limit, self.left + (now - self.at) * self.limit / self.window)


class RateLimiter:
    """One host's.

    Args:
        name: what errors call it.
        concurrency: requests at a time.
        rate: requests per second, None for as many as there are.
        longest: seconds of peace that are waited for; a request that would have to wait longer fails at once.
        clock: seconds, monotonic.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        concurrency: int,
        rate: float | None,
        longest: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._name = name
        self._slots = asyncio.Semaphore(concurrency)
        self._gap = 1 / rate if rate else 0.0
        self._longest = longest
        self._clock = clock
        self._sleep = sleep
        self._next = self._quiet_until = clock()
        self._backoff = 0.0
        self._pulls: Pulls | None = None
        self._pulling = 0

    @contextlib.asynccontextmanager
    async def turn(self, *, pull: bool) -> AsyncIterator[None]:
        """Wait until one more request may go out; the context lasts as long as the request does.

        Args:
            pull: the request counts as a pull (of all that Docker Hub is asked, only GETs of manifests do).

        Raises:
            UnavailableError: that would take longer than is waited for.
        """
        async with self._slots:
            delay = self._reserve(pull=pull)
            if delay > 0:
                await self._sleep(delay)
            self._pulling += pull
            try:
                yield
            finally:
                self._pulling -= pull

    def note(self, answer: RegistryResponse, *, pull: bool) -> None:
        """Take an answer's limits and wishes to heart."""
        now = self._clock()
        after = answer.retry_after
        if answer.status == _TOO_MANY or (answer.status == _UNAVAILABLE and after is not None):
            if after is None:
                if self._quiet_until <= now:  # the answers to requests that were under way together count once
                    self._backoff = min(2 * self._backoff or _FIRST, _LONGEST)
                after = self._backoff
            self._quiet_until = max(self._quiet_until, now + after)
        elif answer.status < _SERVER_ERRORS:
            self._backoff = 0.0
        self._note_pulls(answer, now, others=self._pulling - pull)

    def _note_pulls(self, answer: RegistryResponse, now: float, others: int) -> None:
        """Docker Hub's headers (its manual, "Pull usage and limits"): ``ratelimit-remaining: 76;w=21600``."""
        limit = _LIMIT.fullmatch(answer.headers.get("RateLimit-Limit", ""))
        left = _LIMIT.fullmatch(answer.headers.get("RateLimit-Remaining", ""))
        if limit and left and int(limit[1]):
            self._pulls = Pulls(int(left[1]) - others, int(limit[1]), int(limit[2]), now)

    def _reserve(self, *, pull: bool) -> float:
        """Seconds until the request may go, and its place in the row."""
        now = self._clock()
        peace = max(0.0, self._quiet_until - now)
        if peace > self._longest:
            raise UnavailableError(f"{self._name} wants {peace:.0f} s more of peace", hint=_NEXT_RUN)
        if pull and self._pulls is not None:
            peace = max(peace, self._reserve_pull(self._pulls, now))
        start = max(now + peace, self._next)
        self._next = start + self._gap
        return start - now

    def _reserve_pull(self, pulls: Pulls, now: float) -> float:
        """The last pull that is left is never used up by several, and none is tried when there is none."""
        left = pulls.at_time(now)
        wait = max(0.0, (1 - left) * pulls.window / pulls.limit)
        if wait > self._longest:
            reason = f"{self._name} allows {pulls.limit} pulls in {pulls.window / 3600:g} h, and they are used up"
            raise UnavailableError(reason, hint=_NEXT_RUN)
        self._pulls = Pulls(left - 1, pulls.limit, pulls.window, now)
        return wait
