"""A shard of the manifest that the cache has not: one process of a host asks the network for it, not each job.

That no place had it is remembered for a while (``failures.py``), so that the jobs behind do not all ask again.
"""

from __future__ import annotations

import contextlib
import time

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import Shard
from publisher.resolver.system import locks, negative_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.manifest_cache import ManifestCache

_SLACK = 5.0  # seconds by which others wait longer than who asks may take


def once(sha256: str, kept: ManifestCache, places: Sequence[Source], ask: Callable[[], Shard]) -> Shard:
    """What ``ask`` gives to this process, or gave to another one.

    Args:
        sha256: of the shard.
        kept: where it will be.
        places: those that ``ask`` asks one after the other.
        ask: has the shard, and keeps it; raises ManifestError.

    Raises:
        ManifestError: no place has it, now or a moment ago, or the other process does not come to an end.
    """
    memory = next((place.network.root for place in places if not place.local), None)
    key = f"shard-{sha256}"

    def failure() -> str | None:
        return None if memory is None else negative_cache.recent(memory, key, time.time())

    until = time.monotonic() + _SLACK + sum(place.patience for place in places)
    with contextlib.ExitStack() as stack:
        try:
            kept.make()
            lock = kept.lock(f"shard-{sha256[:2]}")
            stack.enter_context(locks.taken([lock], until, lambda: bool(_copy(kept, sha256) or failure())))
        except TimeoutError:
            raise ManifestError("a shard of the manifest: another process has been asking for it for too long") from None
        except OSError:  # a cache that takes nothing
            pass
        shard, reason = _copy(kept, sha256), failure()
        if shard is None and reason is not None:
            raise ManifestError(f"not tried again yet: {reason}")
        return shard or _asked(ask, memory, key)


def _copy(kept: ManifestCache, sha256: str) -> Shard | None:
    """The one that another process has kept; None where it is damaged, too."""
    content = kept.shard(sha256)
    try:
        return None if content is None else Shard.parse(content, sha256)
    except ManifestError:
        return None


def _asked(ask: Callable[[], Shard], memory: str | None, key: str) -> Shard:
    try:
        shard = ask()
    except ManifestError as error:
        if memory is not None:
            negative_cache.note(memory, key, str(error), time.time())
        raise
    if memory is not None:
        negative_cache.forget(memory, key)
    return shard
