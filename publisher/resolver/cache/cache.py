"""The cache of SIFs on this host's disk: each SIF is downloaded once, however many jobs need it.

A hit takes no lock and imports next to nothing. Of the jobs that miss, one downloads the SIF and holds its lock; the others wait
for it, each until its own deadline, and one of them resumes the download if that process dies. A failure is remembered for a
while, so that the waiting jobs do not all retry it (see :mod:`publisher.resolver.system.negative_cache`). The locks in ``slots/``
bound the number of concurrent downloads, and space is reserved first.

Trust: the cache detects what disks, crashes and accidents do. A process of the same user can rewrite a SIF together with its
verification note; so each user has a cache of their own. The safer alternative is a *store*, a cache that root or a daemon fills
(``image-resolver cache fill``) and jobs can only read. A directory that another user owns or may write to is refused.
"""

from __future__ import annotations

import os
import stat
import time

from publisher.contract.errors import os_reason
from publisher.resolver.cache import pins
from publisher.resolver.cache.entries import CacheEntries, unpacked_key
from publisher.resolver.errors import DISK_ADVICE, CacheBusyError, CacheError, CacheSpaceError, FetchError
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ContextManager

    from publisher.contract.records import Sif
    from publisher.resolver.cache.eviction import CacheLimits
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.cache.slots import DownloadSlot
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.transfer.fetch import Traffic
    from publisher.resolver.transfer.partial import Assembly
    from publisher.resolver.transfer.sources import Source

    Share = tuple[int, float]

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ALL, _NONE = (0, 1.0), (0, 0.0)
_UNPACKING_TIME = 3600.0  # seconds, where nothing else limits it
DISK_FULL = "room"
"""The key in the negative cache for a disk that was full; its reason begins with the bytes that did not fit."""


class Cache:
    """A cache in a directory, which is created with mode 0700 when it is first needed.

    Attributes:
        root: the directory.
        entries: its entries.
        received: bytes that this object's last download got from the network.
        copied: bytes that it copied from other SIFs of this host.
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
        store: str | None = None,
    ) -> None:
        """Describe a cache.

        Args:
            root: the directory.
            user: ID of the user who must own it, unless root does; None for the user of this process.
            most: what its SIFs may take, as bytes and as a fraction of the file system; one of them is 0.
            least_free: what must stay free on the file system, likewise.
            slots: number of concurrent downloads of all processes that use the same slot directory.
            slot_directory: directory of the download slots, which caches of several users may share (mode 1777); None for the
                cache's own.
            shared: whether this is a store, which everybody may read and pin SIFs in.
            store: directory of the host's store, whose SIFs may have chunks of others; None without one.
        """
        self.root = root
        self.received = 0
        self.copied = 0
        self.entries = CacheEntries(root, shared=shared)
        self._user = os.geteuid() if user is None else user
        self._most = most
        self._least_free = least_free
        self._slots = slots
        self._slot_directory = slot_directory
        self._store = store

    def prepare(self) -> None:
        """Create the directory, or check that it is safe.

        Raises:
            CacheError: the directory cannot be created, belongs to another user, or other users may write to it or replace it.
        """
        try:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"cannot create the cache {self.root}: {error.strerror}", hint="set --cache to a directory that can be created"
            ) from None
        check_ownership(self.root, (self._user, 0), "cache")

    def ensure(
        self,
        sif: Sif,
        sources: Sequence[Source],
        timeout: float | None = None,
        *,
        until: float | None = None,
        starter: Starter | None = None,
    ) -> tuple[str, str]:
        """Ensure that a SIF is cached.

        Args:
            sif: the SIF.
            sources: where to fetch it from, in order of preference.
            timeout: seconds for everything; None for no limit but ``until``, or without that for the time limit of the download.
            until: reading of the monotonic clock at which the SIF must be there; shortens ``timeout``.
            starter: the starter of the job that gets the SIF, whose pin protects the SIF from eviction; None for no pin.

        Returns:
            The path of the SIF, and where this call fetched it from: empty if it was cached.

        Raises:
            CacheSpaceError: there is not enough space, and everything in the cache is in use.
            CacheBusyError: other processes did not finish their downloads in time.
            CacheError: the cache cannot be used.
            FetchError: no source delivered the right bytes, now or a short while ago.
        """
        self.prepare()
        if self._hit(sif.sha256, starter):
            return self.entries.sif_path(sif.sha256), ""
        from publisher.resolver.transfer import fetch  # noqa: PLC0415 - a hit fetches nothing

        if timeout is None and until is not None:
            end = until  # the download has its own time limit anyway, and may have to wait for larger ones
        else:
            end = time.monotonic() + (fetch.time_limit(sif.size, sources) if timeout is None else timeout)
            end = end if until is None else min(end, until)
        try:
            return self.entries.sif_path(sif.sha256), self._fetch_once(sif, sources, end)
        except OSError as error:
            raise CacheError(f"the cache {self.root} cannot be used: {os_reason(error, self.root)}", hint=DISK_ADVICE) from None

    def ensure_unpacked(
        self,
        sif: Sif,
        sources: Sequence[Source],
        size: int,
        *,
        until: float | None = None,
        starter: Starter | None = None,
        path: str | None = None,
        apptainer: str | None = None,
    ) -> tuple[str, str]:
        """Ensure that a SIF is unpacked in the cache: for a host that cannot mount SIFs.

        Args:
            sif: the SIF.
            sources: as for :meth:`ensure`.
            size: bytes that the sandbox will take at most.
            until: as for :meth:`ensure`.
            starter: as for :meth:`ensure`; the pin is that of the sandbox.
            path: the SIF in a store; None to have it in this cache.
            apptainer: path of Apptainer; None to search the PATH.

        Returns:
            The path of the sandbox, and where this call fetched the SIF from: empty if it was cached.

        Raises:
            HostError: this host has no program that can unpack the SIF.
            CacheSpaceError, CacheBusyError, CacheError, FetchError: see :meth:`ensure`.
        """
        key = unpacked_key(sif.sha256)
        self.prepare()
        if self._hit(key, starter):
            return self.entries.sif_path(key), ""
        from publisher.resolver.cache import unpack  # noqa: PLC0415 - few hosts do this, and once for each image

        fetched_from = ""
        if path is None:
            path, fetched_from = self.ensure(sif, sources, until=until, starter=starter)
        end = time.monotonic() + _UNPACKING_TIME if until is None else until
        try:
            limits = self.limits()
            return unpack.ensure(self.entries, limits, sif.sha256, path, size, until=end, apptainer=apptainer), fetched_from
        except OSError as error:
            raise CacheError(f"the cache {self.root} cannot be used: {os_reason(error, self.root)}", hint=DISK_ADVICE) from None

    def limits(self) -> CacheLimits:
        """Return the limits of the cache in bytes. Raise OSError if its file system cannot be measured."""
        from publisher.resolver.cache import eviction  # noqa: PLC0415 - a hit evicts nothing

        return eviction.compute_limits(self.root, self._most, self._least_free)

    def in_slot(self, sha256: str, end: float) -> DownloadSlot:
        """Return a download slot, to be held during a block; see :class:`publisher.resolver.cache.slots.DownloadSlot`."""
        from publisher.resolver.cache.slots import DownloadSlot  # noqa: PLC0415 - a hit downloads nothing

        directory = self._slot_directory or os.path.join(self.root, "slots")
        return DownloadSlot(directory, sha256, self._slots, end, shared=self._slot_directory is not None)

    def _hit(self, sha256: str, starter: Starter | None) -> bool:
        """Return whether a verified SIF can be handed out. It is pinned first, so that it cannot be evicted after the check."""
        if starter is not None:
            try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
                pins.pin(self.root, sha256, starter)
            except OSError:  # another user's cache: an open file stays usable when it is evicted
                pass
        if not self.entries.is_verified(sha256):
            log.debug("cache miss for %s in %s", sha256, self.root)
            return False
        from publisher.resolver.cache import counters  # noqa: PLC0415 - small

        self.entries.mark_used(sha256)
        counters.count_hit(self.root)
        log.debug("cache hit for %s in %s", sha256, self.root)
        return True

    def _fetch_once(self, sif: Sif, sources: Sequence[Source], end: float) -> str:
        """Ensure that the SIF is cached, by this process or another; return where this one fetched it from. Raise OSError."""
        from publisher.resolver.cache import counters  # noqa: PLC0415 - a hit needs no lock
        from publisher.resolver.system import locks, negative_cache  # noqa: PLC0415 - as above

        self._raise_recent_failure(sif)
        self.entries.make_directories(sif.sha256)

        def is_settled() -> bool:
            """Return whether the process that holds the lock has finished the SIF, or failed."""
            if self.entries.is_verified(sif.sha256):
                return True
            return negative_cache.recent_failure(self.root, sif.sha256, time.time()) is not None

        busy = "another process has been downloading it for too long"
        try:
            with locks.acquire([self.entries.lock_path(sif.sha256)], end, is_settled, busy) as lock:
                if lock is None:
                    self._raise_recent_failure(sif)
                if lock is None or self.entries.is_verified(sif.sha256) or self.entries.verify(sif.sha256):
                    counters.count_hit(self.root)
                    return ""
                self._raise_recent_failure(sif)
                return self._fetch_in_slot(sif, sources, end, lock)
        except TimeoutError as error:
            raise CacheBusyError(f"{self.entries.sif_path(sif.sha256)}: {error}", hint="try again later") from None

    def _fetch_in_slot(self, sif: Sif, sources: Sequence[Source], end: float, lock: int) -> str:
        """Download the SIF once a slot is free, holding its lock; return where it was fetched from. Raise OSError."""
        from publisher.resolver.cache import counters, eviction, sweep  # noqa: PLC0415 - as above
        from publisher.resolver.system import negative_cache  # noqa: PLC0415 - as above

        sweep.sweep(self.entries)
        with self.in_slot(sif.sha256, end):
            self._raise_recent_failure(sif)  # the previous holder of the slot may have found the disk full
            begun = time.monotonic()
            try:
                fetched_from = self._fetch_into_reserved_space(sif, sources, end, lock)
            except FetchError as error:
                if time.monotonic() < end:  # else only this job ran out of time, and the next one resumes the download
                    negative_cache.record_failure(self.root, sif.sha256, str(error), time.time())
                raise
            finally:
                eviction.release(lock)
            self.entries.add_download(sif.sha256)
        negative_cache.clear(self.root, sif.sha256)
        negative_cache.clear(self.root, DISK_FULL)
        if fetched_from:
            counters.count_download(self.root, sif.size, time.monotonic() - begun, received=self.received, copied=self.copied)
        return fetched_from

    def _fetch_into_reserved_space(self, sif: Sif, sources: Sequence[Source], end: float, lock: int) -> str:
        """Reserve space and download the SIF; retry once if another program filled the disk meanwhile. Raise OSError."""
        from publisher.resolver.cache import eviction  # noqa: PLC0415 - as above
        from publisher.resolver.system import negative_cache  # noqa: PLC0415 - as above
        from publisher.resolver.transfer.fetch import Traffic  # noqa: PLC0415 - as above

        traffic = Traffic()
        limits = self.limits()
        try:
            try:
                with self._difference(sif, sources, end, traffic) as assembly:
                    eviction.reserve(self.entries, sif.sha256, sif.size, limits, lock)
                    return self._download(sif, sources, end, traffic, assembly)
            except CacheSpaceError:  # without the seeds, which are not pinned any more
                freed = eviction.reserve(self.entries, sif.sha256, sif.size, limits, lock)
                if not freed and not eviction.evict(self.entries, sif.sha256, sif.size):
                    raise
            return self._download(sif, sources, end, traffic)
        except CacheSpaceError as error:
            negative_cache.clear(self.root, DISK_FULL)  # any job that ends may free space, so this pause does not grow
            negative_cache.record_failure(self.root, DISK_FULL, f"{sif.size} {error}", time.time())
            raise
        finally:
            self.received, self.copied = traffic.received, traffic.copied

    def _download(
        self, sif: Sif, sources: Sequence[Source], end: float, traffic: Traffic, assembly: Assembly | None = None
    ) -> str:
        from publisher.resolver.transfer import fetch  # noqa: PLC0415 - as above

        part = self.entries.part_path(sif.sha256)
        return fetch.fetch(sources, sif, part, until=end, assembly=assembly, traffic=traffic)

    def _difference(self, sif: Sif, sources: Sequence[Source], end: float, traffic: Traffic) -> ContextManager[Assembly | None]:
        """Return a context manager: how the SIF comes together from others, which are pinned meanwhile; None for as a whole."""
        from contextlib import nullcontext  # noqa: PLC0415 - as above

        if sif.chunks is None:
            return nullcontext()
        from publisher.resolver.cache import seeds  # noqa: PLC0415 - as above

        caches = [self.entries] if self._store is None else [self.entries, CacheEntries(self._store)]
        return seeds.assembly(sif, sources, caches, end, traffic)

    def _raise_recent_failure(self, sif: Sif) -> None:
        """Raise FetchError or CacheSpaceError if the download failed a short while ago and must not be retried yet."""
        from publisher.resolver.system import negative_cache  # noqa: PLC0415 - as above

        now = time.time()
        reason = negative_cache.recent_failure(self.root, sif.sha256, now)
        if reason is not None:
            raise FetchError(f"not retried yet: {reason}")
        full = negative_cache.recent_failure(self.root, DISK_FULL, now)
        if full is not None:
            size, _, rest = full.partition(" ")
            if size.isdigit() and int(size) <= sif.size:
                raise CacheSpaceError(f"not retried yet: {rest}")


def from_settings(settings: ResolverSettings) -> Cache:
    """Return the cache that the settings configure.

    Raises:
        CacheError: no cache is configured.
    """
    if settings.cache is None:
        raise CacheError("a SIF needs a cache, and none is configured", hint="--cache DIR")
    return Cache(
        settings.cache,
        most=settings.cache_size,
        least_free=settings.cache_free,
        slots=settings.fetches,
        slot_directory=settings.slots,
        store=settings.store,
    )


def check_ownership(path: str, owners: Sequence[int], what: str) -> None:
    """Check that only ``owners``, and the owners of the directories above, can change or replace a directory.

    Args:
        path: the directory.
        owners: user IDs.
        what: the setting that names the directory, for messages.

    Raises:
        CacheError: another user can change or replace it, or it does not exist.
    """
    try:
        status = os.stat(path)
        for uid in (status.st_uid, os.lstat(path).st_uid):  # the owner of a symbolic link can redirect it
            if uid not in owners:
                raise CacheError(
                    f"the {what} {path} belongs to user {uid}, so it is not trusted",
                    hint=f"set --{what} to a directory of your own",
                )
        if status.st_mode & _WRITABLE_BY_OTHERS:
            raise CacheError(f"other users may write to the {what} {path}", hint=f"check its content, then run chmod go-w {path}")
        above = os.path.dirname(os.path.realpath(path))
        while above != os.path.dirname(above):
            mode = os.stat(above).st_mode
            if mode & _WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX:
                who = "everybody" if mode & stat.S_IWOTH else "its group"
                raise CacheError(
                    f"other users may replace the {what} {path}, since {who} may write to {above}",
                    hint=f"chmod go-w {above}, or chmod +t {above}",
                )
            above = os.path.dirname(above)
    except OSError as error:
        raise CacheError(f"the {what} {path} cannot be used: {error.strerror}") from None
