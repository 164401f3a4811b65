"""Jobs as values: what is asked of HTCondor for a build, what its queue says, and which of several jobs of one image counts.

A job is known by attributes of its ad, so that a publisher that was killed finds its jobs again: the deployment that it belongs
to, and the image's config, which names what is built.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from publisher.builders.orders import FILE_INDEX, ORDER, REPORT, SIF

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from publisher.oci import Image

IDLE, RUNNING, REMOVED, COMPLETED, HELD = 1, 2, 3, 4, 5
"""Values of JobStatus that decisions are made by; the others count as running."""
DEPLOYMENT, CONTENT, NAME = "OspoolImageDeployment", "OspoolImageBuild", "OspoolImageName"
"""Attributes of a job: whose it is, and the config (64 hex digits) and name of the image that it builds."""
ATTRIBUTES = (
    *("ClusterId", "ProcId", "JobStatus", "Iwd", "QDate", "NumJobStarts", CONTENT),
    *("HoldReason", "HoldReasonCode", NAME, "MachineAttrMachine0", "LastRemoteHost", "RemoteHost"),
)
"""The attributes that are asked for."""
LOG, ERROR = "log", "err"
"""The job's event log and its standard error, beside its other files."""
_BIGGER = (34, 104)  # HoldReasonCode: more memory than requested, more disk (HTCondor's manual, "HoldReasonCode")
_MAX_STARTS = 10  # of one job; one that is evicted more often is held, and made anew
_MEMORY, _MEMORY_PER_GB = 1024, 256  # MiB; the plan of an image grows with its entries, mksquashfs is limited
_DISK, _DISK_PER_BYTE = 1 << 20, 3.0  # KiB; the layers, their indexes, and a SIF that is hardly smaller
_RANK = {COMPLETED: 0, RUNNING: 1, IDLE: 3, HELD: 4}
_OTHER_STEPS = 600  # seconds beyond the deadline of a build: for the trial, the fetch of small layers and the test run


@dataclass(frozen=True)
class QueuedJob:
    """A job as the queue has it.

    Attributes:
        id: cluster and process: ``12.0``.
        status: JobStatus.
        content: the config of the image that it builds, 64 hex digits.
        directory: the job's directory.
        name: the name of that image, and its platform if it has several.
        entered: when it was submitted, seconds since the epoch.
        starts: how often it was started.
        reason: why it is held, for people; empty if it is not.
        is_too_small: it is held because it needed more memory or disk than it asked for.
        machine: the machine that it ran on last; empty if it was not started.
    """

    id: str
    status: int
    content: str
    directory: str
    name: str = ""
    entered: float = 0.0
    starts: int = 0
    reason: str = ""
    is_too_small: bool = False
    machine: str = ""

    @staticmethod
    def from_ad(ad: Mapping[str, Any]) -> QueuedJob:
        """Return the job that an ad describes; it has :data:`ATTRIBUTES`, as far as they are defined."""
        host = str(ad.get("MachineAttrMachine0") or ad.get("RemoteHost") or ad.get("LastRemoteHost") or "")
        return QueuedJob(
            id=f"{ad['ClusterId']}.{ad['ProcId']}",
            status=int(ad["JobStatus"]),
            content=str(ad.get(CONTENT, "")),
            directory=str(ad.get("Iwd", "")),
            name=str(ad.get(NAME, "")),
            entered=float(ad.get("QDate", 0)),
            starts=int(ad.get("NumJobStarts", 0)),
            reason=str(ad.get("HoldReason", "")),
            is_too_small=ad.get("HoldReasonCode") in _BIGGER,
            machine=host.rpartition("@")[2],
        )


@dataclass
class QueueChanges:
    """Changes of the queue: ids of jobs to remove, descriptions of jobs to submit, and requirements of those that wait."""

    remove: list[str] = field(default_factory=list)
    submit: list[dict[str, str]] = field(default_factory=list)
    requirements: str | None = None

    def __bool__(self) -> bool:
        """Return whether there is anything to change."""
        return bool(self.remove or self.submit or self.requirements is not None)


class JobQueue(Protocol):
    """The queue of an access point."""

    def jobs(self) -> list[QueuedJob]:
        """Return the deployment's jobs.

        Raises:
            CommandError: the queue does not answer.
        """

    def change(self, changes: QueueChanges) -> None:
        """Change the queue; what is done already stays done if it fails.

        Raises:
            CommandError: the queue does not answer, or refuses.
        """


def choose(jobs: Sequence[QueuedJob]) -> tuple[QueuedJob | None, list[QueuedJob]]:
    """Return which of several jobs of one image counts, and the surplus ones; jobs that are being removed are neither.

    The one that is furthest counts, and of equal ones the oldest: a submission that seemed to fail can leave a second job.
    """
    present = sorted(
        (job for job in jobs if job.status != REMOVED),
        key=lambda job: (_RANK.get(job.status, 2), [int(part) for part in job.id.split(".")]),
    )
    return (present[0], present[1:]) if present else (None, [])


@dataclass(frozen=True)
class JobResources:
    """What a job asks of a machine: MiB of memory and KiB of disk."""

    memory: int
    disk: int

    @staticmethod
    def for_image(image: Image, factor: int = 1) -> JobResources:
        """Return what the build of an image needs, by the size of its layers; ``factor`` is for one that needed more."""
        compressed = sum(layer.size for layer in image.manifest.layers)
        memory = factor * (_MEMORY + int(_MEMORY_PER_GB * compressed / 1e9))
        return JobResources(memory, factor * (_DISK + int(_DISK_PER_BYTE * compressed / 1024)))


def requirements(architecture: str, own: str | None, avoided: Collection[str]) -> str:
    """Return the requirements of all jobs.

    Args:
        architecture: what the file of the build step is for, as HTCondor names it.
        own: the operator's expression, None for none.
        avoided: machines that must not build.
    """
    terms = [f'TARGET.OpSys == "LINUX" && TARGET.Arch == "{architecture}"']
    if own:
        terms.append(f"({own})")
    if avoided:
        terms.append(f"!stringListIMember(TARGET.Machine, {json.dumps(','.join(sorted(avoided)))})")
    return " && ".join(terms)


def longest_run(deadline: float) -> int:
    """Return the seconds that a job may run, by the deadline of its build."""
    return int(deadline) + _OTHER_STEPS


def describe(
    directory: Path,
    *,
    program: Path,
    deployment: str,
    content: str,
    name: str,
    resources: JobResources,
    requirements: str,
    deadline: float,
    elsewhere: Collection[str] = (),
) -> dict[str, str]:
    """Return the description of a job, as commands of a submit file.

    Args:
        directory: the job's directory, which has its order and gets its files.
        program: the file of the build step.
        deployment: whose job it is.
        content: the config of the image, 64 hex digits.
        name: the image's name, and its platform if it has several.
        resources: what it needs.
        requirements: where it may run.
        deadline: seconds that the build may take on a machine.
        elsewhere: machines on which this image has failed; others are preferred.
    """
    return {
        "universe": "vanilla",
        "executable": str(program),
        "transfer_executable": "true",
        "should_transfer_files": "yes",
        "when_to_transfer_output": "on_exit",
        "transfer_input_files": ORDER,
        "transfer_output_files": f"{REPORT}, {SIF}, {FILE_INDEX}",
        "initialdir": str(directory),
        "output": "out",
        "error": ERROR,
        "log": LOG,
        "request_cpus": "1",
        "request_memory": str(resources.memory),
        "request_disk": str(resources.disk),
        "requirements": requirements,
        "rank": f"!stringListIMember(TARGET.Machine, {json.dumps(','.join(sorted(elsewhere)))})" if elsewhere else "0",
        "leave_in_queue": f"JobStatus == {COMPLETED}",
        "periodic_hold": f"NumJobStarts >= {_MAX_STARTS} && JobStatus == {IDLE}",
        "periodic_hold_reason": '"it was started too often"',
        "allowed_execute_duration": str(longest_run(deadline)),
        "job_machine_attrs": "Machine",
        "notification": "never",
        "batch_name": f"image builds {deployment}",
        f"My.{DEPLOYMENT}": json.dumps(deployment),
        f"My.{CONTENT}": json.dumps(content),
        f"My.{NAME}": json.dumps(name),
    }
