"""A job queue in memory, and a pool behind it that does what a test says."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.builders.jobs import COMPLETED, CONTENT, HELD, IDLE, REMOVED, RUNNING, JobQueue, QueueChanges, QueuedJob
from publisher.builders.orders import FILE_INDEX, REPORT, SIF, JobReport
from publisher.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.state.built import BuiltImage


class ScriptedPool(JobQueue):
    """The queue; each question lets every job that waits take its next step.

    Attributes:
        work: what becomes of a job when the queue is asked: it returns the job's next state, None if the queue has lost it.
        queue: jobs in the queue now.
        submitted: the descriptions of all jobs so far.
        removed: ids of the jobs that were removed.
        requirements: what the jobs that wait were changed to.
        silent: number of questions that get no answer.
        most: the largest number of jobs that waited or ran at a time.
    """

    def __init__(self, work: Callable[[QueuedJob], QueuedJob | None]) -> None:
        self.work = work
        self.queue: dict[str, QueuedJob] = {}
        self.submitted: list[dict[str, str]] = []
        self.removed: list[str] = []
        self.requirements: list[str] = []
        self.silent = 0
        self.most = 0
        self._numbers = itertools.count(1)

    def jobs(self) -> list[QueuedJob]:
        self._answer()
        for job in list(self.queue.values()):
            after = self.work(job) if job.status in {IDLE, RUNNING} else job
            if after is None or after.status == REMOVED:
                del self.queue[job.id]
            else:
                self.queue[job.id] = after
        return list(self.queue.values())

    def change(self, changes: QueueChanges) -> None:
        self._answer()
        for name in changes.remove:
            self.queue.pop(name, None)
            self.removed.append(name)
        for description in changes.submit:
            self.submitted.append(description)
            self.add(json.loads(description[f"My.{CONTENT}"]), Path(description["initialdir"]))
        if changes.requirements is not None:
            self.requirements.append(changes.requirements)
        self.most = max(self.most, sum(job.status in {IDLE, RUNNING} for job in self.queue.values()))

    def add(self, content: str, directory: Path, **more: object) -> QueuedJob:
        """Put a job into the queue."""
        job = QueuedJob(f"{next(self._numbers)}.0", IDLE, content, str(directory))
        self.queue[job.id] = replace(job, **more)  # type: ignore[arg-type]  # fields of a job
        return self.queue[job.id]

    def _answer(self) -> None:
        if self.silent:
            self.silent -= 1
            raise CommandError("HTCondor's schedd failed with status 1: Failed to connect")


def returning(build: BuiltImage, machine: str = "ep1", report: JobReport | None = None) -> Callable[[QueuedJob], QueuedJob]:
    """Return the work of a pool in which every job returns a build, from a machine."""

    def work(job: QueuedJob) -> QueuedJob:
        return completed(job, build, machine, report)

    return work


def completed(job: QueuedJob, build: BuiltImage | None, machine: str = "ep1", report: JobReport | None = None) -> QueuedJob:
    """Let a job end: it returns a build, or files without content and a report."""
    directory = Path(job.directory)
    for name, source in ((SIF, build and build.sif), (FILE_INDEX, build and build.file_index)):
        (directory / name).write_bytes(source.read_bytes() if source else b"")
    told = report or (JobReport.of_build(build) if build else JobReport(""))
    (directory / REPORT).write_bytes(told.to_bytes())
    return replace(job, status=COMPLETED, machine=machine, starts=1)


def held(job: QueuedJob, reason: str, **more: object) -> QueuedJob:
    """Let a job be held."""
    return replace(job, status=HELD, reason=reason, **more)  # type: ignore[arg-type]  # fields of a job
