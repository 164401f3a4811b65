"""An event loop in a thread of its own, for a program that does its work in the main thread.

The main thread builds and publishes while the network runs beside it. An interrupt reaches the main thread, which then ends the
programs that it runs and cancels the tasks of the loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future
    from types import TracebackType

T = TypeVar("T")


class BackgroundLoop:
    """A context manager that runs an event loop in a thread during its block and cancels unfinished tasks at its end.

    It belongs to the process that entered the block: a forked child has no such thread, and leaves the block without waiting.
    """

    def __enter__(self) -> Self:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if not self.here:
            return
        self.submit(_cancel_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def here(self) -> bool:
        """Whether the loop runs in this process."""
        return os.getpid() == self._process

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the loop and return its future; ``.result()`` waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
