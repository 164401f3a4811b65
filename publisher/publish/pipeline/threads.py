"""Threads that do work beside the main thread, and the queue in which they tell it what they finished."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class WorkThreads(Generic[T]):
    """A number of threads, each of which does one piece of work at a time, in the order in which the work came.

    They are daemons: a program that is interrupted does not wait for them.

    Args:
        count: number of threads.
    """

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"build-{number}", daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Let a thread do some work, which raises nothing."""
        self._work.put(work)

    def tell(self, news: T) -> None:
        """Put something into the queue of the main thread; from any thread."""
        self._told.put(news)

    def wait(self, timeout: float | None) -> T | None:
        """Return the next that was told; None if nothing was within ``timeout`` seconds (None: however long it takes)."""
        with contextlib.suppress(queue.Empty):
            return self._told.get(timeout=timeout)
        return None

    def join(self) -> None:
        """Wait until the threads have done all work and ended."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
