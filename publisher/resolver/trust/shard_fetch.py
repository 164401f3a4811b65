"""Fetching a shard of the manifest that is not cached: one process of a host fetches it, the others wait.

That no source has it is recorded in the negative cache, so that the next jobs do not all retry.
"""

from __future__ import annotations

import contextlib
import time

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import Shard
from publisher.resolver.system import locks, log, negative_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.manifest_cache import ManifestCache

_SLACK = 5.0  # seconds by which the others wait longer than the fetching process may take


def fetch_once(sha256: str, cache: ManifestCache, sources: Sequence[Source], fetch: Callable[[], Shard]) -> Shard:
    """Return a shard that this process or another one fetches.

    Args:
        sha256: digest of the shard.
        cache: the cached manifest, where the shard will be stored.
        sources: the sources that ``fetch`` reads one after the other.
        fetch: fetches the shard and stores it; raises ManifestError.

    Raises:
        ManifestError: no source has the shard, now or a short while ago, or the other process takes too long.
    """
    root = next((source.network.root for source in sources if not source.local), None)
    key = f"shard-{sha256}"

    def recent_failure() -> str | None:
        return None if root is None else negative_cache.recent_failure(root, key, time.time())

    until = time.monotonic() + _SLACK + sum(source.timeout for source in sources)
    with contextlib.ExitStack() as stack:
        try:
            cache.make()
            lock = cache.lock(f"shard-{sha256[:2]}")
            stack.enter_context(locks.acquire([lock], until, lambda: bool(_cached(cache, sha256) or recent_failure())))
        except TimeoutError:
            raise ManifestError("another process has been fetching a shard of the manifest for too long") from None
        except OSError as error:  # the cache cannot be written
            log.debug("fetching a shard without a lock: %s", error)
        shard, reason = _cached(cache, sha256), recent_failure()
        if shard is None and reason is not None:
            raise ManifestError(f"not retried yet: {reason}")
        return shard or _fetch(fetch, root, key)


def _cached(cache: ManifestCache, sha256: str) -> Shard | None:
    """Return the shard that another process has stored, or None if there is no valid one."""
    content = cache.shard(sha256)
    try:
        return None if content is None else Shard.parse(content, sha256)
    except ManifestError:
        return None


def _fetch(fetch: Callable[[], Shard], root: str | None, key: str) -> Shard:
    """Fetch the shard, and record the outcome in the negative cache."""
    try:
        shard = fetch()
    except ManifestError as error:
        if root is not None:
            negative_cache.record_failure(root, key, str(error), time.time())
        raise
    if root is not None:
        negative_cache.clear(root, key)
    return shard
