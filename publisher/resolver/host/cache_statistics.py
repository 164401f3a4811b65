"""The statistics of the cache, as attributes of the machine ad."""

from __future__ import annotations

import glob
import os

from publisher.contract.errors import os_reason
from publisher.resolver.cache import cache, candidates, counters, eviction, pins
from publisher.resolver.errors import CacheError
from publisher.resolver.host import all_users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from publisher.resolver.config.settings import ResolverSettings

_MAX_CANDIDATES = 10
CANDIDATES = "ImageCandidates"
_FREE, _OLDEST = "ImageCacheFreeBytes", "ImageCacheOldestUse"


def collect(settings: ResolverSettings) -> dict[str, Any]:
    """Return the current size of the cache, and its counters since it was created. Raise CacheError if it cannot be read."""
    target = cache.from_settings(settings)
    target.prepare()
    try:
        entries = target.entries.by_last_use()
        pinned = pins.count_pins(target.root, target.entries.record_use)
        free = eviction.free_space(target.root)
    except OSError as error:
        raise CacheError(f"the cache {target.root} cannot be used: {os_reason(error, target.root)}") from None
    counts = counters.read(target.root)
    return {
        "ImageCacheImages": len(entries),
        "ImageCacheBytes": sum(entry.size for entry in entries),
        "ImageCacheInUse": sum(entry.sha256 in pinned for entry in entries),
        _FREE: free,
        _OLDEST: int(entries[0].last_used) if entries else 0,
        "ImageCacheHits": counts.hits,
        "ImageCacheFetches": counts.downloads,
        "ImageCacheWantedBytes": counts.wanted,
        "ImageCacheFetchedBytes": counts.bytes,
        "ImageCacheCopiedBytes": counts.copied,
        "ImageCacheFetchSeconds": round(counts.seconds, 1),
        "ImagePulls": counts.pulls,
        "ImagePulledBytes": counts.pulled_bytes,
        "ImageManifestForks": len(glob.glob(os.path.join(glob.escape(target.root), "manifest", "*", "fork"))),
    }


def of_all_users(settings: ResolverSettings, statistics: dict[str, Any]) -> dict[str, Any]:
    """Return statistics with the images that jobs of all users of this host named although they are not published."""
    found = candidates.total(all_users.caches(settings))[:_MAX_CANDIDATES]
    return {**statistics, CANDIDATES: ", ".join(f"{image} ({uses})" for image, uses in found)}


def combine(name: str, values: Sequence[Any]) -> Any:
    """Return one value for the values of several caches: their sum, or the list of their texts.

    Of the free space and the oldest use it is the smallest value, since the caches are on one file system.
    """
    known = [value for value in values if value]
    if name in (_FREE, _OLDEST):
        return min(known, default=0)
    return ", ".join(known) if isinstance(values[0], str) else sum(values)
