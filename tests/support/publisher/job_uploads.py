"""An incoming area of build jobs in memory."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.builders.orders import SIF, JobReport
from publisher.errors import OriginError
from publisher.targets.origins.job_uploads import UploadGrant
from tests.support.publisher.scripted_pool import completed

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.builders.jobs import QueuedJob
    from publisher.state.built import BuiltImage


class RecordedUploads:
    """The methods of :class:`publisher.targets.origins.job_uploads.JobUploads`.

    Attributes:
        stored: job -> what it has uploaded.
        discarded: the jobs whose uploads were deleted.
        is_down: whether no job gets a token.
    """

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.discarded: list[str] = []
        self.is_down = False

    def grant(self, job: str) -> UploadGrant:
        if self.is_down:
            raise OriginError("the director does not answer")
        return UploadGrant("origin.example.org", "/images", f".incoming/{job}/{SIF}", f"token of {job}")

    def sha256(self, job: str, size: int) -> str | None:
        content = self.stored.get(job, b"")
        return hashlib.sha256(content).hexdigest() if len(content) == size else None

    def copy(self, job: str, size: int, target: Path) -> str | None:
        target.write_bytes(self.stored.get(job, b""))
        return self.sha256(job, size)

    def discard(self, job: str) -> None:
        self.stored.pop(job, None)
        self.discarded.append(job)


def uploading(uploads: RecordedUploads, build: BuiltImage, content: bytes | None = None) -> Callable[[QueuedJob], QueuedJob]:
    """Return the work of a pool whose jobs upload a build, or other content."""

    def work(job: QueuedJob) -> QueuedJob:
        directory = Path(job.directory)
        uploads.stored[directory.name] = build.sif.read_bytes() if content is None else content
        done = completed(job, build, report=replace(JobReport.of_build(build), uploaded=True))
        (directory / SIF).write_bytes(b"")
        return done

    return work
