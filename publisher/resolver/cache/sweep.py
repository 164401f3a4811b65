"""The sweep: it removes what killed processes left in a cache: interrupted downloads, tables without a SIF, temporary files."""

from __future__ import annotations

import os
import time

from publisher.resolver.cache import candidates, counters, trees
from publisher.resolver.system import locks, log, negative_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.cache.entries import CacheEntries

_RETENTION = 3600  # seconds for which an interrupted download is kept, so that another process can resume it
_DIRECTORIES = ("manifest", "failures", "tally", "pins", "federation")
"""Directories in which files are replaced by way of a temporary file ``.<name>.<random>``."""


def sweep(entries: CacheEntries) -> list[str]:
    """Remove old downloads and temporary files that no process uses; return their paths. Raise OSError if that fails."""
    removed = [path for sha256, path in entries.downloads() if _is_old(path) and _remove(path, entries.lock_path(sha256))]
    removed += [path for sha256, path in entries.tables() if _is_old(path) and _remove_table(entries, sha256)]
    for name in _DIRECTORIES:
        for directory, _, names in os.walk(os.path.join(entries.root, name)):
            temporary = [os.path.join(directory, name) for name in names if name.startswith(".")]
            removed += [path for path in temporary if _is_old(path) and _remove(path, path)]
    negative_cache.sweep(entries.root, time.time())
    counters.condense(entries.root)
    candidates.condense(entries.root)
    if removed:
        log.debug("swept %d files of killed processes from %s", len(removed), entries.root)
    return removed


def _remove(path: str, lock: str) -> bool:
    """Remove a file or an unfinished sandbox unless another process holds its lock; return whether it was removed."""
    try:
        with locks.acquire([lock], 0):
            trees.remove(path)
    except TimeoutError:
        return False
    return True


def _remove_table(entries: CacheEntries, sha256: str) -> bool:
    """Remove the chunk table of a SIF that neither exists nor is being downloaded; return whether it was removed."""
    if os.path.exists(entries.sif_path(sha256)):
        return False
    try:
        with locks.acquire([entries.lock_path(sha256)], 0):
            if os.path.exists(entries.sif_path(sha256)) or os.path.exists(entries.part_path(sha256)):
                return False
            entries.remove_table(sha256)
    except TimeoutError:
        return False
    return True


def _is_old(path: str) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime < time.time() - _RETENTION
    except FileNotFoundError:
        return False
