"""What a job gets: its image in the form that serves it here, its own name of it untouched, or a failure.

A name that the manifest knows becomes the path of a sandbox or of a SIF in the cache. What it does not know, and HTCondor may
start all the same (another registry's image, a path or URL elsewhere, a file that came with the job), is passed on, or fetched
where the site wants that and it can be. A URL that Apptainer cannot open is not passed on: the job would fail again and again.
"""

from __future__ import annotations

import os

from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.resolver.config.settings import FORMS, PASS, SIF
from publisher.resolver.errors import BlockedError, FormError, HostError, OldManifestError, UnknownImageError
from publisher.resolver.hook import decision, statuses
from publisher.resolver.hook.decision import Decision
from publisher.resolver.hook.job import named
from publisher.resolver.select import facts, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.hook.job import Job
    from publisher.resolver.system.notes import Warnings

_DOCKER, _SCHEME = "docker://", "://"
_OPENED = frozenset(
    ("docker", "docker-archive", "docker-daemon", "http", "https", "instance", "library", "oci", "oci-archive", "oras", "shub")
)
"""Schemes that Apptainer 1.4 opens; of every other it says "Unsupported transport type"."""


def decide(job: Job, settings: ResolverSettings, *, scratch: str, now: float, until: float, notes: Warnings) -> Decision:
    """What a job gets.

    Args:
        job: the job.
        settings: where things are, and the site's policy.
        scratch: the job's directory, where files that came with it are.
        now: this host's clock, seconds since the epoch.
        until: reading of the monotonic clock at which the hook gives up.
        notes: gets what is worth saying beside the answer.
    """
    if job.unreadable:
        names = " and ".join(job.unreadable)
        return decision.failed(
            "", InvalidReferenceError(f"no image's name stands in {names}", hint="a name has quotes around it")
        )
    if job.image:
        return _Case(job, settings, now, until=until, notes=notes).decided(scratch)
    if not (settings.default_image and job.takes_default):
        return Decision("", "the job names no image")
    job.image = job.written = settings.default_image
    found = _Case(job, settings, now, until=until, notes=notes).decided(None)
    if statuses.OK < found.code < statuses.FIRST_OF_HOST:  # no user can mend the site's own choice
        found.code, found.message = statuses.CONFIGURATION, f"the site's default image: {found.message}"
    return found


class _Case:
    """A job that names an image, or was given the site's."""

    def __init__(self, job: Job, settings: ResolverSettings, now: float, *, until: float, notes: Warnings) -> None:
        self._job = job
        self._settings = settings
        self._now = now
        self._until = until
        self._notes = notes

    def decided(self, scratch: str | None) -> Decision:
        """What it gets; see :func:`decide`."""
        job = self._job
        name = named(job.written)
        try:
            if scratch is not None and _came_along(job.image, scratch):
                if name != job.written:  # a SIF of ours: it may have been taken down since
                    self._refuse_blocked(name)
                return decision.untouched(job, "it came with the job")
            if self._is_elsewhere(name):
                return self._unknown("the manifest is not about it")
            return self._known(name)
        except ExpectedError as error:
            return decision.failed(job.image, error)

    def _known(self, name: str) -> Decision:
        """What the manifest gives, or what there is instead. Raises ExpectedError."""
        job = self._job
        if job.form and job.form not in FORMS:
            raise FormError(f"WantImageForm is {job.form!r}, and can be {', '.join(FORMS)}")
        try:
            answer = resolve.resolve(
                name, self._settings, self._now, self._notes, asked=job.form or None, until=self._until, starter=job.starter
            )
        except ManifestError as error:
            if job.image.startswith(_DOCKER):
                return self._unknown(str(error))
            path = self._unlisted() if isinstance(error, OldManifestError) else None
            if path is None:
                raise
            return decision.unlisted(job.image, f"{error}, but it is there", path)
        except UnknownImageError as error:
            if type(error) is not UnknownImageError:
                raise
            if _SCHEME in job.written:
                return self._unknown(str(error))
            path = self._unlisted()
            if path is None and "/" not in job.image:
                raise UnknownImageError(f"{error.reason}, and no such file came with the job", hint=error.hint) from None
            if path is None:
                raise
            return decision.unlisted(job.image, f"{error}, but it is there", path)
        return decision.found(job.image, answer)

    def _unlisted(self) -> str | None:
        """The sandbox that the job's path leads to though no manifest has it, None where there is none."""
        return None if self._job.form == SIF else resolve.unlisted(self._job.image, self._settings)

    def _unknown(self, why: str) -> Decision:
        """A name that only others know: passed on, or fetched where the site wants that. Raises ExpectedError."""
        job, settings = self._job, self._settings
        if settings.unknown == PASS:
            return self._passed_on(why)
        from publisher.resolver.select import foreign  # noqa: PLC0415 - few sites want it

        if not foreign.is_fetchable(job.written):
            return self._passed_on(why)
        if settings.never == SIF or settings.cache is None:
            return self._passed_on(f"{why}, and SIFs are not to be had here", HostError)
        if facts.read(settings.facts, self._now).sif is False:
            return self._passed_on(f"{why}, and SIFs do not run here without being unpacked", HostError)
        sif, path, came_from = foreign.fetched(job.written, settings, now=self._now, until=self._until, starter=job.starter)
        self._refuse_blocked(f"sha256:{sif.sha256}")
        return decision.foreign(job.image, why, sif, path=path, came_from=came_from)

    def _passed_on(self, why: str, otherwise: type[ExpectedError] = UnknownImageError) -> Decision:
        """The job's own name, for Apptainer. Raises ``otherwise`` where that cannot open it and HTCondor has not brought it."""
        scheme, mark, _ = self._job.image.partition(_SCHEME)
        if mark and scheme.lower() not in _OPENED:
            reason = f"{why}; the job did not bring {self._job.image}, and Apptainer opens no {scheme}://"
            raise otherwise(reason, hint="container_image = … in the container universe has HTCondor bring it")
        return decision.untouched(self._job, why)

    def _is_elsewhere(self, name: str) -> bool:
        """Whether a name cannot be one of the manifest's: a URL that is no SIF of ours, a path outside the repository."""
        if name.startswith("/"):
            return not any(f"{name}/".startswith(f"{root}/") for root in self._settings.roots)
        return _SCHEME in name and not name.startswith(_DOCKER)

    def _refuse_blocked(self, name: str) -> None:
        """Others' files are their own affair, unless the manifest says that nobody may run them. Raises BlockedError."""
        directory = resolve.usable_cache(self._settings, self._notes)
        try:
            resolve.find(name, self._settings, self._now, self._notes, directory=directory)
        except BlockedError:
            raise
        except ExpectedError as error:
            self._notes.add(str(error))


def _came_along(image: str, scratch: str) -> bool:
    """Whether a name is a file or directory among those that came with the job."""
    return _SCHEME not in image and not image.startswith("/") and os.path.exists(os.path.join(scratch, image))
