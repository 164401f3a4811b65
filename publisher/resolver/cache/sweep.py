"""What killed processes left in a cache: downloads that nobody continues and nobody holds, halves of replaced files."""

from __future__ import annotations

import os
import time

from publisher.resolver.cache import counters
from publisher.resolver.system import locks, negative_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.cache.entries import CacheEntries

_CONTINUED = 3600  # seconds that a broken-off download is kept to be continued
_PLACES = ("manifest", "failures", "tally", "pins", "federation")  # where files are replaced by way of .<name>.<random>


def sweep(shelf: CacheEntries) -> list[str]:
    """Remove what is old and nobody's; the paths that went. Raises OSError."""
    gone = [part for sha256, part in shelf.parts() if _is_old(part) and _removed(part, shelf.lock(sha256))]
    for place in _PLACES:
        for directory, _, names in os.walk(os.path.join(shelf.root, place)):
            halves = [os.path.join(directory, name) for name in names if name.startswith(".")]
            gone += [path for path in halves if _is_old(path) and _removed(path, path)]
    negative_cache.sweep(shelf.root, time.time())
    counters.condense(shelf.root)
    return gone


def _removed(path: str, lock: str) -> bool:
    try:
        with locks.taken([lock], 0):
            os.unlink(path)
    except (TimeoutError, FileNotFoundError):
        return False
    return True


def _is_old(path: str) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime < time.time() - _CONTINUED
    except FileNotFoundError:
        return False
