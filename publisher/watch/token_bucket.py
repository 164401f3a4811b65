"""A rate limit for requests that come in. Pure: the clock is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class TokenBucket:
    """A bucket that is filled at a constant rate, and of which each request takes a token.

    Args:
        per_minute: requests per minute, and the largest number at once.
        clock: returns seconds, monotonic.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._size = float(per_minute)
        self._tokens = self._size
        self._clock = clock
        self._filled = clock()

    def take(self) -> float:
        """Take a token; return 0, or the seconds after which there is one."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled) * self._size / 60)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) * 60 / self._size
