"""Decide what a job gets: a published image in the form that suits this host, its own image unchanged, or a failure.

A name that the manifest lists becomes the path of a sandbox, or of a SIF in the cache. Other images that HTCondor may start
anyway (another registry's image, a path or URL elsewhere, a file that came with the job) are passed on, or fetched if the site
allows it. A URL that Apptainer cannot open is not passed on, since the job would fail again and again.
"""

from __future__ import annotations

import os

from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.contract.query import is_plain_path
from publisher.contract.records import NO_SHELL
from publisher.resolver.cache import cache
from publisher.resolver.config.settings import FORMS, PASS, PULL, SIF, UNPACKED
from publisher.resolver.errors import (
    BlockedError,
    FormError,
    HostError,
    OldManifestError,
    ShellError,
    UnknownImageError,
)
from publisher.resolver.hook import decision, statuses
from publisher.resolver.hook.decision import Decision
from publisher.resolver.hook.job import name_to_look_up
from publisher.resolver.select import facts, preparation, resolve
from publisher.resolver.transfer.sources import public_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.hook.job import Job
    from publisher.resolver.select.preparation import Resolution
    from publisher.resolver.system.notes import Warnings

_DOCKER, _SCHEME = "docker://", "://"
_APPTAINER_SCHEMES = frozenset(
    ("docker", "docker-archive", "docker-daemon", "http", "https", "instance", "library", "oci", "oci-archive", "oras", "shub")
)
"""Schemes that Apptainer 1.4 opens; for any other it reports "Unsupported transport type"."""


def decide(job: Job, settings: ResolverSettings, *, scratch: str, now: float, until: float, notes: Warnings) -> Decision:
    """Return what a job gets.

    Args:
        job: the job.
        settings: of the resolver.
        scratch: directory of the job, which has the files that HTCondor transferred.
        now: the time, seconds since the epoch.
        until: reading of the monotonic clock at which the hook gives up.
        notes: receives the problems that did not prevent an answer.
    """
    result = _decide(job, settings, scratch=scratch, now=now, until=until, notes=notes)
    for text in (job.written_image, job.image):  # a query of a URL may have a token
        result.replace(text, public_address(text))
    return result


def _decide(job: Job, settings: ResolverSettings, *, scratch: str, now: float, until: float, notes: Warnings) -> Decision:
    """Return what a job gets, with the image as the job names it."""
    if job.bypass_project and job.bypass_project in settings.bypass_projects:
        return Decision("", f"container_bypass is true, and the site lets jobs of {job.bypass_project} leave their container")
    if job.unreadable:
        names = " and ".join(job.unreadable)
        reason = f"{names} of the job is not one string, so the image cannot be determined"
        return decision.fail("", InvalidReferenceError(reason, hint="put the name of the image in quotes"))
    if job.image:
        return _JobDecision(job, settings, now, until=until, notes=notes).decide(scratch)
    if not (settings.default_image and job.takes_default):
        return Decision("", "the job names no image")
    job.image = job.written_image = settings.default_image
    result = _JobDecision(job, settings, now, until=until, notes=notes).decide(None)
    if statuses.OK < result.code < statuses.FIRST_HOST_STATUS:  # the user cannot fix the site's own choice
        result.code, result.message = statuses.CONFIGURATION, f"the site's default image cannot be used: {result.message}"
    return result


class _JobDecision:
    """The decision about a job that names an image, or got the site's default image."""

    def __init__(self, job: Job, settings: ResolverSettings, now: float, *, until: float, notes: Warnings) -> None:
        self._job = job
        self._settings = settings
        self._now = now
        self._until = until
        self._notes = notes

    def decide(self, scratch: str | None) -> Decision:
        """Return what the job gets; see :func:`decide`."""
        job = self._job
        name = name_to_look_up(job.written_image)
        try:
            if scratch is not None and _was_transferred(job.image, scratch):
                inside = self._name_in_repository(os.path.join(scratch, job.image))
                if inside is not None:  # a link into it
                    return self._resolve(inside)
                resolve.raise_if_unsigned_is_refused(
                    self._settings, f"{job.image} came with the job, without a verified signature"
                )
                if name != job.written_image:  # a published SIF, which may have been blocked since
                    self._raise_if_blocked(name)
                return decision.pass_on(job, "HTCondor transferred it with the job")
            inside = self._name_in_repository(name) if name.startswith("/") else None
            is_elsewhere = name.startswith("/") or (_SCHEME in name and not name.startswith(_DOCKER))
            if inside is None and is_elsewhere:
                return self._handle_unlisted(f"{job.image} is not in the repository {self._settings.name}")
            return self._resolve(inside or name)
        except ExpectedError as error:
            if type(error) is UnknownImageError and _SCHEME not in name:
                from publisher.resolver.select import suggestions  # noqa: PLC0415 - the job is put on hold

                error = suggestions.add_suggestions(error, name, self._settings, self._now)
            return decision.fail(job.image, error)

    def _resolve(self, name: str) -> Decision:
        """Return the published image, or what replaces it if the manifest does not list it. Raise ExpectedError."""
        job = self._job
        if job.form and job.form not in FORMS:
            raise FormError(f"WantImageForm is {job.form!r}, which is not a form", hint=f"use one of {', '.join(FORMS)}")
        try:
            resolution = resolve.resolve(
                name,
                self._settings,
                self._now,
                self._notes,
                requested_form=job.form or None,
                test_failures=job.test_failures,
                until=self._until,
                starter=job.starter,
            )
        except ManifestError as error:
            if job.image.startswith(_DOCKER):
                return self._handle_unlisted(str(error))
            path = self._find_unlisted(name) if isinstance(error, OldManifestError) else None
            if path is None:
                raise
            return decision.start_unlisted(job.image, f"the sandbox exists, although {error}", path)
        except UnknownImageError as error:
            if type(error) is not UnknownImageError:
                raise
            if _SCHEME in job.written_image:
                return self._handle_unlisted(str(error))
            path = self._find_unlisted(name)
            if path is None and "/" not in job.image:
                raise UnknownImageError(f"{error.reason}, and no such file came with the job", hint=error.hint) from None
            if path is None:
                raise
            return decision.start_unlisted(job.image, f"the sandbox exists, although {error}", path)
        self._check_shell(resolution)
        return decision.start_published(job.image, resolution, says_why=job.test_failures > 0)

    def _check_shell(self, resolution: Resolution) -> None:
        """Note that an image has no shell. Raise ShellError if HTCondor's test of the image has sent the job back."""
        found = resolution.image
        if found is None or found.version.notes.get("test") != NO_SHELL:
            return
        if self._job.test_failures:
            raise ShellError(f"HTCondor's test of the image {found.name} fails on every host: {NO_SHELL}")
        self._notes.warn(f"{NO_SHELL}, so HTCondor's test of it fails unless the site has switched that test off")

    def _find_unlisted(self, name: str) -> str | None:
        """Return the sandbox at a path if it exists although no manifest lists it; else None. Raise BlockedError."""
        if self._job.form == SIF:
            return None
        from publisher.resolver.select import repository_path  # noqa: PLC0415 - a published image has no need of it

        directory = resolve.usable_cache(self._settings, self._notes)
        return repository_path.find_unlisted(
            name,
            self._settings,
            lambda build: resolve.find_image(build, self._settings, self._now, self._notes, directory=directory),
        )

    def _name_in_repository(self, path: str) -> str | None:
        """Return the path as one of the repository; None if it leads elsewhere, or nobody can tell in time."""
        if is_plain_path(path, self._settings.roots):
            return path
        from publisher.resolver.select import repository_path  # noqa: PLC0415 - most paths are plainly of the repository

        return repository_path.name_in_repository(path, self._settings)

    def _handle_unlisted(self, why: str) -> Decision:
        """Return what a job gets whose image no manifest lists: passed on, or fetched if allowed. Raise ExpectedError."""
        job, settings = self._job, self._settings
        resolve.raise_if_unsigned_is_refused(settings, why)
        if settings.unknown == PASS:
            return self._pass_on(why)
        from publisher.resolver.select import foreign, image_pull  # noqa: PLC0415 - few sites allow it

        is_pulled = settings.unknown == PULL and image_pull.is_pullable(job.written_image)
        if is_pulled and job.has_registry_credentials:
            return self._pass_on(f"{why}, and the job has credentials for its registry, which are for this job alone")
        if not is_pulled and not foreign.is_fetchable(job.written_image):
            return self._pass_on(why)
        if settings.never == SIF or settings.cache is None:
            return self._pass_on(f"{why}, and this host has no cache for SIFs or never starts them", HostError)
        form = UNPACKED if facts.read(settings.facts, self._now).sif is False else SIF
        if form == UNPACKED and not settings.unpacks:
            return self._pass_on(f"{why}, and SIFs cannot be mounted on this host", HostError)
        url = image_pull.canonical(job.written_image) if is_pulled else job.written_image
        sif, path, fetched_from = foreign.ensure(url, settings, now=self._now, until=self._until, starter=job.starter)
        self._raise_if_blocked(f"sha256:{sif.sha256}")
        if form == UNPACKED:
            path, _ = cache.from_settings(settings).ensure_unpacked(
                sif,
                [],
                preparation.unpacked_size(sif.size),
                until=self._until,
                starter=job.starter,
                path=path,
                apptainer=settings.apptainer,
            )
        if is_pulled:
            from publisher.resolver.cache import candidates  # noqa: PLC0415 - as above

            candidates.count(settings.cache, url)
        return decision.start_foreign(
            job.image, why, sif, form=form, path=path, fetched_from=fetched_from, is_candidate=is_pulled
        )

    def _pass_on(self, why: str, error: type[ExpectedError] = UnknownImageError) -> Decision:
        """Leave the image to Apptainer; raise ``error`` if Apptainer cannot open it and HTCondor did not transfer it."""
        scheme, mark, _ = self._job.image.partition(_SCHEME)
        if mark and scheme.lower() not in _APPTAINER_SCHEMES:
            reason = f"{why}; it did not come with the job, and Apptainer cannot open {scheme}:// URLs"
            raise error(reason, hint="set it as container_image in the container universe, so that HTCondor transfers it")
        return decision.pass_on(self._job, why)

    def _raise_if_blocked(self, name: str) -> None:
        """Raise BlockedError if the manifest says that the image is blocked; ignore every other failure."""
        directory = resolve.usable_cache(self._settings, self._notes)
        try:
            resolve.find_image(name, self._settings, self._now, self._notes, directory=directory)
        except BlockedError:
            raise
        except ExpectedError as error:
            self._notes.add(str(error))


def _was_transferred(image: str, scratch: str) -> bool:
    """Return whether an image is a file or directory that HTCondor transferred with the job."""
    return (
        _SCHEME not in image
        and not image.startswith("/")
        and ".." not in image.split("/")
        and os.path.exists(os.path.join(scratch, image))
    )
