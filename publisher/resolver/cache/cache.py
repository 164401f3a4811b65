"""SIFs on this host's disk, fetched once however many jobs want them.

A hit takes no lock and imports next to nothing. Of the jobs that miss, one fetches and holds the SIF's lock; the others wait
for it, each until its own deadline, and one of them goes on where it broke off if it dies. What failed a moment ago is not tried
again by each of them in turn (``failures.py``). Downloads at a time are bounded (``slots/``), and room is made first.

Trust: this finds what disks, crashes and accidents do. Who runs as the same user can rewrite the SIF and the note beside it; so
there is one cache for each user. The safer form is a *store*: a cache that root or a daemon fills (``image-resolver cache
fill``), and that jobs can only read. A directory that others may write, or that a stranger owns, is refused.
"""

from __future__ import annotations

import os
import stat
import time

from publisher.resolver.cache import pins
from publisher.resolver.cache.entries import CacheEntries
from publisher.resolver.errors import CacheBusyError, CacheError, CacheSpaceError, FetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.contract.manifest import Sif
    from publisher.resolver.cache.eviction import CacheLimits
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.transfer.sources import Source

    Share = tuple[int, float]

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_ALL, _NONE = (0, 1.0), (0, 0.0)
_TOO_LONG = "another process has been fetching it for too long"
FULL = "room"
"""The key of failures.py for a disk that was full."""


class Cache:
    """A cache in a directory, which is made (mode 0700) when it is needed; ``user`` or root must own it.

    Args:
        root: the directory.
        user: number of the user; this process's when None.
        most: what its SIFs may take: bytes and a fraction of the file system, one of them 0.
        least_free: what must stay free there, likewise.
        slots: downloads at a time, of all processes that use this cache,
        slot_directory: or that use this directory as well, which other users may share (mode 1777); None for the cache's own.
        shared: a store's own side: everybody may read it, and pin what is in it.
    """

    def __init__(
        self,
        root: str,
        user: int | None = None,
        *,
        most: Share = _ALL,
        least_free: Share = _NONE,
        slots: int = 2,
        slot_directory: str | None = None,
        shared: bool = False,
    ) -> None:
        self.root = root
        self.shelf = CacheEntries(root, shared=shared)
        self._user = os.geteuid() if user is None else user
        self._most = most
        self._least_free = least_free
        self._slots = slots
        self._slot_directory = slot_directory
        self._shared = shared

    def prepare(self) -> None:
        """Make the directory, or see that it is safe.

        Raises:
            CacheError: somebody else's, open to others' writing, where others may replace it, or not to be made.
        """
        try:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot make the cache {self.root}: {error.strerror}") from None
        check(self.root, (self._user, 0), "cache")

    def sif(
        self,
        sif: Sif,
        places: Sequence[Source],
        patience: float | None = None,
        *,
        until: float | None = None,
        starter: Starter | None = None,
    ) -> tuple[str, str]:
        """The path of a SIF in the cache, and the place it was fetched from just now: empty where it was there.

        Args:
            sif: which one.
            places: where it is fetched from.
            patience: seconds that all may take; None: until ``until``, or else as long as its download may take.
            until: reading of the monotonic clock at which it must be there; shortens ``patience``.
            starter: of the job that gets it, which keeps it from being removed; None for nobody.

        Raises:
            CacheSpaceError: the disk, or the cache's share of it, is full of what is in use.
            CacheBusyError: another process fetches it, or others fetch other SIFs, and they do not come to an end.
            CacheError: an unusable cache.
            FetchError: no place has the right bytes, now or a moment ago.
        """
        self.prepare()
        if self._has(sif.sha256, starter):
            return self.shelf.path(sif.sha256), ""
        from publisher.resolver.transfer import fetch  # noqa: PLC0415 - a warm answer fetches nothing

        if patience is None and until is not None:
            end = until  # a download has its own time in any case, and large ones may be before it
        else:
            end = time.monotonic() + (fetch.allowance(sif.size, places) if patience is None else patience)
            end = end if until is None else min(end, until)
        try:
            return self.shelf.path(sif.sha256), self._fetched_once(sif, places, end)
        except OSError as error:
            raise CacheError(f"the cache {self.root} cannot be used: {error}") from None

    def limits(self) -> CacheLimits:
        """What it may take now, in bytes. Raises OSError."""
        from publisher.resolver.cache import eviction  # noqa: PLC0415 - see sif()

        return eviction.limits(self.root, self._most, self._least_free)

    def _has(self, sha256: str, starter: Starter | None) -> bool:
        """Whether the SIF can be handed out; pinned first, so that nobody removes it between the look and the job."""
        if starter is not None:
            try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
                pins.pin(self.root, sha256, starter)
            except OSError:  # somebody else's: what is open stays usable when it is removed
                pass
        if not self.shelf.is_seen(sha256):
            return False
        from publisher.resolver.cache import counters  # noqa: PLC0415 - small

        self.shelf.use(sha256)
        counters.hit(self.root)
        return True

    def _fetched_once(self, sif: Sif, places: Sequence[Source], end: float) -> str:
        """Have it on the shelf, by this process or another; the place it came from. Raises OSError."""
        from publisher.resolver.cache import counters  # noqa: PLC0415 - as above
        from publisher.resolver.system import locks, negative_cache  # noqa: PLC0415 - as above

        self._check_failures(sif)
        self.shelf.make(sif.sha256)

        def settled() -> bool:
            return self.shelf.is_seen(sif.sha256) or negative_cache.recent(self.root, sif.sha256, time.time()) is not None

        try:
            with locks.taken(
                [self.shelf.lock(sif.sha256)], end, settled, "another process has been fetching it for too long"
            ) as held:
                if held is None:
                    self._check_failures(sif)
                if held is None or self.shelf.is_seen(sif.sha256) or self.shelf.is_right(sif.sha256):
                    counters.hit(self.root)
                    return ""
                self._check_failures(sif)
                return self._fetched(sif, places, end, held)
        except TimeoutError as error:
            raise CacheBusyError(f"{self.shelf.path(sif.sha256)}: {error}") from None

    def _fetched(self, sif: Sif, places: Sequence[Source], end: float, held: int) -> str:
        """Fetch it, as the one process that does; the place it came from. Raises OSError."""
        from publisher.resolver.cache import counters, eviction, sweep  # noqa: PLC0415 - as above
        from publisher.resolver.system import locks, negative_cache  # noqa: PLC0415 - as above

        sweep.sweep(self.shelf)
        busy = f"no turn came to fetch it: {self._slots} downloads at a time run on this host"
        with locks.taken(self.slot_paths(sif.sha256), end, None, busy):
            self._check_failures(sif)  # the disk may have been full for those before
            begun = time.monotonic()
            try:
                came_from = self._fetched_into_room(sif, places, end, held)
            except FetchError as error:
                if time.monotonic() < end:  # else only this job's time was over, and the next one goes on
                    negative_cache.note(self.root, sif.sha256, str(error), time.time())
                raise
            finally:
                eviction.done(held)
            self.shelf.put(sif.sha256)
        negative_cache.forget(self.root, sif.sha256)
        negative_cache.forget(self.root, FULL)
        if came_from:
            counters.fetched(self.root, sif.size, time.monotonic() - begun)
        return came_from

    def _fetched_into_room(self, sif: Sif, places: Sequence[Source], end: float, held: int) -> str:
        """Fetch into the room that is made for it; once more where somebody else filled the disk meanwhile."""
        from publisher.resolver.cache import eviction  # noqa: PLC0415 - as above
        from publisher.resolver.system import negative_cache  # noqa: PLC0415 - as above
        from publisher.resolver.transfer import fetch  # noqa: PLC0415 - as above

        part = self.shelf.part(sif.sha256)
        limits = self.limits()
        try:
            eviction.reserve(self.shelf, sif.sha256, sif.size, limits, held)
            try:
                return fetch.fetch(places, sif, part, until=end)
            except CacheSpaceError:
                removed = eviction.reserve(self.shelf, sif.sha256, sif.size, limits, held)
                if not removed and not eviction.relieve(self.shelf, sif.sha256, sif.size):
                    raise
            return fetch.fetch(places, sif, part, until=end)
        except CacheSpaceError as error:
            negative_cache.forget(self.root, FULL)  # a job's end makes room: this pause does not grow
            negative_cache.note(self.root, FULL, f"{sif.size} {error}", time.time())
            raise

    def _check_failures(self, sif: Sif) -> None:
        """Raises FetchError, CacheSpaceError: a moment ago it could not be fetched, and now it is no better."""
        from publisher.resolver.system import negative_cache  # noqa: PLC0415 - as above

        now = time.time()
        reason = negative_cache.recent(self.root, sif.sha256, now)
        if reason is not None:
            raise FetchError(f"not tried again yet: {reason}")
        full = negative_cache.recent(self.root, FULL, now)
        if full is not None:
            size, _, rest = full.partition(" ")
            if size.isdigit() and int(size) <= sif.size:
                raise CacheSpaceError(f"not tried again yet: {rest}")

    def slot_paths(self, sha256: str) -> list[str]:
        """The locks of the downloads at a time, each image's in an order of its own."""
        directory = self._slot_directory or os.path.join(self.root, "slots")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        first = int(sha256[:8], 16) % self._slots
        numbers = [*range(first, self._slots), *range(first)]
        return [os.path.join(directory, str(number)) for number in numbers]


def of(settings: ResolverSettings) -> Cache:
    """The cache that the settings name.

    Raises:
        CacheError: none is named.
    """
    if settings.cache is None:
        raise CacheError("there is no cache to fetch a SIF into", hint="--cache DIR")
    return Cache(
        settings.cache,
        most=settings.cache_size,
        least_free=settings.cache_free,
        slots=settings.fetches,
        slot_directory=settings.slots,
    )


def check(path: str, owners: Sequence[int], what: str) -> None:
    """See that nobody but ``owners`` (and who owns what is above) can change or replace a directory.

    Raises:
        CacheError: somebody can, or it is not there.
    """
    try:
        status = os.stat(path)
        for uid in (status.st_uid, os.lstat(path).st_uid):  # of a link both: whose it is can lead it elsewhere
            if uid not in owners:
                raise CacheError(f"the {what} {path} belongs to user {uid}", hint=f"set --{what} to one of your own")
        if status.st_mode & _WRITABLE:
            raise CacheError(f"others may write in the {what} {path}", hint=f"chmod go-w {path}, once you trust what it holds")
        above = os.path.dirname(os.path.realpath(path))
        while above != os.path.dirname(above):
            mode = os.stat(above).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise CacheError(
                    f"others may replace the {what} {path}: {above} is open to all",
                    hint=f"chmod o-w {above}, or chmod +t {above}",
                )
            above = os.path.dirname(above)
    except OSError as error:
        raise CacheError(f"the {what} {path} cannot be used: {error.strerror}") from None
