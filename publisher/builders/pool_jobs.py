"""The jobs of a deployment: submitted, found again after a kill, waited for, and removed once nobody wants them.

Only the queue and the jobs' directories remember what is under way, so a publisher that is killed finds its jobs again, and a job
that has ended is not repeated.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.builders import returned
from publisher.builders.jobs import (
    COMPLETED,
    HELD,
    IDLE,
    JobQueue,
    JobResources,
    QueueChanges,
    QueuedJob,
    choose,
    describe,
    requirements,
)
from publisher.builders.orders import ORDER, BuildOrder, StepOptions
from publisher.errors import CommandError, OriginError, PublisherError, StateDirectoryError, UnavailableError
from publisher.system.durable import delete, failures, token

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from publisher.builders.pool_build import PoolBuild
    from publisher.system.command import UnixAccount
    from publisher.targets.origins.job_uploads import JobUploads, UploadGrant

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolOptions:
    """How a pool is used.

    Attributes:
        deployment: the value of the attribute by which the jobs of this publisher are known.
        program: the file of the build step.
        architecture: what it is for, as HTCondor names it.
        step: the options of the build step.
        trial: digest of the trial SIF of this host.
        jobs: the largest number of jobs at a time.
        requirements: the operator's requirements, None for none.
        wait: seconds that a job may wait for a machine.
        patience: seconds that the schedd may not answer.
        interval: seconds between two questions to the schedd.
        account: the account that jobs belong to, None for this process's.
        checks: SIFs that are verified, or built again, on this host at a time.
    """

    deployment: str
    program: Path
    architecture: str
    step: StepOptions
    trial: str
    jobs: int = 100
    requirements: str | None = None
    wait: float = 6 * 3600.0
    patience: float = 1800.0
    interval: float = 5.0
    account: UnixAccount | None = None
    checks: int = 2


class PoolJobs:
    """The jobs of one deployment, for the threads that wait for them; one of these asks the queue for all.

    Args:
        queue: the queue of the access point.
        directory: the directory of the jobs' files, which the jobs' account can enter.
        options: how the pool is used.
        avoided: returns the machines that must not build.
        uploads: where jobs upload their SIFs, None if they return them by file transfer.
        clock: returns seconds since the epoch, as the schedd's host has them.
    """

    def __init__(
        self,
        queue: JobQueue,
        directory: Path,
        options: PoolOptions,
        *,
        avoided: Callable[[], Collection[str]],
        uploads: JobUploads | None,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._directory = directory
        self._options = options
        self._avoided = avoided
        self._uploads = uploads
        self._kept: set[str] = set()  # names of directories whose uploads are still to be published
        self._clock = clock
        self._changed = threading.Condition()
        self._is_asking = False
        self._next_question = 0.0
        self._unanswered: float | None = None
        self._stopped = False
        self._builds: dict[str, PoolBuild] = {}
        self._unneeded: set[str] = set()  # configs whose jobs and directories have to go
        self._sweeping: _SweptQueue | None = None  # what a sweep leaves; None once it is done
        self._requirements = self._current_requirements()
        self._is_edited = True  # whether the jobs that wait have these requirements

    def enter(self, build: PoolBuild) -> None:
        """Begin a build; of two builds of one image, the second waits until the first one has left."""
        with self._changed:
            while build.content in self._builds:
                self._changed.wait(self._options.interval)
            self._builds[build.content] = build
            self._unneeded.discard(build.content)

    def leave(self, build: PoolBuild) -> None:
        """End a build; its jobs and directories are removed, unless the run stops."""
        with self._changed:
            del self._builds[build.content]
            if not self._stopped:
                self._unneeded.add(build.content)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let all that wait raise. The jobs go on, and the next run finds them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def sweep(self, wanted: Collection[str], unknown: Collection[str]) -> None:
        """Remove the jobs and directories of all images but the ``wanted`` ones, and directories without a job or a report.

        A schedd that does not answer now is asked again with the first build.

        Args:
            wanted: configs, 64 hex digits each.
            unknown: names whose configs are not known now; their jobs stay.
        """
        self._sweeping = _SweptQueue(frozenset(wanted), frozenset(unknown))
        try:
            self.ask()
        except CommandError as error:
            _log.warning("the schedd does not answer yet: %s", error)

    def drop(self, build: PoolBuild) -> None:
        """Delete the directory that a job has returned, whose build goes on with another job."""
        with self._changed:
            directory, build.returned = build.returned, None
        if directory is not None:
            self._remove(directory)

    def keep_upload(self, directory: Path) -> None:
        """Keep what the job of a directory has uploaded until :meth:`release_upload`."""
        with self._changed:
            self._kept.add(directory.name)

    def release_upload(self, content: str) -> None:
        """Delete what is left of the upload of a config (64 hex digits), which is published."""
        with self._changed:
            released = {name for name in self._kept if name.startswith(content)}
            self._kept -= released
        for name in released:
            self._discard_upload(name)

    def update_requirements(self) -> None:
        """Keep jobs off the machines that must not build any more."""
        with self._changed:
            current = self._current_requirements()
            if current != self._requirements:
                self._requirements, self._is_edited = current, False

    def wait(self, build: PoolBuild) -> Path:
        """Return the directory of a build's job that has ended; one of the waiting threads asks the schedd for all.

        Raises:
            UnavailableError: the build is given up, or the run stops.
        """
        build.is_waiting = True
        try:
            return self._wait(build)
        finally:
            build.is_waiting = False

    def _wait(self, build: PoolBuild) -> Path:
        while True:
            with self._changed:
                if build.error is not None:
                    raise build.error
                if self._stopped:
                    raise UnavailableError("the run stops before its job has ended", hint="the next run finds the job")
                if build.returned is not None:
                    return build.returned
                pause = self._next_question - time.monotonic()
                if self._is_asking or pause > 0:
                    self._changed.wait(max(pause, 0.01))
                    continue
                self._is_asking = True
                waiting = [one for one in self._builds.values() if one.is_waiting and one.returned is None and one.error is None]
            try:
                self.ask(waiting)
                self._unanswered = None
            except CommandError as error:
                self._note_silence(error, waiting)
            except PublisherError as error:
                for one in waiting:
                    one.error = error
            finally:
                with self._changed:
                    self._is_asking = False
                    self._next_question = time.monotonic() + self._options.interval
                    self._changed.notify_all()

    def _note_silence(self, error: CommandError, waiting: Collection[PoolBuild]) -> None:
        """Give up what waits if the schedd has not answered for too long."""
        now = self._clock()
        if self._unanswered is None:
            self._unanswered = now
            _log.warning("the schedd does not answer, which is tried again: %s", error)
        if now - self._unanswered >= self._options.patience:
            for one in waiting:
                reason = f"the schedd does not answer: {error.reason}"
                one.error = UnavailableError(reason, hint="look at condor_status -schedd; the next run finds the jobs")

    def ask(self, waiting: Collection[PoolBuild] = ()) -> None:
        """Ask the queue once, decide on each build that waits, and change the queue.

        Raises:
            CommandError: the queue does not answer.
            StateDirectoryError, SpaceError: a job's directory cannot be made.
        """
        changes = QueueChanges()
        with self._changed:
            unneeded = set(self._unneeded)
            if not self._is_edited:
                changes.requirements = self._requirements
                self._is_edited = True
        try:
            jobs = self._queue.jobs()
            self._sweep(jobs, changes)
            of_image: dict[str, list[QueuedJob]] = {}
            for job in jobs:
                of_image.setdefault(job.content, []).append(job)
            changes.remove += [job.id for content in unneeded for job in of_image.get(content, ())]
            free = self._options.jobs - sum(job.status not in {COMPLETED, HELD} for job in jobs)
            for build in waiting:
                free -= self._decide(build, of_image.get(build.content, []), changes, free)
            if changes:
                self._queue.change(changes)
        except CommandError:
            with self._changed:
                self._is_edited &= changes.requirements is None
            raise
        self._sweeping = None
        if unneeded:
            for path in self._directories():
                if _content_of(path) in unneeded:
                    self._remove(path)
            with self._changed:
                self._unneeded -= unneeded

    def _sweep(self, jobs: Collection[QueuedJob], changes: QueueChanges) -> None:
        """Remove what a run before this one has left and nobody wants any more, if that is still to be done."""
        left = self._sweeping
        if left is None:
            return
        changes.remove += [job.id for job in jobs if not left.has(job)]
        if changes.remove:
            _log.info("%d job(s) are removed, because their images are not to be built any more", len(changes.remove))
        in_use = {job.directory for job in jobs if left.has(job)}
        for path in self._directories():
            if str(path) not in in_use and not (_content_of(path) in left.wanted and returned.is_complete(path)):
                self._remove(path)

    def _decide(self, build: PoolBuild, jobs: list[QueuedJob], changes: QueueChanges, free: int) -> int:
        """Decide on one build by its jobs in the queue; return the number of jobs that it submits."""
        job, surplus = choose(jobs)
        changes.remove += [one.id for one in surplus]
        if job is None:
            left = self._find_returned(build.content)
            if left is not None:
                build.machine, build.returned = returned.read_machine(left), left
            elif not jobs and free > 0:
                changes.submit.append(self._describe(build))
                return 1
            else:
                build.progress("wait", 0, 1)
        elif job.status == COMPLETED:
            path = self._own(job.directory)
            if path is None:
                changes.remove.append(job.id)
            else:
                build.machine, build.returned = job.machine or returned.read_machine(path), path
        elif job.status == HELD:
            changes.remove.append(job.id)
            build.note_hold(job)
        elif job.status == IDLE and not job.starts and self._clock() - job.entered > self._options.wait:
            changes.remove.append(job.id)
            reason = f"no machine of the pool took its job within {self._options.wait:g} s"
            build.error = UnavailableError(reason, hint=f"condor_q -better-analyze {job.id} says why")
        else:
            build.progress("queue" if job.status == IDLE else "build in the pool", 0, 1)
        return 0

    def _describe(self, build: PoolBuild) -> dict[str, str]:
        """Make the directory of a new job, with its order, and return its description."""
        options, request = self._options, build.request
        path = self._directory / f"{build.content}.{token()}"
        order = BuildOrder(
            request.name, str(request.reference), request.image, options.trial, options.step, self._grant(path.name)
        )
        with failures(StateDirectoryError, f"{path} cannot be made"):
            path.mkdir(mode=0o700)
            (path / ORDER).write_bytes(order.to_bytes())
            if options.account is not None:
                os.chown(path, options.account.uid, options.account.gid)
        build.progress("queue", 0, 1)
        return describe(
            path,
            program=options.program,
            deployment=options.deployment,
            content=build.content,
            name=request.name,
            resources=JobResources.for_image(request.image, build.factor),
            requirements=self._requirements,
            deadline=options.step.build_deadline,
            elsewhere=build.elsewhere - {""},
        )

    def _grant(self, job: str) -> UploadGrant | None:
        try:
            return None if self._uploads is None else self._uploads.grant(job)
        except OriginError as error:
            _log.warning("a job gets no token for an upload, and returns its SIF by file transfer: %s", error)
            return None

    def _remove(self, directory: Path) -> None:
        """Delete the directory of a job, and its upload unless that is still to be published."""
        with self._changed:
            is_kept = directory.name in self._kept
        if not is_kept:
            self._discard_upload(directory.name)
        try:
            delete(directory)
        except OSError as error:
            _log.info("%s cannot be deleted now: %s", directory, error)

    def _discard_upload(self, job: str) -> None:
        if self._uploads is not None:
            self._uploads.discard(job)

    def _current_requirements(self) -> str:
        return requirements(self._options.architecture, self._options.requirements, self._avoided())

    def _find_returned(self, content: str) -> Path | None:
        """Return a directory of a job that has ended and left the queue, None if there is none."""
        found = (path for path in self._directories() if _content_of(path) == content and returned.is_complete(path))
        return next(found, None)

    def _directories(self) -> Iterator[Path]:
        return (path for path in sorted(self._directory.iterdir()) if path.is_dir() and not path.is_symlink())

    def _own(self, text: str) -> Path | None:
        """Return the directory of a job, None if it is not one that this publisher made: users can edit their jobs."""
        return next((path for path in self._directories() if str(path) == text), None)


@dataclass(frozen=True)
class _SweptQueue:
    """What a sweep leaves: the jobs of ``wanted`` configs, and those of names whose configs are ``unknown``."""

    wanted: frozenset[str]
    unknown: frozenset[str]

    def has(self, job: QueuedJob) -> bool:
        return job.content in self.wanted or job.name.partition(" ")[0] in self.unknown


def _content_of(directory: Path) -> str:
    return directory.name.partition(".")[0]
