"""From the name of an image to a path that a job can start: load the manifest, find the image, choose a form, make it ready."""

from __future__ import annotations

import os
import time

from publisher.contract.errors import ExpectedError, ManifestError
from publisher.contract.manifest import DEAD, FRESH
from publisher.contract.records import EXPIRING
from publisher.resolver.cache import cache
from publisher.resolver.cache.cache import Cache
from publisher.resolver.config.settings import AUTO, REFUSE, SANDBOX, SIF, UNPACKED
from publisher.resolver.errors import (
    BlockedError,
    CacheError,
    DeadlineError,
    FetchError,
    HostError,
    OldManifestError,
    ReadError,
    SandboxError,
    UnknownImageError,
    UnsignedError,
)
from publisher.resolver.select import choice, facts, repository_path, sandbox
from publisher.resolver.select.choice import FormPolicy
from publisher.resolver.system import log
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.system.notes import Warnings
from publisher.resolver.system.outage import Outage
from publisher.resolver.transfer.open_source import network_options, open_source, sif_sources
from publisher.resolver.trust import lookup, manifest_loader
from publisher.resolver.trust.manifest_cache import ManifestCache
from publisher.resolver.trust.signature_cache import SignatureCache
from publisher.resolver.trust.signatures import load_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from publisher.contract.conditions import HostCapacity
    from publisher.contract.query import ImageQuery
    from publisher.contract.records import Sif
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.select.choice import FormChoice
    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.lookup import FoundVersion
    from publisher.resolver.trust.manifest_loader import TrustedManifest

_NAMES_TIME = 2.0  # seconds for reading the names of all images that this host knows
_MAX_AGE_FOR_UNKNOWN = 60.0  # seconds: a manifest without the requested image is fetched anew if it is older
_BLOCK_BYTES, _GUESSED_RATIO = 4096, 4
"""What each file takes more than its content, and how much larger than a SIF its content is, if nobody knows better."""
_FALLBACK_TIME, _MAX_FALLBACK_SHARE = 10.0, 0.25
"""What a SIF leaves for the form after it: seconds, and at most this share of the remaining time."""


class Resolution:
    """An image that is ready to be started.

    Attributes:
        form: ``sandbox``, ``sif``, or ``unpacked`` for a sandbox that was made from the SIF.
        path: absolute. Of a sandbox it is the directory itself, not the link with the name, which may move while the job runs.
        image: the version of the image; None if the manifest is too old to be trusted and the path was only found to exist.
        manifest: the manifest that was used.
        sif_source: where the SIF was fetched from just now, else empty.
        received: bytes that were fetched for it just now.
        copied: bytes that were copied for it from other SIFs of this host.
        why: why it has this form; empty if there was no choice.
    """

    __slots__ = ("copied", "form", "image", "manifest", "path", "received", "sif_source", "why")

    def __init__(self, form: str, path: str, image: FoundVersion | None, manifest: TrustedManifest, sif_source: str = "") -> None:
        self.form = form
        self.path = path
        self.image = image
        self.manifest = manifest
        self.sif_source = sif_source
        self.received = self.copied = 0
        self.why = ""

    def to_json(self, notes: Warnings) -> dict[str, Any]:
        """Return the resolution, what it is based on, and the notes, for programs. Unknown fields are null."""
        version = None if self.image is None else self.image.version
        sif = None if version is None or version.sif is None else version.sif
        return {
            "name": self.image and self.image.name,
            "form": self.form,
            "path": self.path,
            "arch": self.image and self.image.arch,
            "variant": self.image and self.image.variant,
            "digest": version and version.digest,
            "config": version and version.config,
            "sif": sif and {"sha256": sif.sha256, "size": sif.size},
            "state": version and version.state,
            "published": version and version.published,
            "since": version and version.since,
            "until": version and version.until,
            "signed": version and version.signed,
            "attached": version and version.attached,
            "sif_source": self.sif_source or None,
            "bytes": self.received,
            "copied": self.copied,
            "why": self.why,
            "manifest_source": self.manifest.source,
            "serial": self.manifest.index.serial,
            "manifest_age": self.manifest.age,
            "fork": notes.fork or None,
            "notes": notes.all,
        }


def resolve(
    text: str,
    settings: ResolverSettings,
    now: float,
    notes: Warnings,
    *,
    requested_form: str | None = None,
    test_failures: int = 0,
    until: float | None = None,
    starter: Starter | None = None,
) -> Resolution:
    """Find an image and make it ready to be started.

    Args:
        text: the image, in any spelling that :func:`publisher.resolver.trust.lookup.parse_query` accepts.
        settings: of the resolver.
        now: the time, seconds since the epoch.
        notes: receives the problems that did not prevent an answer.
        requested_form: the form that the job requests; None for the one of the settings.
        test_failures: how often Apptainer's test of this image failed in a row for this job.
        until: reading of the monotonic clock at which the caller gives up; None for no limit but those of the downloads.
        starter: the starter of the job that gets the image, for the pin; None for no pin.

    Raises:
        InvalidReferenceError, UnknownImageError, BlockedError: the user must act.
        ResolverUsageError: the configuration is wrong.
        ManifestError, FetchError, CacheError, HostError, ExpectedError: the host or the network failed.
    """
    directory = usable_cache(settings, notes)
    outage = Outage(directory and os.path.join(directory, "failures", "repository-hangs"))
    hung = outage.is_active()
    query, manifest, image = find_image(text, settings, now, notes, directory=directory, hung=hung)
    requested = requested_form or settings.form
    policy = FormPolicy(
        requested, settings.prefer, settings.never, by_job=requested_form is not None, test_failures=test_failures
    )
    if image is None:
        return _resolve_existing_path(query, settings, manifest, policy)
    if image.version.signed is None:
        raise_if_unsigned_is_refused(settings, f"no signature of the image {image.name} was verified")
    measured = facts.read(settings.facts, now)
    has_cache = settings.cache is not None or settings.store is not None
    choices = choice.choose_forms(image, policy, measured, hung=hung, has_cache=has_cache, unpacks=settings.unpacks)
    preparation = _Preparation(image, settings, manifest, outage, starter=starter, directory=directory)
    try:
        result = preparation.first_available(choices, notes, until)
    except SandboxError as error:
        if image.version.sif is None or measured.sif is not False:
            raise
        raise HostError(f"{error.reason}, and SIFs cannot be mounted on this host", hint=error.hint) from None
    log.info("resolved %s to the %s %s: %s", text, result.form, result.path, result.why)
    return result


def find_image(
    text: str, settings: ResolverSettings, now: float, notes: Warnings, *, directory: str | None, hung: bool = False
) -> tuple[ImageQuery, TrustedManifest, FoundVersion | None]:
    """Load the manifest and look up an image in it.

    Args:
        text: the image, in any spelling.
        settings: of the resolver.
        now: the time, seconds since the epoch.
        notes: receives the problems that did not prevent an answer.
        directory: the result of :func:`usable_cache`.
        hung: whether a sandbox of the repository could not be read in time a short while ago. The repository is then asked for
            the manifest only if there is no other source and no usable copy.

    Returns:
        The parsed text, the manifest, and the version of the image; None for that if the manifest is too old to be trusted.

    Raises:
        InvalidReferenceError, UnknownImageError, BlockedError: the user must act.
        ResolverUsageError: the configuration is wrong.
        OldManifestError: the manifest does not list the image, and a newer one may.
        ManifestError, ExpectedError: the host or the network failed.
    """
    query = lookup.parse_query(text, settings.roots)
    load = _manifest_loader(settings, now, notes, directory=directory, hung=hung)
    manifest = load(settings.refresh)
    result = None if manifest.age == DEAD else _look_up(query, settings, manifest)
    if isinstance(result, UnknownImageError) and not manifest.polled:
        manifest = load(min(settings.refresh, _MAX_AGE_FOR_UNKNOWN), wait=True)
        result = None if manifest.age == DEAD else _look_up(query, settings, manifest)
    if isinstance(result, UnknownImageError):
        raise result if manifest.age == FRESH and manifest.is_current else _old_manifest_error(result, manifest)
    if result is None:
        return query, manifest, None
    if result.version.state == EXPIRING and result.version.until is not None:
        day = time.strftime("%Y-%m-%d", time.gmtime(result.version.until))
        notes.warn(f"the image {result.name} will be removed on {day}")
    return query, manifest, result


def add_suggestions(error: UnknownImageError, text: str, settings: ResolverSettings, now: float) -> UnknownImageError:
    """Return the error for an unknown image with up to three similar names, as far as this host knows them."""
    from publisher.resolver.select import suggestions  # noqa: PLC0415 - the job is put on hold

    def work() -> bytes:
        query = lookup.parse_query(text, settings.roots)
        name = query.keys[0].partition("://")[2].partition("/")[2] if "://" in query.keys[0] else query.keys[0]
        manifest = _manifest_loader(settings, now, Warnings(), directory=usable_cache(settings, Warnings()))(settings.refresh)
        known = manifest.names(time.monotonic() + _NAMES_TIME)
        return suggestions.sentence(suggestions.similar(name, known)).encode()

    try:
        similar = ForkedCall(work).result(time.monotonic() + 2 * _NAMES_TIME).decode()
    except FetchError as failure:
        log.debug("no suggestions for %s: %s", text, failure)
        return error
    return UnknownImageError(f"{error.reason}{similar}", hint=error.hint)


def load_manifest(settings: ResolverSettings, now: float, notes: Warnings) -> TrustedManifest:
    """Ask all sources of the manifest now, and remember the one with the highest serial. Raise as :func:`find_image` does."""
    return _manifest_loader(settings, now, notes, directory=usable_cache(settings, notes))(0.0, wait=True)


def _manifest_loader(
    settings: ResolverSettings, now: float, notes: Warnings, *, directory: str | None, hung: bool = False
) -> Callable[..., TrustedManifest]:
    """Return a function that loads the manifest: ``load(refresh, wait=False)``. See :func:`find_image` for the arguments."""
    sources = _manifest_sources(settings, now, directory, hung=hung)
    keys = load_keys(settings.keys)
    path = directory and os.path.join(directory, "manifest", settings.name)
    copies = None if path is None else ManifestCache(path)
    verify = SignatureCache(path and os.path.join(path, "verified")).verify

    def load(refresh: float, *, wait: bool = False) -> TrustedManifest:
        return manifest_loader.load(
            sources,
            copies,
            keys=keys,
            repository=settings.name,
            now=now,
            notes=notes,
            verify=verify,
            refresh=refresh,
            wait=wait,
            refuse_forks=settings.forks == REFUSE,
            accepts_expired=settings.accepts_lone_expired,
        )

    return load


def _old_manifest_error(error: UnknownImageError, manifest: TrustedManifest) -> ManifestError:
    """Return the error for an image that the manifest does not list, if a newer manifest may list it."""
    kind = OldManifestError if type(error) is UnknownImageError else ManifestError
    origin = f"the manifest with serial {manifest.index.serial} from {manifest.source}"
    return kind(f"{error.reason}, according to {origin}, and no newer manifest can be fetched")


def _manifest_sources(settings: ResolverSettings, now: float, directory: str | None, *, hung: bool) -> list[Source]:
    """Return the sources of the manifest; those in the repository share one outage."""
    network = network_options(settings)
    sources = [open_source(address, network) for address in settings.manifests]
    outage = Outage(directory and os.path.join(directory, "failures", "manifest-hangs"))
    suspected_hang = hung or facts.read(settings.facts, now).cvmfs is False or outage.is_active()
    for source in sources:
        if f"{source.label}/".startswith(f"{settings.repository}/"):
            source.outage, source.suspected_hang = outage, suspected_hang
    return sources


def _look_up(query: ImageQuery, settings: ResolverSettings, manifest: TrustedManifest) -> FoundVersion | UnknownImageError:
    """Return the version of the image, or the error that the manifest does not list it."""
    try:
        return _find(query, settings, manifest)
    except UnknownImageError as error:
        return error


def _find(query: ImageQuery, settings: ResolverSettings, manifest: TrustedManifest) -> FoundVersion:
    """Return the version of the image for this host; raise as :func:`publisher.resolver.trust.lookup.find_version` does."""

    def host() -> HostCapacity:
        from publisher.resolver.select import capacity  # noqa: PLC0415 - few images have variants

        return capacity.read(settings.arch, os.environ)

    return lookup.find_version(query, settings.arch, manifest.record, host)


def raise_if_unsigned_is_refused(settings: ResolverSettings, why: str) -> None:
    """Raise UnsignedError, with the reason ``why``, if this host refuses images without a verified signature."""
    if settings.unsigned == REFUSE:
        raise UnsignedError(f"{why}, and this host refuses such images")


def find_unlisted(text: str, settings: ResolverSettings, now: float, notes: Warnings) -> str | None:
    """Return the directory of a sandbox that no manifest lists; None if the path is not in the repository or does not open.

    Raises:
        SandboxError: the path does not open in time, so that it is unknown whether it exists.
        BlockedError: the path has the data of a blocked image.
    """
    directory = usable_cache(settings, notes)
    try:
        path = lookup.parse_query(text, settings.roots).path
        if path is None or settings.never == SANDBOX or settings.form == SIF or settings.unsigned == REFUSE:
            return None
        return repository_path.open_unlisted(
            path, settings, lambda build: find_image(build, settings, now, notes, directory=directory)
        )
    except BlockedError:
        raise
    except (DeadlineError, ReadError) as error:
        raise SandboxError(
            f"no manifest lists {text!r}, and the repository does not answer whether the path exists: {error}",
            hint="check CVMFS on the host",
        ) from None
    except ExpectedError:
        return None


def usable_cache(settings: ResolverSettings, notes: Warnings) -> str | None:
    """Return the directory of the cache, or None without a safe one: that must not keep a job from a sandbox."""
    if settings.cache is not None:
        try:
            Cache(settings.cache).prepare()
        except CacheError as error:
            notes.warn(str(error))
            return None
    return settings.cache


class _Preparation:
    """A version of an image that is made ready in one form or another."""

    def __init__(
        self,
        image: FoundVersion,
        settings: ResolverSettings,
        manifest: TrustedManifest,
        outage: Outage,
        *,
        starter: Starter | None,
        directory: str | None,
    ) -> None:
        self._image = image
        self._directory = directory
        self._starter = starter
        self._settings = settings
        self._manifest = manifest
        self._outage = outage

    def first_available(self, choices: Sequence[FormChoice], notes: Warnings, until: float | None) -> Resolution:
        """Return the first form that can be made ready.

        Raises:
            ExpectedError: no form can. Of several forms the reason names every one's, and the class is that of the last one which
                is not the sandbox: a broken sandbox is no reason while the image has another form.
        """
        problems: list[ExpectedError] = []
        for candidate in choices:
            end = until if candidate is choices[-1] else _leave_time_for_fallback(until)
            try:
                if candidate.form == SANDBOX:
                    resolution = self._open_sandbox()
                else:
                    resolution = self._ensure_sif(end, notes, unpacked=candidate.form == UNPACKED)
            except ExpectedError as error:
                notes.add(str(error))
                problems.append(error)
            else:
                resolution.why = candidate.why
                return resolution
        if len(problems) == 1:
            raise problems[0]
        cause = next((problem for problem in reversed(problems) if not isinstance(problem, SandboxError)), problems[-1])
        raise type(cause)(f"no form of the image {self._image.name} is available: {'; '.join(map(str, problems))}")

    def _open_sandbox(self) -> Resolution:
        path = os.path.join(self._settings.repository, str(self._image.version.sandbox))
        try:
            sandbox.open_directory(path, self._directory)
        except FetchError as error:
            if isinstance(error, (DeadlineError, ReadError)):
                self._outage.begin()
            raise SandboxError(f"the sandbox {path} cannot be opened: {error}") from None
        self._outage.end()
        return Resolution(SANDBOX, path, self._image, self._manifest)

    def _ensure_sif(self, until: float | None, notes: Warnings, *, unpacked: bool) -> Resolution:
        sif = self._image.version.sif
        if sif is None:
            raise ValueError("choose_forms() never offers a SIF that is not published")
        path = self._find_in_store(sif.sha256, notes)
        if unpacked:
            return self._ensure_unpacked(sif, path, until)
        if path is not None:
            if self._settings.cache is not None:
                from publisher.resolver.cache import counters  # noqa: PLC0415 - small, and no sandbox needs it

                counters.count_hit(self._settings.cache)
            return Resolution(SIF, path, self._image, self._manifest)
        sources = sif_sources(self._settings)
        target = cache.from_settings(self._settings)
        path, fetched_from = target.ensure(sif, sources, until=until, starter=self._starter)
        return self._with_traffic(Resolution(SIF, path, self._image, self._manifest, fetched_from), target)

    def _ensure_unpacked(self, sif: Sif, path: str | None, until: float | None) -> Resolution:
        """Return the sandbox that is made from the SIF; ``path`` is that of the SIF in the store, None if it is not there."""
        settings, version = self._settings, self._image.version
        size = unpacked_size(sif.size, version.unpacked_size, version.files)
        target = cache.from_settings(settings)
        path, fetched_from = target.ensure_unpacked(
            sif,
            sif_sources(settings),
            size,
            until=until,
            starter=self._starter,
            path=path,
            apptainer=settings.apptainer,
        )
        return self._with_traffic(Resolution(UNPACKED, path, self._image, self._manifest, fetched_from), target)

    @staticmethod
    def _with_traffic(resolution: Resolution, target: Cache) -> Resolution:
        resolution.received, resolution.copied = target.received, target.copied
        return resolution

    def _find_in_store(self, sha256: str, notes: Warnings) -> str | None:
        """Return the path of a SIF in the host's store, or None if the store does not have it or cannot be trusted."""
        if self._settings.store is None:
            return None
        from publisher.resolver.cache import shared  # noqa: PLC0415 - few sites have a store

        try:
            return shared.find(self._settings.store, self._settings.store_owner, sha256, self._starter)
        except (OSError, CacheError) as error:
            notes.warn(str(error))
            return None


def unpacked_size(size: int, contents: int = 0, files: int = 0) -> int:
    """Return the bytes that a SIF of ``size`` bytes takes on disk at most when it is unpacked.

    Args:
        size: of the SIF.
        contents: bytes of all files in it, 0 if unknown.
        files: number of everything in it, 0 if unknown.
    """
    return contents + _BLOCK_BYTES * files if contents else _GUESSED_RATIO * size


def _leave_time_for_fallback(until: float | None) -> float | None:
    """Return when to give up on a form, so that some time is left for the next one."""
    return None if until is None else until - min(_FALLBACK_TIME, _MAX_FALLBACK_SHARE * max(0.0, until - time.monotonic()))


def _resolve_existing_path(
    query: ImageQuery, settings: ResolverSettings, manifest: TrustedManifest, policy: FormPolicy
) -> Resolution:
    """Return the sandbox at a path of the repository if it exists: all that can be done with a manifest that is too old.

    Raises:
        ManifestError: the text is not a path of the repository, the path does not open or has the data of an image that was
            blocked, or a sandbox is not wanted.
    """

    def look_up(build: str) -> FoundVersion:
        return _find(lookup.parse_query(build, settings.roots), settings, manifest)

    raise_if_unsigned_is_refused(settings, f"the manifest is too old to say who signed {query.text!r}")
    if query.path is not None and policy.requested in (AUTO, SANDBOX) and policy.never != SANDBOX:
        try:
            path = repository_path.open_unlisted(query.path, settings, look_up)
            return Resolution(SANDBOX, path, None, manifest)
        except FetchError:
            pass
        except BlockedError as error:
            raise ManifestError(
                f"{error.reason}, according to the manifest (serial {manifest.index.serial}), which is too old"
            ) from None
    raise ManifestError(
        f"the manifest (serial {manifest.index.serial}) is too old to be trusted, so {query.text!r} cannot be looked up",
        hint="check that this host can fetch a current manifest, and that its clock is right",
    )
