"""The rate limit of one host: concurrent requests, requests per second, ``Retry-After`` and quotas of pulls.

All tasks that use a host share its rate limiter, so one response of 429 pauses all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from publisher.registry.transport import RegistryResponse

_log = logging.getLogger(__name__)

_FIRST_BACKOFF, _MAX_BACKOFF = 1.0, 20.0  # seconds to wait after a 429 without Retry-After
_TOO_MANY_REQUESTS, _UNAVAILABLE, _SERVER_ERRORS = 429, 503, 500
_LIMIT = re.compile(r"([0-9]{1,9});w=([1-9][0-9]{0,7})", re.ASCII)
_NEXT_RUN = "nothing was changed; the next run tries again"


@dataclass(frozen=True)
class PullQuota:
    """A host's quota of pulls.

    Attributes:
        remaining: pulls that remained at the time ``at``.
        limit: pulls per window.
        window: seconds of the window.
        at: the time of the response that named the quota, by the limiter's clock.
    """

    remaining: float
    limit: int
    window: int
    at: float

    def remaining_at(self, now: float) -> float:
        """Return the remaining pulls at a later time; used pulls come back evenly over the window."""
        return min(self.limit, self.remaining + (now - self.at) * self.limit / self.window)


class RateLimiter:
    """Limits the requests to one host.

    Args:
        name: the host's name for messages.
        concurrency: concurrent requests.
        rate: requests per second, None for no limit.
        max_wait: the longest wait in seconds; a request that would have to wait longer fails at once.
        clock: returns seconds, monotonic.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        concurrency: int,
        rate: float | None,
        max_wait: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._name = name
        self._slots = asyncio.Semaphore(concurrency)
        self._interval = 1 / rate if rate else 0.0
        self._max_wait = max_wait
        self._clock = clock
        self._sleep = sleep
        self._next_start = self._retry_at = clock()
        self._backoff = 0.0
        self._quota: PullQuota | None = None
        self._open_pulls = 0

    @contextlib.asynccontextmanager
    async def slot(self, *, pull: bool) -> AsyncIterator[None]:
        """Wait until a request may start; the context lasts as long as the request.

        Args:
            pull: the request counts as a pull. On Docker Hub only a GET of an image manifest does.

        Raises:
            UnavailableError: the wait would be longer than ``max_wait``.
        """
        async with self._slots:
            delay = self._reserve(pull=pull)
            if delay > 0:
                _log.info("waiting %.1f s for the rate limit of %s", delay, self._name)
                await self._sleep(delay)
            self._open_pulls += pull
            try:
                yield
            finally:
                self._open_pulls -= pull

    def record(self, response: RegistryResponse, *, pull: bool) -> None:
        """Adapt to a response: its status, ``Retry-After`` and quota of pulls."""
        now = self._clock()
        retry_after = response.retry_after
        if response.status == _TOO_MANY_REQUESTS or (response.status == _UNAVAILABLE and retry_after is not None):
            if retry_after is None:
                if self._retry_at <= now:  # concurrent requests that fail together count once
                    self._backoff = min(2 * self._backoff or _FIRST_BACKOFF, _MAX_BACKOFF)
                retry_after = self._backoff
            self._retry_at = max(self._retry_at, now + retry_after)
        elif response.status < _SERVER_ERRORS:
            self._backoff = 0.0
        self._record_quota(response, now, other_pulls=self._open_pulls - pull)

    @property
    def remaining(self) -> float | None:
        """Return the pulls that the registry's limit allows now, None if it has not said."""
        return None if self._quota is None else self._quota.remaining_at(self._clock())

    def _record_quota(self, response: RegistryResponse, now: float, other_pulls: int) -> None:
        """Record Docker Hub's quota headers (its manual, "Pull usage and limits"): ``ratelimit-remaining: 76;w=21600``."""
        limit = _LIMIT.fullmatch(response.headers.get("RateLimit-Limit", ""))
        remaining = _LIMIT.fullmatch(response.headers.get("RateLimit-Remaining", ""))
        if limit and remaining and int(limit[1]):
            self._quota = PullQuota(int(remaining[1]) - other_pulls, int(limit[1]), int(limit[2]), now)

    def _reserve(self, *, pull: bool) -> float:
        """Reserve the next start of a request; return the seconds until then."""
        now = self._clock()
        wait = max(0.0, self._retry_at - now)
        if wait > self._max_wait:
            raise UnavailableError(f"{self._name} is rate-limited; retry after {wait:.0f} s", hint=_NEXT_RUN)
        if pull and self._quota is not None:
            wait = max(wait, self._reserve_pull(self._quota, now))
        start = max(now + wait, self._next_start)
        self._next_start = start + self._interval
        return start - now

    def _reserve_pull(self, quota: PullQuota, now: float) -> float:
        """Take one pull from the quota, so that concurrent requests never exceed it; return the seconds until it is available."""
        remaining = quota.remaining_at(now)
        wait = max(0.0, (1 - remaining) * quota.window / quota.limit)
        if wait > self._max_wait:
            reason = f"the pull limit of {self._name} is used up: {quota.limit} pulls in {quota.window / 3600:g} h"
            raise UnavailableError(reason, hint=_NEXT_RUN)
        self._quota = PullQuota(remaining - 1, quota.limit, quota.window, now)
        return wait
