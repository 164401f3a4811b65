"""Looking after the cache by hand or by cron: ``image-resolver cache list|gc|verify|clear|fill|statistics``."""

from __future__ import annotations

import copy
import os
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import cache, counters, eviction, pins, shared, sweep
from publisher.resolver.errors import CacheError, ResolverUsageError
from publisher.resolver.host import all_users
from publisher.resolver.select import resolve
from publisher.resolver.system import locks, negative_cache
from publisher.resolver.system.notes import Warnings
from publisher.resolver.transfer.open_source import sif_sources
from publisher.resolver.trust.manifest_cache import ManifestCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from publisher.resolver.cache.cache import Cache
    from publisher.resolver.config.settings import ResolverSettings

    Subcommand = Callable[[Sequence[str], ResolverSettings, Warnings], Any]

FREE, OLDEST = "ImageCacheFreeBytes", "ImageCacheOldestUse"
FORCE = "--force"
"""Argument of ``clear``: what jobs need goes as well."""
_UNITS = ("B", "kB", "MB", "GB", "TB")
_THOUSAND = 1000


def run(words: Sequence[str], settings: ResolverSettings, notes: Warnings) -> Any:
    """Carry out a subcommand. Root's ``list``, ``gc`` and ``statistics`` are about all users' caches, where each has his own.

    Args:
        words: the subcommand and its arguments.
        settings: where the cache is.
        notes: gets what went wrong without being in the way.

    Returns:
        a value for JSON; :func:`shown` makes text of it.

    Raises:
        ResolverUsageError: no such subcommand, or arguments that it does not take.
        CacheError: the cache cannot be used, or something in it was damaged.
        ExpectedError: of ``fill``, an image is not to be had.
    """
    subcommand = _SUBCOMMANDS.get(words[0] if words else "")
    arguments = words[1:]
    if subcommand is _fill:
        fits = bool(arguments) and FORCE not in arguments
    else:
        fits = not arguments or (subcommand is _clear and list(arguments) == [FORCE])
    if subcommand is None or not fits:
        hint = f"fill takes names, clear {FORCE}, the others nothing"
        raise ResolverUsageError(f"usage: image-resolver cache {'|'.join(_SUBCOMMANDS)}", hint=hint)
    try:
        if subcommand in _OF_ALL and os.geteuid() == 0 and all_users.UID in (settings.caches or ""):
            return _of_all(subcommand, settings, notes)
        return subcommand(arguments, settings, notes)
    except OSError as error:
        raise CacheError(f"the cache {settings.cache} cannot be used: {error}") from None


def shown(value: Any) -> str:
    """A result for a person: lines of ``name = value``, or a line for each thing."""
    if isinstance(value, dict):
        return "\n".join(f"{name} = {_as_expression(found)}" for name, found in value.items())
    return "\n".join("  ".join(_cell(name, found) for name, found in row.items()) for row in value) or "nothing"


def statistics(settings: ResolverSettings) -> dict[str, Any]:
    """The cache in numbers, as attributes of a machine's ad: what it holds, and counts since it was made. Raises CacheError."""
    ours = _safe(settings)
    try:
        items, used = ours.shelf.items(), pins.held(ours.root, ours.shelf.was_used)
        free = eviction.free(ours.root)
    except OSError as error:
        raise CacheError(f"the cache {ours.root} cannot be used: {error}") from None
    counts = counters.counts(ours.root)
    return {
        "ImageCacheImages": len(items),
        "ImageCacheBytes": sum(item.size for item in items),
        "ImageCacheInUse": sum(item.sha256 in used for item in items),
        FREE: free,
        OLDEST: int(items[0].used) if items else 0,
        "ImageCacheHits": counts.hits,
        "ImageCacheFetches": counts.fetched,
        "ImageCacheFetchedBytes": counts.bytes,
        "ImageCacheFetchSeconds": round(counts.seconds, 1),
    }


def _of_all(subcommand: Subcommand, settings: ResolverSettings, notes: Warnings) -> Any:
    """A subcommand's results of all users' caches, in one."""

    def of_one(path: str) -> Any:
        theirs = copy.copy(settings)
        theirs.cache = path
        return subcommand((), theirs, Warnings())

    said = all_users.each(str(settings.caches), of_one, notes)
    if subcommand is _list:
        return [{"user": user, **row} for user, rows in said for row in rows]
    names = dict.fromkeys(name for _, one in said for name in one)
    return {name: _together(name, [one[name] for _, one in said]) for name in names}


def _together(name: str, values: Sequence[Any]) -> Any:
    there = [value for value in values if value]
    if name in (FREE, OLDEST):  # of one file system, and of the oldest
        return min(there, default=0)
    return ", ".join(there) if isinstance(values[0], str) else sum(values)


def _list(_: Sequence[str], settings: ResolverSettings, __: Warnings) -> list[dict[str, Any]]:
    ours = _safe(settings)
    names, used = _names(settings), pins.held(ours.root, ours.shelf.was_used)
    return [
        {
            "sha256": item.sha256,
            "size": item.size,
            "used": int(item.used),
            "jobs": used.get(item.sha256, 0),
            "name": names.get(item.sha256),
        }
        for item in reversed(ours.shelf.items())
    ]


def _gc(_: Sequence[str], settings: ResolverSettings, __: Warnings) -> dict[str, Any]:
    ours = _safe(settings)
    swept = sweep.sweep(ours.shelf)
    os.makedirs(os.path.join(ours.root, "locks"), mode=0o700, exist_ok=True)
    removed = eviction.trim(ours.shelf, ours.limits())
    negative_cache.forget(ours.root, cache.FULL)
    return {"leftovers": len(swept), "bytes": removed.bytes, **_went(removed, settings)}


def _verify(_: Sequence[str], settings: ResolverSettings, __: Warnings) -> dict[str, Any]:
    """Every SIF's bytes; what is damaged is removed. One that is being fetched or removed is left alone."""
    ours, bad, busy, gone = _safe(settings), [], 0, 0
    items = ours.shelf.items()
    for item in items:
        try:
            with locks.taken([ours.shelf.lock(item.sha256)], 0):
                if not os.path.lexists(ours.shelf.path(item.sha256)):
                    gone += 1  # removed by another process meanwhile
                elif ours.shelf.is_right(item.sha256):
                    ours.shelf.use(item.sha256, item.used)
                else:
                    bad.append(item.sha256)
        except TimeoutError:  # noqa: PERF203 - each has a lock of its own
            busy += 1
    if bad:
        raise CacheError(
            f"{len(bad)} of {len(items)} SIFs were damaged, and are gone: {', '.join(bad)}", hint="is the disk all right?"
        )
    return {"verified": len(items) - busy - gone, "busy": busy}


def _clear(arguments: Sequence[str], settings: ResolverSettings, _: Warnings) -> dict[str, Any]:
    ours, removed = _safe(settings), eviction.EvictionResult()
    if FORCE in arguments:
        pins.forget(ours.root)
    used = pins.held(ours.root, ours.shelf.was_used)
    stays = sum(not eviction.remove(ours.shelf, item, used, removed) for item in ours.shelf.items())
    negative_cache.forget(ours.root, cache.FULL)
    return {"bytes": removed.bytes, "in use": stays, **_went(removed, settings)}


def _went(removed: eviction.EvictionResult, settings: ResolverSettings) -> dict[str, Any]:
    """How many went and which, by name where it is known."""
    names = _names(settings)
    return {"removed": len(removed.names), "images": ", ".join(names.get(sha256) or sha256 for sha256 in removed.names)}


def _fill(names: Sequence[str], settings: ResolverSettings, notes: Warnings) -> list[dict[str, Any]]:
    """Have images in the store, if there is one and it is ours, else in the cache."""
    ours = cache.of(settings) if settings.store is None else _store(settings, settings.store)
    ours.prepare()
    places = sif_sources(settings)
    rows = []
    for name in names:
        _, manifest, found = resolve.find(name, settings, time.time(), notes, directory=resolve.usable_cache(settings, notes))
        if found is None or found.version.sif is None:
            why = "it is published as a sandbox only" if found else f"the manifest (serial {manifest.index.serial}) is too old"
            raise ExpectedError(f"cannot fill {name!r} in: {why}")
        path, fetched = ours.sif(found.version.sif, places)
        rows.append({"name": found.name, "path": path, "sif_source": fetched or None})
    return rows


def _store(settings: ResolverSettings, root: str) -> Cache:
    shared.prepare(root)
    return cache.Cache(root, most=settings.cache_size, least_free=settings.cache_free, slots=settings.fetches, shared=True)


def _statistics(_: Sequence[str], settings: ResolverSettings, __: Warnings) -> dict[str, Any]:
    return statistics(settings)


_OF_ALL = (_list, _gc, _statistics)
_SUBCOMMANDS: dict[str, Subcommand] = {
    "list": _list,
    "gc": _gc,
    "verify": _verify,
    "clear": _clear,
    "statistics": _statistics,
    "fill": _fill,
}


def _safe(settings: ResolverSettings) -> Cache:
    ours = cache.of(settings)
    ours.prepare()
    return ours


def _names(settings: ResolverSettings) -> dict[str, str]:
    """sha256 of a SIF -> name, as far as the manifest that is kept here knows. Shards that cannot be read know none."""
    kept = ManifestCache(os.path.join(str(settings.cache), "manifest", settings.name))
    return {
        version.sif.sha256: record.name
        for shard in kept.shards()
        for record in map(shard.record, shard.records)
        if record is not None
        for _, version in record.versions()
        if version.sif is not None
    }


def _as_expression(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _cell(name: str, value: Any) -> str:
    if name == "sha256":
        return str(value)[:16]
    if name == "size":
        return _size(value).rjust(9)
    if name == "used":
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    return f"{name} {value}" if name in ("jobs", "user") else str(value or "-")


def _size(count: float) -> str:
    unit = 0
    while count >= _THOUSAND and unit < len(_UNITS) - 1:
        count, unit = count / _THOUSAND, unit + 1
    return f"{count:.4g} {_UNITS[unit]}"
