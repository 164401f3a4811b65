"""Sharing of concurrent work: tasks that need the same result at the same time share one call and its outcome."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs at most one call per key at a time. Without it, each task would wait in turn for a registry that hangs."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, asyncio.Task[T]] = {}

    async def get(self, key: Hashable, fetch: Callable[[], Coroutine[None, None, T]]) -> T:
        """Return the result of ``fetch()``, or of the running call for the same key.

        If the call fails, each caller gets its own copy of the error, because callers add their image to it.
        """
        task = self._calls.get(key)
        if task is None:
            task = self._calls[key] = asyncio.ensure_future(fetch())
            task.add_done_callback(lambda done: self._finish(key, done))
        try:
            return await asyncio.shield(task)
        except Exception as error:  # noqa: BLE001 - every error goes to every caller
            raise copy.copy(error) from error.__cause__

    def _finish(self, key: Hashable, task: asyncio.Task[T]) -> None:
        del self._calls[key]
        if not task.cancelled():
            task.exception()  # marks it as retrieved, even if no caller waits any more
