"""Cache administration by hand or by cron: ``image-resolver cache list|gc|verify|clear|fill|statistics``."""

from __future__ import annotations

import copy
import os
import time

from publisher.contract.errors import ExpectedError, os_reason
from publisher.contract.units import format_size
from publisher.resolver.cache import cache, eviction, pins, shared, sweep
from publisher.resolver.cache.entries import is_unpacked
from publisher.resolver.config.settings import SIF, UNPACKED
from publisher.resolver.errors import CacheError, ResolverUsageError
from publisher.resolver.host import all_users, cache_statistics, used_images
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
    from publisher.resolver.cache.eviction import EvictionResult
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.transfer.sources import Source

    Subcommand = Callable[[Sequence[str], ResolverSettings, Warnings], Any]

_UNREACHABLE = "unreachable"
_SHA256_DIGITS = 64
FORCE, USED = "--force", "--used"
"""The argument of ``clear`` that also removes the SIFs that jobs need; that of ``fill`` for the images in the trace."""


def run(words: Sequence[str], settings: ResolverSettings, notes: Warnings) -> Any:
    """Run a subcommand. If each user has their own cache, those of root are about all of them, except ``clear`` and ``fill``.

    Args:
        words: the subcommand and its arguments.
        settings: of the resolver.
        notes: receives the problems that did not prevent a result.

    Returns:
        A value for JSON, or for :func:`publisher.resolver.host.cache_render.render`.

    Raises:
        ResolverUsageError: there is no such subcommand, or it does not take these arguments.
        CacheError: the cache cannot be used, or ``verify`` found damaged SIFs.
        ExpectedError: ``fill`` cannot provide an image.
    """
    subcommand = _SUBCOMMANDS.get(words[0] if words else "")
    arguments = words[1:]
    if subcommand is _fill:
        is_valid = bool(arguments) and FORCE not in arguments and (USED not in arguments or list(arguments) == [USED])
    elif subcommand is _verify:
        is_valid = not arguments or (len(arguments) == 1 and arguments[0].isdigit() and int(arguments[0]) > 0)
    else:
        is_valid = not arguments or (subcommand is _clear and list(arguments) == [FORCE])
    if subcommand is None or not is_valid:
        hint = f"fill takes image names or {USED}, clear takes {FORCE}, verify a number of days, the others take no arguments"
        raise ResolverUsageError(f"usage: image-resolver cache {'|'.join(_SUBCOMMANDS)}", hint=hint)
    try:
        if subcommand in _FOR_ALL_USERS and os.geteuid() == 0 and all_users.UID in (settings.cache_template or ""):
            result = _run_for_all_users(subcommand, arguments, settings, notes)
        else:
            result = subcommand(arguments, settings, notes)
        if subcommand is _statistics:
            result = cache_statistics.of_all_users(settings, result)
    except OSError as error:
        raise CacheError(f"the cache {settings.cache} cannot be used: {os_reason(error, str(settings.cache))}") from None
    if subcommand is _verify and "damaged" in result:
        number, names = result["damaged"].count(",") + 1, result["damaged"]
        raise CacheError(
            f"{number} of {number + result['verified']} SIFs were damaged and have been removed: {names}", hint="check the disk"
        )
    if subcommand is _gc and _UNREACHABLE in result:
        notes.warn(
            f"cache-free cannot be reached: {format_size(int(result[_UNREACHABLE]))} would be missing without SIFs that no job "
            "needs; so those that were used within a week stay"
        )
    return result


def _run_for_all_users(subcommand: Subcommand, arguments: Sequence[str], settings: ResolverSettings, notes: Warnings) -> Any:
    """Return the combined results of a subcommand for the caches of all users."""

    def of(path: str) -> ResolverSettings:
        changed = copy.copy(settings)
        changed.cache = path
        return changed

    template, elsewhere = str(settings.cache_template), 0
    if subcommand is _gc:  # what one cache cannot free, others may
        evictable = all_users.for_each(template, lambda path: _evictable(of(path)), Warnings())
        elsewhere = sum(size for _, size in evictable)

    def run_one(path: str) -> Any:
        return _gc((), of(path), notes, elsewhere) if subcommand is _gc else subcommand(arguments, of(path), Warnings())

    results = all_users.for_each(template, run_one, notes)
    if subcommand is _list:
        return [{"user": user, **row} for user, rows in results for row in rows]
    names = dict.fromkeys(name for _, values in results for name in values)
    combined = {name: cache_statistics.combine(name, [values[name] for _, values in results if name in values]) for name in names}
    if _UNREACHABLE in combined:  # it is one disk
        combined[_UNREACHABLE] = max(values.get(_UNREACHABLE, 0) for _, values in results)
    return combined


def _list(_: Sequence[str], settings: ResolverSettings, __: Warnings) -> list[dict[str, Any]]:
    """Return the cache entries, the most recently used first."""
    target = _prepare_cache(settings)
    names, pinned = _image_names(settings), pins.count_pins(target.root, target.entries.record_use)
    return [
        {
            "sha256": entry.sha256,
            "size": entry.size,
            "used": int(entry.last_used),
            "jobs": pinned.get(entry.sha256, 0),
            "name": names.get(entry.sha256[:_SHA256_DIGITS]),
            "form": UNPACKED if is_unpacked(entry.sha256) else SIF,
        }
        for entry in reversed(target.entries.by_last_use())
    ]


def _evictable(settings: ResolverSettings) -> int:
    return eviction.evictable_bytes(_prepare_cache(settings).entries)


def _gc(_: Sequence[str], settings: ResolverSettings, __: Warnings, elsewhere: int = 0) -> dict[str, Any]:
    """Sweep the cache and bring it within its limits; ``elsewhere`` is what other caches on this disk can free, bytes."""
    target = _prepare_cache(settings)
    swept = sweep.sweep(target.entries)
    os.makedirs(os.path.join(target.root, "locks"), mode=0o700, exist_ok=True)
    evicted = eviction.trim(target.entries, target.limits(), elsewhere)
    negative_cache.clear(target.root, cache.DISK_FULL)
    found = {"swept": len(swept), "bytes": evicted.bytes, **_describe(evicted, settings)}
    return {**found, _UNREACHABLE: evicted.unreachable} if evicted.unreachable else found


def _verify(arguments: Sequence[str], settings: ResolverSettings, _: Warnings) -> dict[str, Any]:
    """Hash every entry, or with a number of days the share that is due today; remove the damaged ones.

    Run once a day with DAYS, it hashes each entry once in so many days, those first that were hashed longest ago. Entries
    that another process has locked are skipped.
    """
    target, damaged, busy, gone, verified = _prepare_cache(settings), [], 0, 0, 0
    entries = sorted(target.entries.by_last_use(), key=lambda entry: target.entries.last_hashed(entry.sha256))
    left = sum(entry.size for entry in entries) / int(arguments[0] if arguments else 1)
    for entry in entries:
        if left <= 0:
            break
        left -= entry.size
        try:
            with locks.acquire([target.entries.lock_path(entry.sha256)], 0):
                if not os.path.lexists(target.entries.sif_path(entry.sha256)):
                    gone += 1  # another process evicted it meanwhile
                elif target.entries.verify(entry.sha256):
                    verified += 1
                    target.entries.mark_used(entry.sha256, entry.last_used)
                else:
                    damaged.append(entry.sha256)
        except TimeoutError:
            busy += 1
    found = {"verified": verified, "busy": busy}
    return {**found, "damaged": ", ".join(damaged)} if damaged else found


def _clear(arguments: Sequence[str], settings: ResolverSettings, _: Warnings) -> dict[str, Any]:
    """Remove every SIF that no job needs; with ``--force`` all others as well."""
    target, evicted = _prepare_cache(settings), eviction.EvictionResult()
    if FORCE in arguments:
        pins.remove_all(target.root)
    pinned = pins.count_pins(target.root, target.entries.record_use)
    entries = target.entries.by_last_use()
    in_use = sum(not eviction.evict_entry(target.entries, entry, pinned, evicted) for entry in entries)
    negative_cache.clear(target.root, cache.DISK_FULL)
    return {"bytes": evicted.bytes, "in use": in_use, **_describe(evicted, settings)}


def _fill(names: Sequence[str], settings: ResolverSettings, notes: Warnings) -> list[dict[str, Any]]:
    """Ensure that images are in the store if one is configured, else in the cache: what they mean now, by difference if possible.

    With ``--used`` an image that cannot be had is a warning.
    """
    target = cache.from_settings(settings) if settings.store is None else _prepare_store(settings, settings.store)
    target.prepare()
    sources = sif_sources(settings)
    if list(names) != [USED]:
        return [_fill_one(name, target, sources, settings, notes) for name in names]
    if settings.trace_template is None:
        raise ResolverUsageError(f"cache fill {USED} needs the trace, which tells what jobs got", hint="--trace FILE")
    rows = []
    for name in used_images.names(settings.trace_template, time.time()):
        try:
            rows.append(_fill_one(name, target, sources, settings, notes))
        except ExpectedError as error:  # noqa: PERF203 - an image may have left since
            notes.warn(str(error))
    return rows


def _fill_one(name: str, target: Cache, sources: Sequence[Source], settings: ResolverSettings, notes: Warnings) -> dict[str, Any]:
    """Ensure that one image is in a cache or store, and return its row of the result."""
    directory = resolve.usable_cache(settings, notes)
    _, manifest, image = resolve.find_image(name, settings, time.time(), notes, directory=directory)
    if image is None or image.version.sif is None:
        why = "it is published as a sandbox only" if image else f"the manifest (serial {manifest.index.serial}) is too old"
        raise ExpectedError(f"cannot fetch the image {name!r} into {target.root}: {why}")
    path, fetched_from = target.ensure(image.version.sif, sources)
    fetched, copied = (target.received, target.copied) if fetched_from else (0, 0)
    return {"name": image.name, "path": path, "sif_source": fetched_from or None, "bytes": fetched, "copied": copied}


def _statistics(_: Sequence[str], settings: ResolverSettings, __: Warnings) -> dict[str, Any]:
    return cache_statistics.collect(settings)


_FOR_ALL_USERS = (_list, _gc, _verify, _statistics)
_SUBCOMMANDS: dict[str, Subcommand] = {
    "list": _list,
    "gc": _gc,
    "verify": _verify,
    "clear": _clear,
    "statistics": _statistics,
    "fill": _fill,
}


def _prepare_cache(settings: ResolverSettings) -> Cache:
    """Return the configured cache; raise CacheError if there is none or it is not safe."""
    target = cache.from_settings(settings)
    target.prepare()
    return target


def _prepare_store(settings: ResolverSettings, root: str) -> Cache:
    """Create the store if necessary, and return it. Raise OSError if that fails."""
    shared.prepare(root)
    return cache.Cache(root, most=settings.cache_size, least_free=settings.cache_free, slots=settings.fetches, shared=True)


def _describe(evicted: EvictionResult, settings: ResolverSettings) -> dict[str, Any]:
    """Return how many SIFs were removed, and which ones, by name if it is known."""
    names = _image_names(settings)
    images = ", ".join(names.get(sha256[:_SHA256_DIGITS]) or sha256 for sha256 in evicted.sha256s)
    return {"removed": len(evicted.sha256s), "images": images}


def _image_names(settings: ResolverSettings) -> dict[str, str]:
    """Return ``sha256 of a SIF -> image name`` from the cached shards of the manifest; unreadable shards are left out."""
    copies = ManifestCache(os.path.join(str(settings.cache), "manifest", settings.name))
    return {
        version.sif.sha256: record.name
        for shard in copies.shards()
        for record in map(shard.record, shard.records)
        if record is not None
        for _, version in record.versions()
        if version.sif is not None
    }
