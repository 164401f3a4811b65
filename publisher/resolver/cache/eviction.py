"""Space in the cache: an upper limit for its SIFs, a lower limit for free space, reservations for downloads, and eviction.

The least recently used SIFs are evicted first, never one that a job still needs. A hit needs no lock and yet never gets a file
that is being evicted: a hit pins the SIF first and then reads its verification note; eviction removes the note first and then
reads the pins. Whichever comes second sees the other. Soft pins are ignored only if nothing else frees enough space
(see :mod:`publisher.resolver.cache.pins`).
"""

from __future__ import annotations

import contextlib
import os
import time

from publisher.contract.units import format_size
from publisher.resolver.cache import pins, trees
from publisher.resolver.errors import CacheSpaceError
from publisher.resolver.system import locks, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.resolver.cache.entries import CacheEntries, CacheEntry

_LOCK_TIMEOUT = 30.0  # seconds
_USEFUL = 7 * 86400  # seconds since its last use for which an entry is kept if the goal for free space cannot be reached anyway
_LOCK = "room"  # name of the lock under which space is reserved and freed


class CacheLimits:
    """The limits of a cache in bytes.

    Attributes:
        max_bytes: what its SIFs may take.
        min_free: what must stay free on its file system.
    """

    __slots__ = ("max_bytes", "min_free")

    def __init__(self, max_bytes: int, min_free: int) -> None:
        self.max_bytes = max_bytes
        self.min_free = min_free


def compute_limits(root: str, most: tuple[int, float], least_free: tuple[int, float]) -> CacheLimits:
    """Return the limits of the cache in ``root``. Raise OSError if its file system cannot be measured.

    Args:
        root: directory of the cache.
        most: what its SIFs may take, as bytes and as a fraction of the file system; one of them is 0.
        least_free: what must stay free, likewise.
    """
    status = os.statvfs(root)
    whole = status.f_blocks * status.f_frsize
    return CacheLimits(most[0] or int(most[1] * whole), least_free[0] or int(least_free[1] * whole))


class EvictionResult:
    """What was evicted.

    Attributes:
        sha256s: the sha256 of each SIF.
        bytes: their bytes in all.
        unreachable: bytes of the goal for free space that even an empty cache would leave missing; 0 if the goal can be reached.
    """

    def __init__(self) -> None:
        self.sha256s: list[str] = []
        self.bytes = 0
        self.unreachable = 0


def reserve(entries: CacheEntries, sha256: str, size: int, limits: CacheLimits, lock: int) -> int:
    """Reserve space for a download, by eviction if necessary. The reservation lasts while the lock of the SIF is held.

    Args:
        entries: of the cache.
        sha256: of the SIF.
        size: its bytes, of which an interrupted download may exist already.
        limits: of the cache.
        lock: descriptor of the locked lock file of the SIF. The size is written into it, for other processes to count.

    Returns:
        The bytes that were freed.

    Raises:
        CacheSpaceError: eviction cannot free enough space; nothing was evicted then.
        OSError: the cache cannot be read or written.
    """
    with locks.acquire([entries.lock_path(_LOCK)], time.monotonic() + _LOCK_TIMEOUT):
        missing = _missing_bytes(entries, limits, sha256, size)
        freed = _free_exactly(entries, missing, sha256, size) if missing > 0 else 0
        os.pwrite(lock, b"%d" % size, 0)
    log.debug("reserved %d bytes for %s, %d bytes were freed for it", size, sha256, freed)
    return freed


def evict(entries: CacheEntries, sha256: str, size: int) -> int:
    """Free as many bytes as a SIF has, or as many as can be freed: for a limit that cannot be computed, such as a quota.

    Returns:
        The bytes that were freed.

    Raises:
        OSError: the cache cannot be read or written.
    """
    with locks.acquire([entries.lock_path(_LOCK)], time.monotonic() + _LOCK_TIMEOUT):
        return _remove_downloads(entries, sha256) + _evict_entries(entries, size).bytes


def release(lock: int) -> None:
    """End the reservation that was written into a lock file. Raise OSError if that fails."""
    os.ftruncate(lock, 0)


def trim(entries: CacheEntries, limits: CacheLimits, elsewhere: int = 0) -> EvictionResult:
    """Evict until the cache is within its limits, as far as jobs allow it.

    If the goal for free space cannot be reached, nothing that was used within a week is evicted for it.

    Args:
        entries: of the cache.
        limits: of the cache.
        elsewhere: bytes that can be evicted from other caches on the same file system.

    Raises:
        OSError: the cache cannot be read or written.
    """
    with locks.acquire([entries.lock_path(_LOCK)], time.monotonic() + _LOCK_TIMEOUT):
        missing = _missing_bytes(entries, limits, "", 0)
        if missing > 0:
            missing -= _remove_downloads(entries, "")
        unreachable = missing - evictable_bytes(entries) - elsewhere
        if unreachable <= 0:
            return _evict_entries(entries, missing)
        over = _missing_bytes(entries, CacheLimits(limits.max_bytes, 0), "", 0)
        result = _evict_entries(entries, over)
        _evict_unused(entries, result, missing)
        result.unreachable = unreachable
        return result


def evictable_bytes(entries: CacheEntries) -> int:
    """Return the bytes of all entries that no job needs. Raise OSError if the cache cannot be read."""
    pinned = pins.count_pins(entries.root, entries.record_use)
    return sum(entry.size for entry in entries.by_last_use() if entry.sha256 not in pinned)


def evict_entry(
    entries: CacheEntries, entry: CacheEntry, pinned: Mapping[str, int], result: EvictionResult, *, ignore_soft: bool = False
) -> bool:
    """Evict a SIF unless a job needs it or a process holds its lock.

    Args:
        entries: of the cache.
        entry: the SIF.
        pinned: what :func:`publisher.resolver.cache.pins.count_pins` returned.
        result: the SIF is added to it if it is evicted.
        ignore_soft: evict it even if it has a soft pin.

    Returns:
        Whether it was evicted.

    Raises:
        OSError: the cache cannot be read or written.
    """
    if entry.sha256 in pinned:
        return False
    try:
        with locks.acquire([entries.lock_path(entry.sha256)], 0):
            note = entries.invalidate(entry.sha256)
            # a job may have pinned it meanwhile, after it read the note
            if entry.sha256 in pins.count_pins(entries.root, entries.record_use, ignore_soft=ignore_soft):
                entries.mark_verified(entry.sha256, note)
                return False
            entries.remove(entry.sha256)
    except TimeoutError:
        return False
    log.debug("evicted %s with %d bytes, last used %.0f s ago", entry.sha256, entry.size, time.time() - entry.last_used)
    result.sha256s.append(entry.sha256)
    result.bytes += entry.size
    return True


def free_space(root: str) -> int:
    """Return the bytes that an ordinary user can still write to the file system of ``root``. Raise OSError if that fails."""
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


def _free_exactly(entries: CacheEntries, missing: int, sha256: str, size: int) -> int:
    """Free ``missing`` bytes, or nothing if that many cannot be freed; return the bytes that were freed."""
    pinned = pins.count_pins(entries.root, entries.record_use, ignore_soft=True)
    evictable = sum(entry.size for entry in entries.by_last_use() if entry.sha256 not in pinned and entry.sha256 != sha256)
    evictable += sum(part for _, part in _interrupted_downloads(entries, sha256))
    if evictable < missing:
        raise CacheSpaceError(
            f"no space in the cache {entries.root} for a SIF of {format_size(size)}: {format_size(missing)} are missing within "
            f"cache-size and cache-free, and only {format_size(evictable)} can be evicted",
            hint="raise cache-size, lower cache-free, or free space on the file system",
        )
    freed = _remove_downloads(entries, sha256)
    freed += _evict_entries(entries, missing - freed).bytes
    if freed < missing:
        raise CacheSpaceError(
            f"no space in the cache {entries.root} for a SIF of {format_size(size)}: jobs use all SIFs in it",
            hint="raise cache-size, lower cache-free, or free space on the file system",
        )
    return freed


def _evict_entries(entries: CacheEntries, wanted: int) -> EvictionResult:
    """Evict SIFs until ``wanted`` bytes are free, if there are so many; those with soft pins come last."""
    result = EvictionResult()
    for ignore_soft in (False, True):
        pinned = pins.count_pins(entries.root, entries.record_use, ignore_soft=ignore_soft)
        for entry in entries.by_last_use():
            if result.bytes >= wanted:
                return result
            evict_entry(entries, entry, pinned, result, ignore_soft=ignore_soft)
    return result


def _evict_unused(entries: CacheEntries, result: EvictionResult, wanted: int) -> None:
    """Evict what was not used for a week, until ``wanted`` bytes are free."""
    pinned = pins.count_pins(entries.root, entries.record_use)
    for entry in entries.by_last_use():
        if result.bytes < wanted and entry.last_used < time.time() - _USEFUL:
            evict_entry(entries, entry, pinned, result)


def _remove_downloads(entries: CacheEntries, except_for: str) -> int:
    """Remove the interrupted downloads except for that of one SIF; return the bytes that were freed."""
    freed = 0
    for sha256, size in _interrupted_downloads(entries, except_for):
        with contextlib.suppress(TimeoutError, FileNotFoundError), locks.acquire([entries.lock_path(sha256)], 0):
            entries.remove_download(sha256)
            log.debug("removed the interrupted download of %s with %d bytes", sha256, size)
            freed += size
    return freed


def _interrupted_downloads(entries: CacheEntries, except_for: str) -> list[tuple[str, int]]:
    """Return the sha256 and the bytes so far of each download that no process continues now."""
    running = {except_for, *(sha256 for sha256, _ in _running_downloads(entries, except_for))}
    return [(sha256, _written(path)) for sha256, path in entries.downloads() if sha256 not in running]


def _missing_bytes(entries: CacheEntries, limits: CacheLimits, sha256: str, size: int) -> int:
    """Return how many bytes must be freed before ``size`` more fit in; running downloads count with their final size."""
    total = sum(entry.size for entry in entries.by_last_use())
    total += sum(part for _, part in _interrupted_downloads(entries, sha256))
    outstanding = 0
    for other, expected in _running_downloads(entries, sha256):
        written = _written(entries.part_path(other))
        total += max(expected, written)
        outstanding += max(0, expected - written)
    written = _written(entries.part_path(sha256)) if sha256 else 0
    return max(total + size - limits.max_bytes, limits.min_free + outstanding + size - written - free_space(entries.root))


def _running_downloads(entries: CacheEntries, except_for: str) -> Sequence[tuple[str, int]]:
    """Return the sha256 and the final size of each running download: its lock is held and has a size in it."""
    names = os.listdir(os.path.dirname(entries.lock_path(_LOCK)))
    sizes = [(name, _reserved_size(entries.lock_path(name))) for name in names if name not in (except_for, _LOCK)]
    return [(name, size) for name, size in sizes if size and locks.is_locked(entries.lock_path(name))]


def _reserved_size(lock: str) -> int:
    with open(lock, "rb") as file:
        text = file.read(20).strip()
    return int(text) if text.isdigit() else 0


def _written(path: str) -> int:
    """Return the bytes of an unfinished download or unpacking so far."""
    try:
        return trees.size_on_disk(path) if os.path.isdir(path) else os.lstat(path).st_size
    except FileNotFoundError:
        return 0
