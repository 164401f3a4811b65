"""Concurrent calls of a function that mostly waits, for a disk or for a server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_AT_A_TIME = 8


def call_concurrently(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Call a function with each item, in eight threads, and return when all calls have ended.

    Args:
        work: the function; any number of threads may call it.
        items: what it is called with, in the order in which the calls begin.

    Raises:
        Exception: what the first call raised that failed, in the order of the items; no further call begins after it was seen.
    """
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        calls = [threads.submit(work, item) for item in items]
        try:
            for call in calls:
                call.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # the end of the block waits for those that have begun
            raise
