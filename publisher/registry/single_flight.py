"""Many tasks that want the same thing at the same time: it is fetched once, and all get the outcome, good or bad."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Without it, a registry that hangs would be waited for by one task after the other."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[T]] = {}

    async def get(self, key: Hashable, fetch: Callable[[], Coroutine[None, None, T]]) -> T:
        """The outcome of ``fetch()``, or of the call for the same key that is under way.

        Each caller gets a copy of an error: what it adds to it is of no concern to the others.
        """
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.ensure_future(fetch())
            task.add_done_callback(lambda done: self._ended(key, done))
        try:
            return await asyncio.shield(task)
        except Exception as error:  # noqa: BLE001 - every kind goes on to whoever asked
            raise copy.copy(error) from error.__cause__

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # seen, also where all who waited have gone
