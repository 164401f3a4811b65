"""From an image's name to a path that a job can start: find the manifest, look the image up, choose a form, have it there."""

from __future__ import annotations

import os
import time

from publisher.contract.errors import ExpectedError, ManifestError
from publisher.contract.manifest import DEAD, EXPIRING, FRESH
from publisher.resolver.cache import cache
from publisher.resolver.cache.cache import Cache
from publisher.resolver.config.settings import AUTO, SANDBOX, SIF
from publisher.resolver.errors import CacheError, DeadlineError, FetchError, OldManifestError, SandboxError, UnknownImageError
from publisher.resolver.select import choice, facts
from publisher.resolver.select.choice import FormPolicy
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.system.outage import Outage
from publisher.resolver.transfer.open_source import network_of, sif_sources, source
from publisher.resolver.trust import lookup, manifest_loader
from publisher.resolver.trust.manifest_cache import ManifestCache
from publisher.resolver.trust.signature_cache import SignatureCache
from publisher.resolver.trust.signatures import load_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.select.choice import FormChoice
    from publisher.resolver.system.notes import Warnings
    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.lookup import FoundVersion, ImageQuery
    from publisher.resolver.trust.manifest_loader import TrustedManifest

_SOON = 60.0  # seconds: so old may a copy be that does not know an image, before those who may know it are asked
_PROBE = 5.0  # seconds in which a sandbox must open; CVMFS may have to fetch a catalog for it
_NEXT, _MOST_NEXT = 2 * _PROBE, 0.25  # what a SIF leaves for the form after it: seconds, at most this share of what is left


class Resolution:
    """What to start.

    Attributes:
        form: ``sandbox`` or ``sif``.
        path: absolute; of a sandbox the directory itself, not the name's link, which may move while the job runs.
        found: the version, None where an old manifest let a path through.
        manifest: the manifest that said so.
        sif_source: the place that the SIF was fetched from just now, else empty.
        why: why it is this form, empty where there was no choice.
    """

    __slots__ = ("form", "found", "manifest", "path", "sif_source", "why")

    def __init__(self, form: str, path: str, found: FoundVersion | None, manifest: TrustedManifest, sif_source: str = "") -> None:
        self.form = form
        self.path = path
        self.found = found
        self.manifest = manifest
        self.sif_source = sif_source
        self.why = ""

    def to_json(self, notes: Warnings) -> dict[str, Any]:
        """For programs: the answer, what it rests on, and the notes. Fields that are not known are null."""
        version = None if self.found is None else self.found.version
        sif = None if version is None or version.sif is None else version.sif
        return {
            "name": self.found and self.found.name,
            "form": self.form,
            "path": self.path,
            "arch": self.found and self.found.arch,
            "digest": version and version.digest,
            "sif": sif and {"sha256": sif.sha256, "size": sif.size},
            "state": version and version.state,
            "sif_source": self.sif_source or None,
            "why": self.why,
            "manifest_source": self.manifest.source,
            "serial": self.manifest.index.serial,
            "manifest_age": self.manifest.age,
            "notes": notes.all,
        }


def resolve(
    text: str,
    settings: ResolverSettings,
    now: float,
    notes: Warnings,
    *,
    asked: str | None = None,
    until: float | None = None,
    starter: Starter | None = None,
) -> Resolution:
    """Find an image and make it ready.

    Args:
        text: the image, in any spelling that :func:`publisher.resolver.trust.lookup.wanted` knows.
        settings: where things are, and what is wanted.
        now: this host's clock, seconds since the epoch.
        notes: gets what is worth saying beside the answer.
        asked: the form that is asked for, else the settings' counts.
        until: reading of the monotonic clock at which the caller gives up; None for when a download may take what it takes.
        starter: of the job that gets the image, None for nobody.

    Raises:
        InvalidReferenceError, UnknownImageError, BlockedError: for the user to mend.
        UsageError: for who configured this.
        ManifestError, FetchError, CacheError, HostError, ExpectedError: the host's or the network's doing.
    """
    directory = usable_cache(settings, notes)
    outage = Outage(directory and os.path.join(directory, "failures", "repository-hangs"))
    hung = outage.lasts()
    want, manifest, found = find(text, settings, now, notes, directory=directory, hung=hung)
    policy = FormPolicy(asked or settings.form, settings.prefer, settings.never, by_job=asked is not None)
    if found is None:
        return _passed_through(want, settings, manifest, policy)
    measured = facts.read(settings.facts, now)
    choices = choice.forms(found, policy, measured, hung=hung, has_cache=settings.cache is not None or settings.store is not None)
    return _Preparation(found, settings, manifest, outage, starter).first(choices, notes, until)


def find(
    text: str, settings: ResolverSettings, now: float, notes: Warnings, *, directory: str | None, hung: bool = False
) -> tuple[ImageQuery, TrustedManifest, FoundVersion | None]:
    """What a text stands for, the manifest that says so, and the version that is meant: None where it is too old to say.

    Args:
        text: the image, in any spelling.
        settings: where things are.
        now: this host's clock, seconds since the epoch.
        notes: gets what is worth saying beside the answer.
        directory: of :func:`usable_cache`.
        hung: whether a sandbox of the repository hung a short while ago. Then, as when its manifest did, or when it was measured
            to hang, it is not asked for the manifest where another place is, or a copy will do.

    Raises:
        InvalidReferenceError, UnknownImageError, BlockedError: for the user to mend.
        UsageError: for who configured this.
        ManifestError, ExpectedError: the host's or the network's doing. What is not in a manifest that may be old is an
            OldManifestError.
    """
    want = lookup.wanted(text, settings.roots)
    places = _manifests(settings, now, directory, hung=hung)
    keys = load_keys(settings.keys)
    copies = directory and os.path.join(directory, "manifest", settings.name)
    kept = None if copies is None else ManifestCache(copies)
    check = SignatureCache(copies and os.path.join(copies, "verified")).payload

    def loaded(refresh: float, *, wait: bool = False) -> TrustedManifest:
        return manifest_loader.load(
            places, kept, keys=keys, repository=settings.name, now=now, notes=notes, check=check, refresh=refresh, wait=wait
        )

    manifest = loaded(settings.refresh)
    found = None if manifest.age == DEAD else _looked_up(want, settings, manifest)
    if isinstance(found, UnknownImageError) and not manifest.asked:
        manifest = loaded(min(settings.refresh, _SOON), wait=True)
        found = None if manifest.age == DEAD else _looked_up(want, settings, manifest)
    if isinstance(found, UnknownImageError):
        if manifest.age == FRESH and manifest.current:
            raise found
        kind = OldManifestError if type(found) is UnknownImageError else ManifestError
        raise kind(f"{found.reason}, as far as {manifest.source} of the manifest knows, and there is no newer one")
    if found is None:
        return want, manifest, None
    if found.version.state == EXPIRING and found.version.until is not None:
        notes.warn(f"{found.name} will be gone on {time.strftime('%Y-%m-%d', time.gmtime(found.version.until))}")
    return want, manifest, found


def _manifests(settings: ResolverSettings, now: float, directory: str | None, *, hung: bool) -> list[Source]:
    """The places of the manifest; those in the repository are in doubt together."""
    network = network_of(settings)
    places = [source(text, network) for text in settings.manifests]
    outage = Outage(directory and os.path.join(directory, "failures", "manifest-hangs"))
    doubted = hung or facts.read(settings.facts, now).cvmfs is False or outage.lasts()
    for place in places:
        if f"{place.text}/".startswith(f"{settings.repository}/"):
            place.outage, place.doubted = outage, doubted
    return places


def _looked_up(want: ImageQuery, settings: ResolverSettings, manifest: TrustedManifest) -> FoundVersion | UnknownImageError:
    try:
        return lookup.find(want, settings.arch, manifest.record)
    except UnknownImageError as error:
        return error


def unlisted(text: str, settings: ResolverSettings) -> str | None:
    """The directory that a path of the repository leads to, though no manifest has it; None where it is none that opens.

    Raises:
        SandboxError: it does not open in time, so that nobody can say whether it is there.
    """
    try:
        path = lookup.wanted(text, settings.roots).path
        if path is None or settings.never == SANDBOX or settings.form == SIF:
            return None
        return _opened(os.path.join(settings.repository, path))
    except DeadlineError as error:
        raise SandboxError(f"no manifest has {text!r}, and the repository does not say whether it is there: {error}") from None
    except ExpectedError:
        return None


def usable_cache(settings: ResolverSettings, notes: Warnings) -> str | None:
    """The cache's directory, None where there is none or it is not safe: no reason to withhold a sandbox."""
    if settings.cache is not None:
        try:
            Cache(settings.cache).prepare()
        except CacheError as error:
            notes.warn(str(error))
            return None
    return settings.cache


class _Preparation:
    """Having a version ready in one form or another."""

    def __init__(
        self, found: FoundVersion, settings: ResolverSettings, manifest: TrustedManifest, outage: Outage, starter: Starter | None
    ) -> None:
        self._found = found
        self._starter = starter
        self._settings = settings
        self._manifest = manifest
        self._outage = outage

    def first(self, choices: Sequence[FormChoice], notes: Warnings, until: float | None) -> Resolution:
        """The first form that is to be had.

        Raises:
            ExpectedError: there is none; of several forms the reason names each one's, and the last one's kind counts.
        """
        problems: list[ExpectedError] = []
        for one in choices:
            end = until if one is choices[-1] else _sooner(until)
            try:
                answer = self._sandbox() if one.form == SANDBOX else self._sif(end, notes)
            except ExpectedError as error:
                notes.add(str(error))
                problems.append(error)
            else:
                answer.why = one.why
                return answer
        if len(problems) == 1:
            raise problems[0]
        raise type(problems[-1])(f"{self._found.name} is to be had in no form: {'; '.join(map(str, problems))}")

    def _sandbox(self) -> Resolution:
        path = os.path.join(self._settings.repository, str(self._found.version.sandbox))
        try:
            _opened(path)
        except FetchError as error:
            if isinstance(error, DeadlineError):
                self._outage.begin()
            raise SandboxError(f"the sandbox {path} cannot be opened: {error}") from None
        self._outage.end()
        return Resolution(SANDBOX, path, self._found, self._manifest)

    def _sif(self, until: float | None, notes: Warnings) -> Resolution:
        sif = self._found.version.sif
        if sif is None:
            raise ValueError("choice.forms() offers no SIF where there is none")
        path = self._in_store(sif.sha256, notes)
        if path is not None:
            if self._settings.cache is not None:
                from publisher.resolver.cache import counters  # noqa: PLC0415 - small, and no sandbox needs it

                counters.hit(self._settings.cache)
            return Resolution(SIF, path, self._found, self._manifest)
        places = sif_sources(self._settings)
        path, fetched = cache.of(self._settings).sif(sif, places, until=until, starter=self._starter)
        return Resolution(SIF, path, self._found, self._manifest, fetched)

    def _in_store(self, sha256: str, notes: Warnings) -> str | None:
        """The path in the host's store, None where it is not there or not to be trusted."""
        if self._settings.store is None:
            return None
        from publisher.resolver.cache import shared  # noqa: PLC0415 - few sites have one

        try:
            return shared.found(self._settings.store, self._settings.store_owner, sha256, self._starter)
        except (OSError, CacheError) as error:
            notes.warn(str(error))
            return None


def _sooner(until: float | None) -> float | None:
    """Until when a form may be waited for where another one is left, which needs some of the time."""
    return None if until is None else until - min(_NEXT, _MOST_NEXT * max(0.0, until - time.monotonic()))


def _passed_through(want: ImageQuery, settings: ResolverSettings, manifest: TrustedManifest, policy: FormPolicy) -> Resolution:
    """Of a manifest that is too old to be believed nothing counts; a path of the repository that is there still does.

    Raises:
        ManifestError: it is no path of the repository, does not open, or is not the form that is wanted.
    """
    if want.path is not None and policy.asked in (AUTO, SANDBOX) and policy.never != SANDBOX:
        try:
            return Resolution(SANDBOX, _opened(os.path.join(settings.repository, want.path)), None, manifest)
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

    return os.fsdecode(ForkedCall(open_it).result(time.monotonic() + _PROBE))
