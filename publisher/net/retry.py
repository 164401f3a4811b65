"""What is tried again, how often and when (tenacity does the counting and the waiting)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity

from publisher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class RetriesExhaustedError(UnavailableError):
    """All tries are used up."""


class TransientError(Exception):
    """A failure that may be gone at the next try; never leaves the package that asks.

    Attributes:
        reason: which host did what, in one line without anything secret.
        retry_after: seconds the host asked us to stay away, None when it said nothing.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True)
class RetryPolicy:
    """How long a host is given.

    Attributes:
        tries: in all, for requests; for transfers in a row without a single byte gained.
        first: seconds before the second try; doubled from try to try, with as much again at random.
        longest: seconds between two tries at most, before what ``Retry-After`` demands.
        obeyed: seconds of ``Retry-After`` that are waited for. A host that asks for more is not asked again at all.
        sleep: waits that many seconds.
    """

    tries: int = 4
    first: float = 0.5
    longest: float = 20
    obeyed: float = 60
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, attempt: Callable[[], Awaitable[T]], gained: Callable[[], int] = lambda: 0) -> T:
        """Await ``attempt()`` until it does not raise a TransientError; ``gained()`` grows while a transfer gets on.

        Raises:
            RetriesExhaustedError: no more patience; with the last reason.
        """

        async def once() -> T:  # tenacity looks at the function to find out whether to wait for it
            return await attempt()

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._is_worth_it),
            wait=self._wait,
            stop=_Stalled(self.tries, gained),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return await retrying(once)
        except TransientError as error:
            asked = f" and wants {error.retry_after:.0f} s of peace" if error.retry_after else ""
            tries = retrying.statistics.get("attempt_number", 1)
            after = f", after {tries} tries" if tries > 1 else ""
            raise RetriesExhaustedError(
                f"{error.reason}{asked}{after}", hint="nothing was changed; it is asked again next time"
            ) from None

    def _is_worth_it(self, error: BaseException) -> bool:
        return isinstance(error, TransientError) and (error.retry_after or 0) <= self.obeyed

    def _wait(self, state: tenacity.RetryCallState) -> float:
        backoff = tenacity.wait_exponential(multiplier=self.first, max=self.longest)(state)
        jitter = tenacity.wait_random(0, self.first)(state)
        error = state.outcome.exception() if state.outcome is not None else None
        return max(backoff + jitter, (error.retry_after or 0) if isinstance(error, TransientError) else 0)


class _Stalled:
    """Stops after so many failures without a gain between them."""

    def __init__(self, tries: int, gained: Callable[[], int]) -> None:
        self._tries = tries
        self._gained = gained
        self._seen = gained()
        self._failures = 0

    def __call__(self, _state: tenacity.RetryCallState) -> bool:
        gained = self._gained()
        self._failures = self._failures + 1 if gained == self._seen else 1
        self._seen = gained
        return self._failures >= self._tries
