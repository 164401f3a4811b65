"""Having a SIF that is not on the shelf: one process fetches it, the others wait for it, each until its own deadline."""

from __future__ import annotations

import contextlib
import os
import time

from publisher.resolver import fetch, leftovers, slots, tally
from publisher.resolver.errors import RoomError
from publisher.resolver.room import Room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from publisher.resolver.manifest import Sif
    from publisher.resolver.room import Limit
    from publisher.resolver.shelf import Shelf
    from publisher.resolver.sources import Source


class Download:
    """One SIF on its way to a shelf; ``turns`` are the locks of the fetches that may run at once on this host."""

    def __init__(
        self, shelf: Shelf, sif: Sif, name: str, *, most: Limit | None = None, free: Limit = (0, 0.0), turns: Sequence[str] = ()
    ) -> None:
        self._shelf = shelf
        self._sif = sif
        self._name = name
        self._room = Room(shelf, most, free)
        self._turns = turns

    def run(self, places: Sequence[Source], patience: float | None, until: float | None) -> str:
        """Have it there; arguments, failures and result are those of :meth:`publisher.resolver.cache.Cache.sif`.

        Raises:
            TimeoutError: other processes fetch, and do not come to an end.
            OSError: the shelf cannot be used.
        """
        sha256 = self._sif.sha256
        end = time.monotonic() + (fetch.allowance(self._sif.size) if patience is None else patience)
        end = end if until is None else min(end, until)
        for path in (lock := os.path.join(self._shelf.root, "locks", sha256), self._shelf.path(sha256), *self._turns[:1]):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with slots.turn([lock], end, lambda: self._shelf.has(sha256)) as mine:
            if not mine or self._shelf.has(sha256) or self._shelf.has_after_all(sha256, self._name):
                tally.hit(self._shelf.root)
                return ""
            leftovers.sweep_sometimes(self._shelf)
            with self._turn(end):
                came_from = self._fetched(places, end, until)
            self._shelf.put(sha256, self._name)
            tally.count(self._shelf.root, tally.MISSES, self._sif.size)
            return came_from

    @contextlib.contextmanager
    def _turn(self, end: float) -> Iterator[None]:
        """One of the fetches that may run at once, and room for it."""
        with slots.turn(self._turns, end) if self._turns else contextlib.nullcontext():
            try:
                self._room.reserve(self._sif.sha256, self._sif.size, end)
                yield
            finally:
                self._room.release(self._sif.sha256)

    def _fetched(self, places: Sequence[Source], end: float, until: float | None) -> str:
        part = self._shelf.path(self._sif.sha256, ".part")
        try:
            return fetch.fetch(places, self._sif, part, until=until)
        except RoomError:
            if not self._room.make(self._sif.sha256, self._sif.size, end):
                raise
        try:
            return fetch.fetch(places, self._sif, part, until=until)
        except RoomError:
            self._room.remember(self._sif.size)
            raise
