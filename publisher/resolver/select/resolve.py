"""From the name of an image to a path that a job can start: load the manifest, find the image, choose a form, make it ready."""

from __future__ import annotations

import os
import time

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import DEAD, FRESH
from publisher.contract.records import EXPIRING
from publisher.resolver.cache.cache import Cache
from publisher.resolver.config.settings import REFUSE, SANDBOX
from publisher.resolver.errors import CacheError, HostError, OldManifestError, SandboxError, UnknownImageError, UnsignedError
from publisher.resolver.select import choice, facts
from publisher.resolver.select.choice import FormPolicy
from publisher.resolver.select.preparation import Preparation, Resolution
from publisher.resolver.system import log
from publisher.resolver.system.outage import Outage
from publisher.resolver.transfer.open_source import network_options, open_source
from publisher.resolver.trust import lookup, manifest_loader
from publisher.resolver.trust.manifest_cache import ManifestCache
from publisher.resolver.trust.signature_cache import SignatureCache
from publisher.resolver.trust.signatures import load_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.contract.conditions import HostCapacity
    from publisher.contract.query import ImageQuery
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.system.notes import Warnings
    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.lookup import FoundVersion
    from publisher.resolver.trust.manifest_loader import TrustedManifest

_MAX_AGE_FOR_UNKNOWN = 60.0  # seconds: a manifest without the requested image is fetched anew if it is older


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
    preparation = Preparation(image, settings, manifest, outage, starter=starter, directory=directory)
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


def load_manifest(
    settings: ResolverSettings, now: float, notes: Warnings, *, refresh: float = 0.0, wait: bool = True
) -> TrustedManifest:
    """Load the manifest with the highest serial, and remember it.

    Args:
        settings: of the resolver.
        now: the time, seconds since the epoch.
        notes: receives the problems that did not change the result.
        refresh: seconds between two polls of the sources in the network; 0 polls them now.
        wait: wait for another process that polls them.

    Raises:
        ManifestError, ExpectedError: the host or the network failed.
    """
    return _manifest_loader(settings, now, notes, directory=usable_cache(settings, notes))(refresh, wait=wait)


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


def usable_cache(settings: ResolverSettings, notes: Warnings) -> str | None:
    """Return the directory of the cache, or None without a safe one: that must not keep a job from a sandbox."""
    if settings.cache is not None:
        try:
            Cache(settings.cache).prepare()
        except CacheError as error:
            notes.warn(str(error))
            return None
    return settings.cache


def _resolve_existing_path(
    query: ImageQuery, settings: ResolverSettings, manifest: TrustedManifest, policy: FormPolicy
) -> Resolution:
    """Return the sandbox at a path of the repository if it exists: all that can be done with a manifest that is too old.

    Raises:
        ManifestError: see :func:`publisher.resolver.select.repository_path.open_with_old_manifest`.
    """
    from publisher.resolver.select import repository_path  # noqa: PLC0415 - the manifest is rarely too old

    def look_up(build: str) -> FoundVersion:
        return _find(lookup.parse_query(build, settings.roots), settings, manifest)

    raise_if_unsigned_is_refused(settings, f"the manifest is too old to say who signed {query.text!r}")
    path = repository_path.open_with_old_manifest(query, settings, policy, manifest.index.serial, look_up)
    return Resolution(SANDBOX, path, None, manifest)
