"""The retry policy: which failures are tried again, how often and when (tenacity counts and waits)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity

from publisher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
_log = logging.getLogger(__name__)


class RetriesExhaustedError(UnavailableError):
    """A failure that did not go away within the attempts of a :class:`RetryPolicy`."""


class TransientError(Exception):
    """A failure that may be gone at the next attempt; :class:`RetryPolicy` catches it.

    Attributes:
        reason: which host did what, in one line without secrets.
        retry_after: seconds that the host asked to wait (``Retry-After``), None if it did not say.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter, and a limit on the attempts.

    Attributes:
        attempts: for requests, their number in all; for transfers, the number in a row that gain no byte.
        first_delay: seconds before the second attempt; the delay doubles from attempt to attempt, plus up to this at random.
        max_delay: the longest delay in seconds, apart from what ``Retry-After`` demands.
        max_retry_after: the longest ``Retry-After`` in seconds that is waited for; a host that asks for more gets no retry.
        sleep: waits that many seconds.
    """

    attempts: int = 4
    first_delay: float = 0.5
    max_delay: float = 20
    max_retry_after: float = 60
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, attempt: Callable[[], Awaitable[T]], gained: Callable[[], int] = lambda: 0) -> T:
        """Await ``attempt()`` until it raises no TransientError, and return its result.

        Args:
            attempt: one attempt.
            gained: returns a number that grows as a transfer progresses; an attempt that made progress is not counted.

        Raises:
            RetriesExhaustedError: all attempts failed, or the host asked for a longer wait than the policy allows.
        """

        async def once() -> T:  # tenacity looks at the function to find out whether to await it
            return await attempt()

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._is_retryable),
            wait=self._delay,
            stop=_Stalled(self.attempts, gained),
            sleep=self.sleep,
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            return await retrying(once)
        except TransientError as error:
            attempts = retrying.statistics.get("attempt_number", 1)
            asked = f" and asks to retry after {error.retry_after:.0f} s" if error.retry_after else ""
            after = f", after {attempts} attempts" if attempts > 1 else ""
            reason = f"{error.reason}{asked}{after}"
            _log.info("giving up: %s", reason, extra={"attempt": attempts, "reason": error.reason})
            raise RetriesExhaustedError(reason, hint="nothing was changed; the next run tries again") from None

    def _is_retryable(self, error: BaseException) -> bool:
        return isinstance(error, TransientError) and (error.retry_after or 0) <= self.max_retry_after

    def _delay(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds before the next attempt."""
        backoff = tenacity.wait_exponential(multiplier=self.first_delay, max=self.max_delay)(state)
        jitter = tenacity.wait_random(0, self.first_delay)(state)
        error = state.outcome.exception() if state.outcome is not None else None
        return max(backoff + jitter, (error.retry_after or 0) if isinstance(error, TransientError) else 0)


class _Stalled:
    """A stop condition: so many failures in a row without progress between them."""

    def __init__(self, attempts: int, gained: Callable[[], int]) -> None:
        self._attempts = attempts
        self._gained = gained
        self._gained_before = gained()
        self._failures = 0

    def __call__(self, _state: tenacity.RetryCallState) -> bool:
        gained = self._gained()
        self._failures = self._failures + 1 if gained == self._gained_before else 1
        self._gained_before = gained
        return self._failures >= self._attempts


def _log_retry(state: tenacity.RetryCallState) -> None:
    reason = state.outcome.exception() if state.outcome is not None else None
    delay = state.next_action.sleep if state.next_action is not None else 0.0
    fields = {"attempt": state.attempt_number, "reason": str(reason), "delay": round(delay, 3)}
    _log.info("attempt %d failed: %s; retrying in %.1f s", state.attempt_number, reason, delay, extra=fields)
