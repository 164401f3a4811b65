"""A job that starts an image that was blocked, by another spelling of its path, while CVMFS still has the data."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.contract.manifest import HARD_LIMIT
from publisher.contract.records import BLOCKED
from publisher.resolver.errors import BlockedError
from publisher.resolver.hook import classad, statuses
from publisher.resolver.hook.decide import decide
from publisher.resolver.hook.job import Job
from publisher.resolver.system.notes import Warnings
from tests.support.ep.execution_point import NOW, REPOSITORY, ExecutionPoint, record, version
from tests.support.ep.hook import STARTS, job_ad

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.resolver.hook.decision import Decision

BAD, GOOD = version("bad", state=BLOCKED, reason="malware"), version("good")


class LaggingPoint:
    """An execution point whose CVMFS still has the sandbox of a blocked image, and the link with its name."""

    def __init__(self, root: Path) -> None:
        self.ep = ExecutionPoint(root)
        self.ep.publish(record("bad/one:1", amd64=[BAD]), record("good/one:1", amd64=[GOOD]))
        self.repository = self.ep.repository
        for name, found in (("bad/one:1", BAD), ("old/name:1", BAD), ("good/one:1", GOOD)):
            link = self.repository / name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(f"../{found.sandbox}")
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.outside = root / "outside"
        self.outside.mkdir()

    def decide(self, image: str, **more: str) -> Decision:
        job = Job(classad.parse(job_ad(ContainerImage=image, **more)))
        until = time.monotonic() + 60
        return decide(job, self.ep.settings(), scratch=str(self.scratch), now=NOW, until=until, notes=Warnings())

    def text(self, spelling: str) -> str:
        return spelling.format(root=self.repository, cvmfs=f"/cvmfs/{REPOSITORY}", bad=BAD.sandbox, up="../" * 40)


@pytest.fixture
def point(tmp_path: Path) -> LaggingPoint:
    return LaggingPoint(tmp_path)


@pytest.mark.parametrize(
    "spelling",
    [
        "{root}/bad/one:1",
        "{root}/./bad/one:1",
        "{root}/bad/./one:1",
        "{root}//bad/one:1/.",
        "{root}/good/../bad/one:1",
        "{root}/absent/../bad/one:1",
        "{root}/{bad}/.",
        "{root}/.images/../{bad}",
        "{root}/.images/./../{bad}/",
        "{root}/{bad}/bin/..",
        "{root}/{bad}/bin",
        "{root}/old/name:1",
        "{root}/../images.example.org/bad/one:1",
        "/proc/self/root{root}/bad/one:1",
        "/.{root}/bad/one:1",
        "//{root}/bad/one:1",
        "{cvmfs}/./bad/one:1",
        "{cvmfs}/{bad}/./",
    ],
)
def test_no_spelling_starts_a_blocked_image(point: LaggingPoint, spelling: str) -> None:
    found = point.decide(point.text(spelling))
    assert (found.code, found.updates) == (statuses.BLOCKED, {}), found.message
    assert "malware" in found.message


@pytest.mark.parametrize("spelling", ["{up}{root}/bad/one:1", "x/{up}{root}/bad/one:1", "{root}/.images", "{root}/.images/.."])
def test_no_path_starts_what_holds_a_blocked_image(point: LaggingPoint, spelling: str) -> None:
    (point.scratch / "x").mkdir()
    found = point.decide(point.text(spelling).replace("//", "/"))
    assert (found.code, found.updates) == (statuses.NO_IMAGE, {}), found.message


def test_a_link_that_came_with_the_job_starts_no_blocked_image(point: LaggingPoint) -> None:
    (point.scratch / "mine").symlink_to(point.repository / "bad/one:1")
    (point.outside / "link").symlink_to(point.repository)
    for image in ("mine", f"{point.outside}/link/bad/one:1"):
        assert point.decide(image).code == statuses.BLOCKED


def test_what_htcondor_would_have_transferred_does_not_stand_for_another_path(point: LaggingPoint) -> None:
    found = point.decide(f"{point.repository}/bad/one:1", ContainerImageFullPath="docker://ubuntu:22.04")
    assert found.code == statuses.BLOCKED


def test_a_good_image_is_started_by_its_other_spellings(point: LaggingPoint) -> None:
    sandbox = f"{point.repository}/{GOOD.sandbox}"
    for spelling in ("{root}/./good/one:1", "{root}/bad/../good/one:1", "/proc/self/root{root}/good/one:1"):
        assert point.decide(point.text(spelling)).updates["ContainerImage"] == sandbox


def test_a_path_elsewhere_is_left_as_it_is(point: LaggingPoint) -> None:
    for image in (str(point.outside), f"{point.repository}/good/../../outside"):
        found = point.decide(image)
        assert found.code == statuses.OK
        assert not set(found.updates) & set(STARTS) - {"SingularityImage", "WantSIF", "WantSandboxImage"}


@pytest.mark.parametrize("now", [NOW, NOW + HARD_LIMIT * 2], ids=["current", "too old"])
@pytest.mark.parametrize(
    "spelling", ["{root}/x/../../outside", "{cvmfs}/x/../../../outside", "{root}/out/side", "{cvmfs}/out/side"]
)
def test_no_answer_is_a_path_outside_the_repository(point: LaggingPoint, spelling: str, now: float) -> None:
    (point.repository / "x").mkdir()
    (point.repository / "out").symlink_to(point.outside.parent)
    (point.outside.parent / "side").mkdir()
    with pytest.raises(ExpectedError):
        point.ep.resolve(point.text(spelling), now=now)
    if "/out/" in spelling:
        assert point.decide(point.text(spelling)).code == statuses.NO_IMAGE


@pytest.mark.parametrize("spelling", ["{root}/./bad/one:1", "{root}/bad/one:1/.", "{root}/{bad}/.", "/.{cvmfs}/bad/one:1"])
def test_dots_do_not_hide_what_is_asked_for(point: LaggingPoint, spelling: str) -> None:
    with pytest.raises(BlockedError, match="malware"):
        point.ep.resolve(point.text(spelling))


def test_steps_upwards_are_refused_with_the_next_step(point: LaggingPoint) -> None:
    with pytest.raises(InvalidReferenceError, match=r"has '\.\.' in it \(write the path without it\)"):
        point.ep.resolve(f"{point.repository}/x/../good/one:1")


def test_a_manifest_that_is_too_old_starts_no_image_that_it_knows_as_blocked(point: LaggingPoint) -> None:
    late = NOW + HARD_LIMIT * 2
    assert point.ep.resolve(f"{point.repository}/good/one:1", now=late).path == f"{point.repository}/{GOOD.sandbox}"
    for name in ("bad/one:1", "old/name:1", f"{BAD.sandbox}"):
        with pytest.raises(ManifestError, match="malware, according to the manifest"):
            point.ep.resolve(f"{point.repository}/{name}", now=late)
