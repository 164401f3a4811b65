"""Commands about the cache as a whole, and HTCondor's hook for a job's end.

They work on the directory that ``--cache`` names; a store is looked after by its owner with ``--cache STORE``. ``fill`` alone
goes to the store where there is one.
"""

from __future__ import annotations

import os
import sys
import time

from publisher.resolver import cache, config, leftovers, pins, room, slots, tally
from publisher.resolver.commandline import Line, say
from publisher.resolver.errors import BusyError, CacheError, ManifestError, ResolverError, UnknownImageError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.resolver.config import Settings
    from publisher.resolver.notes import Notes
    from publisher.resolver.shelf import Shelf, Shelved
    from publisher.resolver.trusted import Trusted

_PATIENCE = 60.0  # seconds for another process that is at the same
_READ = 1 << 16
_STEP = 1000
_SHORT = 12  # digits of a digest, where no name is known
_FOR_ALL = 0o1777  # who may pin in a store: everybody, and nobody may remove another's


def run(line: Line, notes: Notes) -> str:
    """``cache list|gc|verify|clear|fill``; what it says.

    Raises:
        UsageError: no such command.
        CacheError: the cache cannot be used, or held something that was wrong.
        ResolverError: ``fill`` could not fetch an image.
    """
    action, names = line.words[1:2], line.words[2:]
    if action == ["fill"] and names:
        return _fill(names, line.settings(os.environ), notes)
    if not action or action[0] not in _ACTIONS or names:
        raise UsageError(
            "usage: image-resolver cache list|gc|verify|clear [flags], or cache fill NAME…", hint="image-resolver --help"
        )
    settings = _settings(line)
    found = cache.of(settings)
    found.prepare()
    try:
        for name in ("locks", "sif"):
            found.shelf.directory(name)
        return _ACTIONS[action[0]](found.shelf, settings, line)
    except OSError as error:
        raise CacheError(f"the cache {found.root} cannot be used: {error}") from None


def job_exit(arguments: Sequence[str]) -> int:
    """The hook: what this job's starter holds is let go. Always 0: a job that has ended is not to fail for our sake."""
    while os.read(0, _READ):
        pass  # the job's ad, of which nothing is needed; who closes the pipe early would make the starter's write fail
    try:
        settings = _settings(Line(arguments))
        for root in (settings.cache, settings.store):
            if root is not None:
                pins.release(root, pins.starter(os.environ))
    except ResolverError as error:
        say([str(error)])
    except Exception:  # noqa: BLE001 - the outermost frame
        sys.excepthook(*sys.exc_info())
    return 0


def _settings(line: Line) -> Settings:
    """Settings of which the cache's alone matter: no repository need be named."""
    given = config.gather(line.flags, os.environ, line.config)
    if not (given.get("repository") or given.get("repository-name")):
        given["repository-name"] = ["-"]
    return config.Settings(given, "")


def _list(shelf: Shelf, settings: Settings, line: Line) -> str:  # noqa: ARG001 - as all actions
    sifs = sorted(shelf.sifs(), key=lambda one: one.used, reverse=True)
    holders = pins.holders(shelf.root)
    if line.classad:
        return "\n".join(f"ImageCache{name} = {value}" for name, value in _figures(shelf, sifs, holders).items())
    if line.json:
        import json  # noqa: PLC0415 - for this alone

        images = [
            {
                "name": one.name or None,
                "sha256": one.sha256,
                "size": one.size,
                "used": int(one.used),
                "pins": holders.get(one.sha256, []),
            }
            for one in sifs
        ]
        return json.dumps({"cache": shelf.root, "figures": _figures(shelf, sifs, holders), "images": images}, indent=2)
    rows = [f"{'size':>9}  {'last used':19}  {'jobs':>4}  image"]
    for one in sifs:
        used = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.used))
        rows.append(f"{_text(one.size):>9}  {used}  {len(holders.get(one.sha256, [])):4}  {_named(one)}")
    return "\n".join([*rows, f"{len(sifs)} images, {_text(sum(one.size for one in sifs))} in {shelf.root}"])


def _figures(shelf: Shelf, sifs: Sequence[Shelved], holders: Mapping[str, object]) -> dict[str, int]:
    """Numbers about the cache: bytes, seconds, counts since it was made."""
    misses, fetched = tally.counted(shelf.root, tally.MISSES)
    evictions, evicted = tally.counted(shelf.root, tally.EVICTIONS)
    disk = os.statvfs(shelf.root)
    return {
        "Images": len(sifs),
        "Bytes": sum(one.size for one in sifs),
        "InUse": sum(one.sha256 in holders for one in sifs),
        "OldestAge": max(0, int(time.time() - min((one.used for one in sifs), default=time.time()))),
        "Hits": tally.hits(shelf.root),
        "Misses": misses,
        "FetchedBytes": fetched,
        "Evictions": evictions,
        "EvictedBytes": evicted,
        "FreeBytes": disk.f_bavail * disk.f_frsize,
    }


def _gc(shelf: Shelf, settings: Settings, line: Line) -> str:  # noqa: ARG001 - as all actions
    left = leftovers.sweep(shelf)
    gone = room.Room(shelf, settings.cache_size, settings.cache_free).keep_limits(time.monotonic() + _PATIENCE)
    lines = [f"removed {_named(one)} ({_text(one.size)})" for one in gone]
    return "\n".join([*lines, f"removed {len(gone)} images, {_text(sum(one.size for one in gone))}; {left} leftovers"])


def _verify(shelf: Shelf, settings: Settings, line: Line) -> str:  # noqa: ARG001 - as all actions
    bad, good = [], 0
    for one in shelf.sifs():
        try:
            with slots.turn([os.path.join(shelf.root, "locks", one.sha256)], time.monotonic() + _PATIENCE):
                if not os.path.lexists(shelf.path(one.sha256)):
                    continue  # removed in the meantime
                if shelf.has_after_all(one.sha256, one.name):
                    shelf.stamp(one.sha256, one.used)
                    good += 1
                else:
                    bad.append(one)
        except TimeoutError:
            raise BusyError(f"another process has been at {_named(one)} for too long") from None
    if bad:
        raise CacheError(f"{len(bad)} of {len(bad) + good} images had other bytes and are gone: {', '.join(map(_named, bad))}")
    return f"{good} images are right"


def _clear(shelf: Shelf, settings: Settings, line: Line) -> str:  # noqa: ARG001 - as all actions
    sifs = list(shelf.sifs())
    gone = [one for one in sifs if room.remove(shelf, one.sha256, even_held=line.force)]
    for sha256, _, _ in shelf.parts():
        room.drop_part(shelf, sha256)
    leftovers.sweep(shelf)
    room.forget(shelf)
    kept = f"; {len(sifs) - len(gone)} stay, which are in use (--force)" if len(gone) < len(sifs) else ""
    return f"removed {len(gone)} images, {_text(sum(one.size for one in gone))}{kept}"


_ACTIONS: Mapping[str, Callable[[Shelf, Settings, Line], str]] = {"list": _list, "gc": _gc, "verify": _verify, "clear": _clear}


def _fill(names: Sequence[str], settings: Settings, notes: Notes) -> str:
    """Have images in the store, or in the cache where there is no store; all names are tried before a failure is raised."""
    from publisher.resolver import trusted  # noqa: PLC0415 - for this alone
    from publisher.resolver.kept import Kept  # noqa: PLC0415 - as above
    from publisher.resolver.manifest import DEAD  # noqa: PLC0415 - as above
    from publisher.resolver.sources import source  # noqa: PLC0415 - as above
    from publisher.resolver.verify import load_keys  # noqa: PLC0415 - as above

    target = _target(settings)
    kept = Kept(os.path.join(target.root, "manifest", settings.name))
    places, keys = [source(place) for place in settings.manifests], load_keys(settings.keys)
    manifest = trusted.load(places, kept, keys=keys, repository=settings.name, now=time.time(), notes=notes)
    if manifest.age == DEAD:
        raise ManifestError(f"the manifest (serial {manifest.index.serial}) is too old to be believed")
    done = [_filled(name, settings, manifest, target) for name in names]
    failures = [one for one in done if isinstance(one, ResolverError)]
    lines = [one for one in done if isinstance(one, str)]
    if failures:
        notes.warnings += [*lines, *map(str, failures[:-1])]
        raise failures[-1]
    return "\n".join(lines)


def _target(settings: Settings) -> cache.Cache:
    """What is filled; a store is made readable, and jobs may pin there."""
    if settings.store is None:
        target = cache.of(settings)
        target.prepare()
        return target
    turns = [os.path.join(settings.store, "turns", str(number)) for number in range(settings.fetches)]
    target = cache.Cache(settings.store, most=settings.cache_size, free=settings.cache_free, turns=turns, mode=0o755)
    target.prepare()
    try:
        target.shelf.directory("pins", mode=_FOR_ALL)
    except OSError as error:
        raise CacheError(f"the store {settings.store} cannot be used: {error}") from None
    return target


def _filled(name: str, settings: Settings, manifest: Trusted, target: cache.Cache) -> str | ResolverError:
    """What was done for one name, or why not."""
    from publisher.resolver import lookup  # noqa: PLC0415 - as in _fill()
    from publisher.resolver.sources import source  # noqa: PLC0415 - as in _fill()

    try:
        found = lookup.find(lookup.wanted(name, settings.roots), settings.arch, manifest.record)
        if found.version.sif is None:
            return UnknownImageError(f"{found.name} is not published as a SIF")
        path, fetched = target.sif(found.version.sif, [source(place) for place in settings.origins], name=found.name)
    except ResolverError as error:
        return error
    return f"{found.name}: {path}{f', from {fetched}' if fetched else ''}"


def _named(one: Shelved) -> str:
    return one.name or f"sha256:{one.sha256[:_SHORT]}…"


def _text(size: float) -> str:
    """A size for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < _STEP:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} TB"
