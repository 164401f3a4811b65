"""Builds in an HTCondor pool: one job for each SIF, submitted to this host's schedd and known by attributes of its ad.

The pool is not trusted: what comes back is verified (:mod:`publisher.builders.returned`), and a share of the images, which no
machine can foresee, is built again on this host and compared.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from publisher.build.builder import Builder, BuildRequest
from publisher.builders import returned
from publisher.builders.orders import BUILT, FAILED, UNSUITABLE, JobError, JobReport
from publisher.builders.pool_build import PoolBuild
from publisher.builders.pool_jobs import PoolJobs
from publisher.errors import CommandError, PublisherError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from publisher.build.local import LocalBuilder
    from publisher.builders.jobs import JobQueue
    from publisher.builders.machines import MachineMemory
    from publisher.builders.pool_build import Progress
    from publisher.builders.pool_jobs import PoolOptions
    from publisher.builders.sample import Sample
    from publisher.state.built import BuiltImage
    from publisher.targets.origins.job_uploads import JobUploads

_log = logging.getLogger(__name__)


class CondorBuilder(Builder):
    """A builder that makes SIFs by jobs of an HTCondor pool; many threads may call it.

    Args:
        local: the builder of this host: for private images and the sample; finished builds are kept in its directory.
        queue: the queue of the access point.
        directory: the directory of the jobs' files, which the jobs' account can enter.
        options: how the pool is used.
        with_layers: fetches the layers of a request to this host.
        machines: what is remembered of machines.
        sample: which images are built again.
        uploads: where jobs upload their SIFs, None if they return them by file transfer.
        clock: returns seconds since the epoch, as the schedd's host has them.

    Attributes:
        options: how the pool is used.
    """

    wants_layers = False

    def __init__(
        self,
        local: LocalBuilder,
        queue: JobQueue,
        directory: Path,
        options: PoolOptions,
        *,
        with_layers: Callable[[BuildRequest], BuildRequest],
        machines: MachineMemory,
        sample: Sample,
        uploads: JobUploads | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.parallel = options.jobs
        self.options = options
        self._local = local
        self._jobs = PoolJobs(queue, directory, options, avoided=machines.avoided, uploads=uploads, clock=clock)
        self._uploads = uploads
        self._with_layers = with_layers
        self._machines = machines
        self._sample = sample
        self._checks = threading.BoundedSemaphore(options.checks)
        self._notes: list[str] = []

    def build(self, request: BuildRequest, progress: Progress) -> BuiltImage:
        """Build one image as :meth:`publisher.build.builder.Builder.build` describes.

        A private image is built on this host: credentials do not leave it. So is what needs no SIF to be made: a finished SIF is
        checked, and of an image that is wanted as a sandbox alone only the file index is written.

        Raises:
            UnavailableError: the pool did not build it.
        """
        build = PoolBuild(request, _content(request), progress)
        self._jobs.enter(build)
        try:
            finished = self._local.finished(request)
            if finished is not None:
                return finished
            if request.private or request.reference is None or request.image.is_sif or not request.sif:
                return self._build_here(request, progress)
            return self._build_in_pool(build)
        except PublisherError as error:
            error.image = request.name
            raise
        finally:
            self._jobs.leave(build)

    def stop(self) -> None:
        """See :meth:`publisher.build.builder.Builder.stop`. The jobs go on, and the next run finds them."""
        self._jobs.stop()
        self._local.stop()

    def discard(self, request: BuildRequest) -> None:
        """See :meth:`publisher.build.builder.Builder.discard`."""
        self._local.discard(request)
        self._jobs.release_upload(_content(request))

    def sweep(self, wanted: Collection[str], unknown: Collection[str] = ()) -> None:
        """See :meth:`publisher.build.builder.Builder.sweep`; so are the jobs of other images removed, and their directories."""
        self._local.sweep(wanted, unknown)
        self._jobs.sweep({digest.removeprefix("sha256:") for digest in wanted}, unknown)

    def close(self) -> None:
        """See :meth:`publisher.build.builder.Builder.close`. Jobs of unfinished builds stay for the next run."""
        with contextlib.suppress(CommandError):  # the next run sweeps
            self._jobs.ask()

    def take_notes(self) -> list[str]:
        """See :meth:`publisher.build.builder.Builder.take_notes`."""
        notes, self._notes = self._notes, []
        return notes

    def _build_here(self, request: BuildRequest, progress: Progress) -> BuiltImage:
        with self._checks:
            return self._local.build(self._with_layers(request), progress)

    def _build_in_pool(self, build: PoolBuild) -> BuiltImage:
        while True:
            directory = self._jobs.wait(build)
            try:
                report = returned.read_report(directory)
                result = self._judge(build, directory, report)
            except JobError as error:
                words = returned.last_words(directory)
                build.note_failure(f"{error.reason} (its last line: {words})" if words else error.reason)
                result = None
            if result is not None:
                return result
            self._jobs.drop(build)

    def _judge(self, build: PoolBuild, directory: Path, report: JobReport) -> BuiltImage | None:
        """Return the build that a job has returned, None if the image has to be built again.

        Raises:
            JobError: the job's files are not what they should be.
            PublisherError: the image cannot be built.
        """
        if report.outcome == UNSUITABLE:
            self._avoid(build)
            build.note_unsuitable(report.reason)
            return None
        error = report.error() if report.outcome == FAILED else None
        if error is not None:
            build.note_refusal(error)
            return None
        if report.outcome != BUILT:
            raise JobError(f"{report.kind}: {report.reason}")
        if report.upload_problem:
            _log.warning(
                "%s could not upload %s, which came by file transfer: %s", build.where, build.request.name, report.upload_problem
            )
        if self._machines.is_excluded(build.machine):
            raise JobError("this machine is excluded")
        return self._accept(build, directory, report)

    def _accept(self, build: PoolBuild, directory: Path, report: JobReport) -> BuiltImage:
        """Return a build that is verified, or built again and compared where the image is in the sample."""
        request = build.request
        if self._sample.has(request.image.content):
            build.progress("build again", 0, 1)
            own = self._build_here(request, build.progress)
            if (self._digest(directory, report), report.build["sha256"]) == (own.sha256, own.sha256):
                self._machines.remember(build.machine, request.name)
            else:
                self._exclude(build, report.build["sha256"], own.sha256)
            return own
        build.progress("verify", 0, 1)
        with self._checks:
            step = self.options.step
            verified = self._local.import_build(
                request,
                lambda target: returned.collect(
                    directory,
                    report,
                    target,
                    request,
                    limits=step.limits,
                    deadline=step.build_deadline,
                    fetch=partial(self._fetch, directory) if report.uploaded else None,
                ),
            )
        if report.uploaded:
            self._jobs.keep_upload(directory)
        self._machines.remember(build.machine, request.name)
        return verified

    def _digest(self, directory: Path, report: JobReport) -> str:
        if not report.uploaded:
            return returned.digest_of_sif(directory)
        return _found(None if self._uploads is None else self._uploads.sha256(directory.name, report.build["size"]))

    def _fetch(self, directory: Path, target: Path, size: int) -> str:
        """Copy what a job has uploaded; return its sha256."""
        return _found(None if self._uploads is None else self._uploads.copy(directory.name, size, target))

    def _exclude(self, build: PoolBuild, theirs: str, ours: str) -> None:
        reason = f"its SIF of {build.request.name} is {theirs}, this host's is {ours}"
        before = self._machines.exclude(build.machine, reason) if build.machine else []
        note = f"{build.where} is excluded from builds: {reason}"
        if before:
            note += f"; it has also built {', '.join(before)}: check them"
        _log.warning("%s", note)
        self._notes.append(note)
        self._jobs.update_requirements()

    def _avoid(self, build: PoolBuild) -> None:
        if build.machine:
            self._machines.mark_unsuitable(build.machine)
            self._jobs.update_requirements()


def _content(request: BuildRequest) -> str:
    return request.image.content.removeprefix("sha256:")


def _found(sha256: str | None) -> str:
    """Return the sha256 of an upload. Raise JobError if there is no upload of the size that the report says."""
    if sha256 is None:
        raise JobError("the job's upload is not in the origin, or has another size than its report says")
    return sha256
