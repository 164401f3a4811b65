"""Builds in an HTCondor pool: one job for each SIF, submitted to this host's schedd and known by attributes of its ad.

Only the queue and the jobs' directories remember what is under way, so a publisher that is killed finds its jobs again, and a job
that has ended is not repeated. The pool is not trusted: what comes back is verified (:mod:`publisher.builders.returned`), and a
share of the images, which no machine can foresee, is built again on this host and compared.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from publisher.build.builder import Builder, BuildRequest
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
from publisher.builders.orders import BUILT, FAILED, ORDER, UNSUITABLE, BuildOrder, JobError, JobReport, StepOptions
from publisher.errors import CommandError, PublisherError, StateDirectoryError, UnavailableError
from publisher.system.durable import delete, failures, token

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from publisher.build.local import LocalBuilder
    from publisher.builders.machines import MachineMemory
    from publisher.builders.sample import Sample
    from publisher.state.built import BuiltImage
    from publisher.system.command import UnixAccount

    Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)

_TRIES = 3  # of one image in the pool
_REFUSALS = 2  # of an image, by two jobs: then it is the image
_UNSUITABLE = 20  # machines that one image may meet
_LARGEST = 16  # times the usual memory and disk


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


@dataclass
class _PoolBuild:
    """One image that is being built in the pool.

    Attributes:
        request: what is built.
        content: its config, 64 hex digits.
        progress: shows progress.
        factor: how many times the usual memory and disk its job asks for.
        returned: the directory of the job that has ended, to be looked at; None while there is none.
        machine: the machine of that job; empty if it is not known.
        problems: why its jobs have failed so far.
        refusals: failures that jobs blame on the image.
        unsuitable: number of machines that could not build it.
        elsewhere: machines on which it has failed.
        error: why it is given up.
        is_waiting: it waits for its job.
    """

    request: BuildRequest
    content: str
    progress: Progress
    factor: int = 1
    returned: Path | None = None
    machine: str = ""
    problems: list[str] = field(default_factory=list)
    refusals: list[PublisherError] = field(default_factory=list)
    unsuitable: int = 0
    elsewhere: set[str] = field(default_factory=set)
    error: PublisherError | None = None
    is_waiting: bool = False


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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.parallel = options.jobs
        self._local = local
        self._queue = queue
        self._directory = directory
        self._with_layers = with_layers
        self._machines = machines
        self._sample = sample
        self.options = options
        self._clock = clock
        self._changed = threading.Condition()
        self._is_asking = False
        self._next_question = 0.0
        self._unanswered: float | None = None
        self._stopped = False
        self._builds: dict[str, _PoolBuild] = {}
        self._unneeded: set[str] = set()  # configs whose jobs and directories have to go
        self._wanted: set[str] | None = None  # configs that a sweep leaves; None once it is done
        self._requirements = self._current_requirements()
        self._is_edited = True  # whether the jobs that wait have these requirements
        self._checks = threading.BoundedSemaphore(options.checks)
        self._notes: list[str] = []

    # --- the interface of builders

    def build(self, request: BuildRequest, progress: Progress) -> BuiltImage:
        """Build one image as :meth:`publisher.build.builder.Builder.build` describes.

        A private image is built on this host: credentials do not leave it. A finished SIF is checked here: nothing is built.

        Raises:
            UnavailableError: the pool did not build it.
        """
        content = _content(request)
        build = _PoolBuild(request, content, progress)
        with self._changed:
            while content in self._builds:  # two names of one image
                self._changed.wait(self.options.interval)
            self._builds[content] = build
            self._unneeded.discard(content)
        try:
            finished = self._local.finished(request)
            if finished is not None:
                return finished
            if request.private or request.reference is None or request.image.is_sif:
                return self._build_here(request, progress)
            return self._build_in_pool(build)
        except PublisherError as error:
            error.image = request.name
            raise
        finally:
            with self._changed:
                del self._builds[content]
                if not self._stopped:
                    self._unneeded.add(content)
                self._changed.notify_all()

    def stop(self) -> None:
        """See :meth:`publisher.build.builder.Builder.stop`. The jobs go on, and the next run finds them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._local.stop()

    def discard(self, request: BuildRequest) -> None:
        """See :meth:`publisher.build.builder.Builder.discard`."""
        self._local.discard(request)

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove the jobs and directories of all images but the ``wanted`` ones, and directories without a job or a report.

        A schedd that does not answer now is asked again with the first build.
        """
        self._local.sweep(wanted)
        self._wanted = {digest.removeprefix("sha256:") for digest in wanted}
        try:
            self._ask(())
        except CommandError as error:
            _log.warning("the schedd does not answer yet: %s", error)

    def close(self) -> None:
        """See :meth:`publisher.build.builder.Builder.close`. Jobs of unfinished builds stay for the next run."""
        with contextlib.suppress(CommandError):  # the next run sweeps
            self._ask(())

    def take_notes(self) -> list[str]:
        """See :meth:`publisher.build.builder.Builder.take_notes`."""
        with self._changed:
            notes, self._notes = self._notes, []
        return notes

    # --- one image

    def _build_here(self, request: BuildRequest, progress: Progress) -> BuiltImage:
        with self._checks:
            return self._local.build(self._with_layers(request), progress)

    def _build_in_pool(self, build: _PoolBuild) -> BuiltImage:
        while True:
            directory = self._wait(build)
            build.is_waiting = False
            try:
                report = returned.read_report(directory)
                result = self._judge(build, directory, report)
            except JobError as error:
                words = returned.last_words(directory)
                self._failed(build, f"{error.reason} (its last line: {words})" if words else error.reason)
                result = None
            if result is not None:
                return result
            with self._changed:
                build.returned = None
            _remove(directory)

    def _judge(self, build: _PoolBuild, directory: Path, report: JobReport) -> BuiltImage | None:
        """Return the build that a job has returned, None if the image has to be built again.

        Raises:
            JobError: the job's files are not what they should be.
            PublisherError: the image cannot be built.
        """
        machine = build.machine or "an unknown machine"
        if report.outcome == UNSUITABLE:
            _log.warning("%s does not build: %s", machine, report.reason)
            build.unsuitable += 1
            self._avoid(build)
            if build.unsuitable >= _UNSUITABLE:
                raise UnavailableError(
                    f"{build.unsuitable} machines of the pool could not build it, the last because {report.reason}"
                )
            return None
        error = report.error() if report.outcome == FAILED else None
        if error is not None:
            build.refusals.append(error)
            build.elsewhere.add(build.machine)
            if len(build.refusals) >= _REFUSALS:
                raise error
            _log.info("%s: it is built once more, because on %s %s", build.request.name, machine, error)
            return None
        if report.outcome != BUILT:
            raise JobError(f"{report.kind}: {report.reason}")
        if self._machines.is_excluded(build.machine):
            raise JobError("this machine is excluded")
        return self._accept(build, directory, report)

    def _accept(self, build: _PoolBuild, directory: Path, report: JobReport) -> BuiltImage:
        """Return a build that is verified, or built again and compared where the image is in the sample."""
        request = build.request
        if self._sample.has(request.image.content):
            build.progress("build again", 0, 1)
            own = self._build_here(replace(request, sif=True), build.progress)  # the pool made one for any entry
            if (returned.digest_of_sif(directory), report.build["sha256"]) == (own.sha256, own.sha256):
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
                ),
            )
        self._machines.remember(build.machine, request.name)
        return verified

    def _exclude(self, build: _PoolBuild, theirs: str, ours: str) -> None:
        machine = build.machine or "an unknown machine"
        reason = f"its SIF of {build.request.name} is {theirs}, this host's is {ours}"
        before = self._machines.exclude(build.machine, reason) if build.machine else []
        note = f"{machine} is excluded from builds: {reason}"
        if before:
            note += f"; it has also built {', '.join(before)}: check them"
        _log.warning("%s", note)
        with self._changed:
            self._notes.append(note)
        self._update_requirements()

    def _avoid(self, build: _PoolBuild) -> None:
        if build.machine:
            self._machines.mark_unsuitable(build.machine)
            self._update_requirements()

    def _failed(self, build: _PoolBuild, reason: str) -> None:
        """Count a failure of a job for which the image is not to blame.

        Raises:
            UnavailableError: there were too many.
        """
        build.problems.append(f"{build.machine or 'an unknown machine'}: {reason}")
        if build.machine:
            build.elsewhere.add(build.machine)
        _log.info("%s: its job has failed on %s", build.request.name, build.problems[-1])
        if len(build.problems) >= _TRIES:
            raise self._given_up(build)

    def _given_up(self, build: _PoolBuild) -> PublisherError:
        reason = f"the pool did not build it in {len(build.problems)} tries; {'; '.join(dict.fromkeys(build.problems))}"
        return UnavailableError(reason, hint="the next run tries again; --builder local builds on this host")

    # --- the queue

    def _wait(self, build: _PoolBuild) -> Path:
        """Return the directory of the image's job that has ended; one of the waiting threads asks the schedd for all."""
        build.is_waiting = True
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
                self._ask(waiting)
                self._unanswered = None
            except CommandError as error:
                self._note_silence(error, waiting)
            except PublisherError as error:
                for one in waiting:
                    one.error = error
            finally:
                with self._changed:
                    self._is_asking = False
                    self._next_question = time.monotonic() + self.options.interval
                    self._changed.notify_all()

    def _note_silence(self, error: CommandError, waiting: Collection[_PoolBuild]) -> None:
        """Give up what waits if the schedd has not answered for too long."""
        now = self._clock()
        if self._unanswered is None:
            self._unanswered = now
            _log.warning("the schedd does not answer, which is tried again: %s", error)
        if now - self._unanswered >= self.options.patience:
            for one in waiting:
                reason = f"the schedd does not answer: {error.reason}"
                one.error = UnavailableError(reason, hint="look at condor_status -schedd; the next run finds the jobs")

    def _ask(self, waiting: Collection[_PoolBuild]) -> None:
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
            free = self.options.jobs - sum(job.status not in {COMPLETED, HELD} for job in jobs)
            for build in waiting:
                free -= self._decide(build, of_image.get(build.content, []), changes, free)
            if changes:
                self._queue.change(changes)
        except CommandError:
            with self._changed:
                self._is_edited &= changes.requirements is None
            raise
        self._wanted = None
        if unneeded:
            for path in self._directories():
                if _content_of(path) in unneeded:
                    _remove(path)
            with self._changed:
                self._unneeded -= unneeded

    def _sweep(self, jobs: Collection[QueuedJob], changes: QueueChanges) -> None:
        """Remove what a run before this one has left and nobody wants any more, if that is still to be done."""
        if self._wanted is None:
            return
        changes.remove += [job.id for job in jobs if job.content not in self._wanted]
        if changes.remove:
            _log.info("%d job(s) are removed, because their images are not to be built any more", len(changes.remove))
        in_use = {job.directory for job in jobs if job.content in self._wanted}
        for path in self._directories():
            if str(path) not in in_use and not (_content_of(path) in self._wanted and returned.is_complete(path)):
                _remove(path)

    def _decide(self, build: _PoolBuild, jobs: list[QueuedJob], changes: QueueChanges, free: int) -> int:
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
            self._note_hold(build, job)
        elif job.status == IDLE and not job.starts and self._clock() - job.entered > self.options.wait:
            changes.remove.append(job.id)
            reason = f"no machine of the pool took its job within {self.options.wait:g} s"
            build.error = UnavailableError(reason, hint=f"condor_q -better-analyze {job.id} says why")
        else:
            build.progress("queue" if job.status == IDLE else "build in the pool", 0, 1)
        return 0

    def _note_hold(self, build: _PoolBuild, job: QueuedJob) -> None:
        build.problems.append(f"{job.machine or 'the queue'}: its job was held: {job.reason}")
        if job.is_too_small:
            build.factor = min(2 * build.factor, _LARGEST)
        elif job.machine:
            build.elsewhere.add(job.machine)
        _log.info("%s: its job %s is made anew: it was held: %s", build.request.name, job.id, job.reason)
        if len(build.problems) >= _TRIES:
            build.error = self._given_up(build)

    def _describe(self, build: _PoolBuild) -> dict[str, str]:
        """Make the directory of a new job, with its order, and return its description."""
        options, request = self.options, build.request
        path = self._directory / f"{build.content}.{token()}"
        order = BuildOrder(request.name, str(request.reference), request.image, options.trial, options.step)
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

    def _current_requirements(self) -> str:
        return requirements(self.options.architecture, self.options.requirements, self._machines.avoided())

    def _update_requirements(self) -> None:
        with self._changed:
            current = self._current_requirements()
            if current != self._requirements:
                self._requirements, self._is_edited = current, False

    # --- the jobs' directories

    def _find_returned(self, content: str) -> Path | None:
        """Return a directory of a job that has ended and left the queue, None if there is none."""
        found = (path for path in self._directories() if _content_of(path) == content and returned.is_complete(path))
        return next(found, None)

    def _directories(self) -> Iterator[Path]:
        return (path for path in sorted(self._directory.iterdir()) if path.is_dir() and not path.is_symlink())

    def _own(self, text: str) -> Path | None:
        """Return the directory of a job, None if it is not one that this publisher made: users can edit their jobs."""
        return next((path for path in self._directories() if str(path) == text), None)


def _content(request: BuildRequest) -> str:
    return request.image.content.removeprefix("sha256:")


def _content_of(directory: Path) -> str:
    return directory.name.partition(".")[0]


def _remove(directory: Path) -> None:
    try:
        delete(directory)
    except OSError as error:
        _log.info("%s cannot be deleted now: %s", directory, error)
