"""The images of a run between plan and transaction. Several are fetched and built at a time, in the order of their priority.

Fetches run ahead of the builds, as far as the disk allows. Whatever ends moves on what waits, in the thread in which it ends: so
builds go on while the main thread publishes. An image that fails or hangs takes its own place and no other. The main thread gets
finished images in the order in which they finish.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from publisher.errors import SpaceError
from publisher.system.progress import WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from publisher.build.builder import BuildRequest
    from publisher.plan.model import PlanItem
    from publisher.state.built import BuiltImage
    from publisher.system.progress import Display

    Fetch = Callable[[PlanItem], Future[list[BuildRequest]]]
    Make = Callable[[PlanItem, list[BuildRequest], Callable[[BuildRequest], None]], Mapping[str, BuiltImage]]

_log = logging.getLogger(__name__)

_AHEAD = 8
"""Images that are fetched or wait, beside one for each build: small images take longer to fetch than to build."""
_GROWTH = 2.5
"""Bytes of disk that an image takes for each byte of its compressed layers, at most: the layers, their index, and the SIF."""
_RESERVE = 256 << 20
"""Bytes that an image takes in any case, and that stay free."""


@dataclass
class Finished:
    """An image that has been built, or has failed.

    Attributes:
        item: the decision on its entry.
        requests: what was fetched, for :meth:`publisher.build.builder.Builder.discard`.
        builds: digest of an image manifest -> its build.
        error: why it failed; None where it did not.
        alone: nothing else was fetched or built at the same time.
    """

    item: PlanItem
    requests: list[BuildRequest] = field(default_factory=list)
    builds: Mapping[str, BuiltImage] = field(default_factory=dict)
    error: BaseException | None = None
    alone: bool = False


@dataclass(frozen=True)
class Squashed:
    """An image whose SIF is made and not yet checked; it comes again when it is :class:`Finished`.

    Attributes:
        item: the decision on its entry.
        request: the build.
    """

    item: PlanItem
    request: BuildRequest


class Workers(Protocol):
    """What does the work beside the main thread: :class:`publisher.publish.pipeline.threads.WorkThreads`."""

    def submit(self, work: Callable[[], None]) -> None:
        """Let somebody do some work."""

    def tell(self, news: Finished | Squashed) -> None:
        """Tell the main thread of an image."""

    def wait(self, timeout: float | None) -> Finished | Squashed | None:
        """Return the next image that was told of, None if there is none within ``timeout`` seconds."""

    def join(self) -> None:
        """Wait until all work is done."""


class Pipeline:
    """The images that a run fetches and builds.

    Args:
        fetch: starts to fetch an image.
        make: builds what was fetched and stores its SIFs; may be called from several threads at once. It calls its last argument
            for each build whose SIF is made and not yet checked.
        workers: the threads that call it.
        display: shows which images wait for their build.
        parallel: how many images may be built at a time.
        sizes: CVMFS name -> bytes to fetch at most; missing where that is not known.
        free: returns the free bytes of the disk that has layers and builds.
    """

    def __init__(
        self,
        fetch: Fetch,
        make: Make,
        workers: Workers,
        display: Display,
        *,
        parallel: int,
        sizes: Mapping[str, int],
        free: Callable[[], int],
    ) -> None:
        self._fetch = fetch
        self._make = make
        self._workers = workers
        self._display = display
        self._parallel = parallel
        self._sizes = sizes
        self._free = free
        self._lock = threading.RLock()
        self._items: dict[str, PlanItem] = {}
        self._rank: dict[str, int] = {}
        self._waiting: list[PlanItem] = []  # the next one last
        self._fetching: dict[str, Future[list[BuildRequest]]] = {}
        self._ready: list[tuple[PlanItem, list[BuildRequest]]] = []
        self._building: set[str] = set()
        self._lacking: list[Finished] = []  # had no space beside others
        self._alone: str | None = None
        self._advancing = self._stopped = False

    def start(self, work: Sequence[PlanItem]) -> None:
        """Begin to fetch and build images, the first ones first."""
        with self._lock:
            self._items = {item.entry.name: item for item in work}
            self._rank = {name: number for number, name in enumerate(self._items)}
            self._waiting = list(reversed(work))
        self._advance()

    @property
    def is_done(self) -> bool:
        """Return whether the main thread has released all images."""
        return not self._items

    @property
    def unfinished(self) -> Iterable[PlanItem]:
        """Return the images that the main thread has not released."""
        return self._items.values()

    def is_last(self, item: PlanItem) -> bool:
        """Return whether an image is the only one that the main thread has not released."""
        return self._items.keys() == {item.entry.name}

    def wait(self, timeout: float | None) -> Finished | Squashed | None:
        """Return the next image that is finished, or whose SIF is made; None if there is none within ``timeout`` seconds.

        An image for which the disk had no space comes when nothing else is under way. Nothing begins before :meth:`repeat`.
        """
        return self._workers.wait(timeout)

    def release(self, item: PlanItem) -> None:
        """Forget an image with which the main thread has finished."""
        del self._items[item.entry.name]

    def repeat(self, finished: Finished) -> None:
        """Fetch and build an image again for which the disk had no space, this time alone."""
        with self._lock:
            self._lacking.remove(finished)
            self._alone = finished.item.entry.name
            self._waiting.append(finished.item)
        self._advance()

    def stop(self) -> None:
        """Begin nothing any more, and cancel the fetches that are under way."""
        with self._lock:
            self._stopped = True
            futures = list(self._fetching.values())
        for future in futures:
            future.cancel()

    # --- in any thread

    def _advance(self) -> None:
        """Begin all fetches and builds that may begin."""
        with self._lock:
            if self._advancing:  # what ends at once calls this again
                return
            self._advancing = True
            try:
                while not self._stopped and (self._begin_build() or self._begin_fetch()):
                    pass
            finally:
                self._advancing = False

    def _begin_build(self) -> bool:
        if not self._ready or len(self._building) >= self._parallel:
            return False
        item, requests = self._ready.pop(0)
        self._building.add(item.entry.name)
        self._workers.submit(partial(self._build, item, requests))
        return True

    def _begin_fetch(self) -> bool:
        if not self._waiting or not self._may_fetch(self._waiting[-1]):
            return False
        item = self._waiting.pop()
        future = self._fetch(item)
        self._fetching[item.entry.name] = future
        future.add_done_callback(partial(self._end_fetch, item))
        return True

    def _may_fetch(self, item: PlanItem) -> bool:
        """Return whether an image may be fetched now: there are few before it, and the disk has room for all of them."""
        ahead = [*self._fetching, *(ready.entry.name for ready, _ in self._ready)]
        under_way = [*ahead, *self._building]
        if not under_way:
            return not self._lacking or self._alone is not None
        if self._lacking or self._alone is not None or len(ahead) >= self._parallel + _AHEAD:
            return False
        return sum(_GROWTH * self._sizes.get(name, 0) + _RESERVE for name in (*under_way, item.entry.name)) <= self._free()

    def _end_fetch(self, item: PlanItem, future: Future[list[BuildRequest]]) -> None:
        with self._lock:
            self._fetching.pop(item.entry.name, None)
            if self._stopped or future.cancelled():
                return
            error = future.exception()
            if error is not None:
                self._finish(Finished(item, error=error))
            else:
                self._display.step(item.entry.name, WAITING, 0, 1)
                self._ready.append((item, future.result()))
                self._ready.sort(key=lambda ready: self._rank[ready[0].entry.name])
        self._advance()

    def _build(self, item: PlanItem, requests: list[BuildRequest]) -> None:
        if self._stopped:
            return
        finished = Finished(item, requests)
        try:
            finished.builds = self._make(item, requests, lambda request: self._workers.tell(Squashed(item, request)))
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            finished.error = error
        with self._lock:
            self._building.discard(item.entry.name)
            self._finish(finished)
        self._advance()

    def _finish(self, finished: Finished) -> None:
        """Tell the main thread; of what lacked space, when nothing else is under way. The caller has the lock."""
        name = finished.item.entry.name
        finished.alone = name == self._alone
        if finished.alone:
            self._alone = None
        if isinstance(finished.error, SpaceError) and not finished.alone:
            _log.info("%s: it is tried again alone: %s", name, finished.error.reason)
            self._lacking.append(finished)
        else:
            self._workers.tell(finished)
        if self._lacking and not self._building and not self._fetching and not self._ready:
            self._workers.tell(self._lacking[0])
