"""From an image's name to a path that a job can start: find the manifest, look the image up, choose a form, have it there."""

from __future__ import annotations

import os
import time

from publisher.resolver import lookup, trusted
from publisher.resolver.attempt import Attempt
from publisher.resolver.cache import Cache
from publisher.resolver.config import AUTO, SANDBOX, SIF
from publisher.resolver.errors import CacheError, FetchError, FormError, ManifestError, ResolverError, SandboxError
from publisher.resolver.kept import Kept
from publisher.resolver.manifest import DEAD, EXPIRING
from publisher.resolver.sources import source
from publisher.resolver.verify import load_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from publisher.resolver.config import Settings
    from publisher.resolver.lookup import Found, Wanted
    from publisher.resolver.notes import Notes
    from publisher.resolver.trusted import Trusted

_PROBE = 5.0  # seconds in which a sandbox must open; CVMFS may have to fetch a catalog for it


class Answer:
    """What to start.

    Attributes:
        form: ``sandbox`` or ``sif``.
        path: absolute; of a sandbox the directory itself, not the name's link, which may move while the job runs.
        found: the version, None where an old manifest let a path through.
        manifest: the manifest that said so.
        fetched: the place that the SIF was fetched from just now, else empty.
    """

    __slots__ = ("fetched", "form", "found", "manifest", "path")

    def __init__(self, form: str, path: str, found: Found | None, manifest: Trusted, fetched: str = "") -> None:
        self.form = form
        self.path = path
        self.found = found
        self.manifest = manifest
        self.fetched = fetched

    def to_json(self, notes: Notes) -> dict[str, Any]:
        """For programs: the answer, what it rests on, and the notes. Fields that are not known are null."""
        version = None if self.found is None else self.found.version
        sif = None if version is None or version.sif is None else version.sif
        return {
            "name": self.found and self.found.name,
            "form": self.form,
            "path": self.path,
            "arch": self.found and self.found.arch,
            "manifest": version and version.manifest,
            "sif": sif and {"sha256": sif.sha256, "size": sif.size},
            "state": version and version.state,
            "fetched": self.fetched or None,
            "source": self.manifest.source,
            "serial": self.manifest.index.serial,
            "age": self.manifest.age,
            "notes": notes.all,
        }


def resolve(text: str, settings: Settings, now: float, notes: Notes) -> Answer:
    """Find an image and make it ready.

    Args:
        text: the image, in any spelling that :func:`publisher.resolver.lookup.wanted` knows.
        settings: where things are, and what is wanted.
        now: this host's clock, seconds since the epoch.
        notes: gets what is worth saying beside the answer.

    Raises:
        ReferenceError, UnknownImageError, BlockedError: for the user to mend.
        UsageError: for who configured this.
        ManifestError, FetchError, CacheError, ResolverError: the host's or the network's doing.
    """
    want, manifest, found = find(text, settings, now, notes)
    return _passed_through(want, settings, manifest) if found is None else _ready(found, settings, manifest, notes)


def find(text: str, settings: Settings, now: float, notes: Notes) -> tuple[Wanted, Trusted, Found | None]:
    """What a text stands for, the manifest that says so, and the version that is meant: None where it is too old to say.

    Raises:
        ReferenceError, UnknownImageError, BlockedError: for the user to mend.
        UsageError: for who configured this.
        ManifestError, ResolverError: the host's or the network's doing.
    """
    want = lookup.wanted(text, settings.roots)
    places = [source(place) for place in settings.manifests]
    keys = load_keys(settings.keys)
    manifest = trusted.load(places, _kept(settings, notes), keys=keys, repository=settings.name, now=now, notes=notes)
    if manifest.age == DEAD:
        return want, manifest, None
    found = lookup.find(want, settings.arch, manifest.record)
    if found.version.state == EXPIRING and found.version.until is not None:
        notes.warn(f"{found.name} will be gone on {time.strftime('%Y-%m-%d', time.gmtime(found.version.until))}")
    return want, manifest, found


def unlisted(text: str, settings: Settings) -> str | None:
    """The directory that a path of the repository leads to, though no manifest has it; None where it is no path, or not open."""
    try:
        path = lookup.wanted(text, settings.roots).path
        return None if path is None else _opened(os.path.join(settings.repository, path))
    except ResolverError:
        return None


def _kept(settings: Settings, notes: Notes) -> Kept | None:
    """The copies in the cache; a cache that cannot be used is no reason to withhold a sandbox."""
    if settings.cache is None:
        return None
    try:
        Cache(settings.cache).prepare()
    except CacheError as error:
        notes.warn(str(error))
        return None
    return Kept(os.path.join(settings.cache, "manifest", settings.name))


def _ready(found: Found, settings: Settings, manifest: Trusted, notes: Notes) -> Answer:
    """The version in the form that is wanted; with ``auto`` as a sandbox if that opens now, else as a SIF.

    Raises:
        FormError: it is not published in the one form that is wanted.
        ResolverError: it cannot be had; with ``auto`` the reason names both forms'.
    """
    if settings.form == SANDBOX:
        return Answer(SANDBOX, _sandbox(found, settings), found, manifest)
    if settings.form == SIF:
        return _sif(found, settings, manifest)
    try:
        return Answer(SANDBOX, _sandbox(found, settings), found, manifest)
    except ResolverError as error:
        notes.add(str(error))
        without_sandbox = error
    try:
        return _sif(found, settings, manifest)
    except ResolverError as error:
        raise FetchError(f"{found.name} is to be had in no form: {without_sandbox}; {error}") from None


def _sandbox(found: Found, settings: Settings) -> str:
    if found.version.sandbox is None:
        raise FormError(f"{found.name} is not published as a sandbox", hint="--form sif, or auto")
    path = os.path.join(settings.repository, found.version.sandbox)
    try:
        _opened(path)
    except FetchError as error:
        raise SandboxError(f"the sandbox {path} cannot be opened: {error}") from None
    return path


def _sif(found: Found, settings: Settings, manifest: Trusted) -> Answer:
    sif = found.version.sif
    if sif is None:
        raise FormError(f"{found.name} is not published as a SIF", hint="--form sandbox, or auto")
    if settings.cache is None:
        raise CacheError("there is no cache to fetch a SIF into", hint="--cache DIR")
    path, fetched = Cache(settings.cache).sif(sif, [source(place) for place in settings.origins])
    return Answer(SIF, path, found, manifest, fetched)


def _passed_through(want: Wanted, settings: Settings, manifest: Trusted) -> Answer:
    """Of a manifest that is too old to be believed nothing counts; a path of the repository that is there still does.

    Raises:
        ManifestError: it is no path of the repository, does not open, or is not the form that is wanted.
    """
    if want.path is not None and settings.form in (AUTO, SANDBOX):
        try:
            return Answer(SANDBOX, _opened(os.path.join(settings.repository, want.path)), None, manifest)
        except FetchError:
            pass
    raise ManifestError(f"the manifest (serial {manifest.index.serial}) is too old to say where {want.text!r} is")


def _opened(path: str) -> str:
    """The directory that a path leads to now, after all links; it opens.

    Raises:
        FetchError: it does not, or not in time.
    """

    def open_it() -> bytes:
        directory = os.path.realpath(path)
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        with os.scandir(directory) as entries:
            next(entries, None)
        return os.fsencode(directory)

    return os.fsdecode(Attempt(open_it).result(time.monotonic() + _PROBE))
