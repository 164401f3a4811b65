from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.builders.jobs import (
    COMPLETED,
    HELD,
    IDLE,
    REMOVED,
    RUNNING,
    JobResources,
    QueueChanges,
    QueuedJob,
    choose,
    describe,
    requirements,
)

if TYPE_CHECKING:
    from publisher.build.builder import BuildRequest

AD = {
    "ClusterId": 12,
    "ProcId": 0,
    "JobStatus": IDLE,
    "Iwd": "/jobs/1",
    "QDate": 1000,
    "OspoolImageBuild": "ab" * 32,
    "OspoolImageName": "htc/small:1",
}


def job(number: int, status: int) -> QueuedJob:
    return QueuedJob(f"{number}.0", status, "ab" * 32, f"/jobs/{number}")


def test_an_ad_is_read() -> None:
    assert QueuedJob.from_ad(AD) == QueuedJob("12.0", IDLE, "ab" * 32, "/jobs/1", "htc/small:1", 1000.0)


@pytest.mark.parametrize(
    ("attributes", "machine"),
    [
        ({"MachineAttrMachine0": "ep1.example.org", "LastRemoteHost": "slot1@ep0"}, "ep1.example.org"),
        ({"LastRemoteHost": "slot1_2@glidein_3@ep2"}, "ep2"),
        ({}, ""),
    ],
)
def test_the_machine_of_a_job_is_the_last_one_that_it_ran_on(attributes: dict[str, str], machine: str) -> None:
    assert QueuedJob.from_ad({**AD, **attributes}).machine == machine


@pytest.mark.parametrize(("code", "is_too_small"), [(34, True), (104, True), (12, False)])
def test_a_job_that_is_held_for_want_of_memory_or_disk_is_told_from_others(code: int, is_too_small: bool) -> None:
    held = QueuedJob.from_ad({**AD, "JobStatus": HELD, "HoldReasonCode": code, "HoldReason": "why"})
    assert (held.reason, held.is_too_small) == ("why", is_too_small)


def test_of_several_jobs_the_one_that_is_furthest_counts_and_of_equal_ones_the_oldest() -> None:
    jobs = [job(11, IDLE), job(2, RUNNING), job(10, RUNNING), job(4, REMOVED), job(5, HELD)]
    assert choose(jobs) == (jobs[1], [jobs[2], jobs[0], jobs[4]])
    assert choose([*jobs, job(12, COMPLETED)])[0] == job(12, COMPLETED)
    assert choose([job(1, REMOVED)]) == (None, [])


def test_a_job_asks_for_memory_and_disk_by_the_size_of_its_image(asked: BuildRequest) -> None:
    layer = replace(asked.image.manifest.layers[0], size=4_000_000_000)
    large = replace(asked.image, manifest=replace(asked.image.manifest, layers=(layer,)))
    small = JobResources.for_image(asked.image)
    needed = JobResources.for_image(large)
    assert needed.memory == small.memory + 4 * 256
    assert needed.disk - small.disk >= 3 * 4_000_000_000 // 1024 - 100
    assert JobResources.for_image(large, 2) == JobResources(2 * needed.memory, 2 * needed.disk)


def test_the_requirements_name_the_architecture_the_operators_wish_and_the_machines_to_avoid() -> None:
    assert requirements("X86_64", None, []) == 'TARGET.OpSys == "LINUX" && TARGET.Arch == "X86_64"'
    assert requirements("X86_64", "A || B", ["ep2", "ep1"]).endswith(
        ' && (A || B) && !stringListIMember(TARGET.Machine, "ep1,ep2")'
    )


def test_a_job_is_described_with_the_attributes_by_which_it_is_found_again() -> None:
    said = describe(
        Path("/jobs/1"),
        program=Path("/jobs/step.pyz"),
        deployment="here",
        content="ab" * 32,
        name='a "name"',
        resources=JobResources(1024, 2048),
        requirements="true",
        deadline=60,
        elsewhere=["ep1"],
    )
    assert said["My.OspoolImageDeployment"] == '"here"'
    assert said["My.OspoolImageName"] == '"a \\"name\\""'
    assert said["leave_in_queue"] == "JobStatus == 4", "what ended unnoticed waits for its publisher"
    assert said["rank"] == '!stringListIMember(TARGET.Machine, "ep1")'


def test_nothing_to_change_is_nothing() -> None:
    assert not QueueChanges()
    assert QueueChanges(requirements="true")
