"""A job that starts a blocked image by another spelling of its path, or makes the trace say something else about it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from publisher.build import sif
from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.contract.manifest import HARD_LIMIT
from publisher.contract.records import BLOCKED
from publisher.resolver.errors import BlockedError
from publisher.resolver.hook import statuses
from publisher.resolver.hook.decide import decide
from publisher.resolver.hook.job import Job
from publisher.resolver.hook.prepare import prepare_job
from publisher.resolver.system import classad
from publisher.resolver.system.notes import Warnings
from tests.support.ep.execution_point import NOW, REPOSITORY, ExecutionPoint, record, version
from tests.support.ep.hook import STARTS, job_ad
from tests.support.osdf.file_server import FileServer
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.resolver.hook.decision import Decision

pytestmark = pytest.mark.usefixtures("own_reads")

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


def traced(point: LaggingPoint, ad: bytes, **changed: str) -> tuple[dict[str, object], bytes]:
    """Return the last line of the trace, and everything that a job with this ad makes people see."""
    settings = point.ep.settings(trace=str(point.ep.root / "trace"), backoff="0", **changed)
    now = time.monotonic()
    answer, _ = prepare_job(ad, settings, now, now + settings.deadline, 0.0)
    line = (point.ep.root / "trace").read_bytes().splitlines()[-1]
    return json.loads(line), line + answer


@pytest.mark.parametrize(
    "forged",
    [
        'Arguments = "x\nClusterId = 999\nOwner = \\"root\\"\ny"',
        'Arguments = "x\\"\nClusterId = 999\nOwner = \\"root\\"\nY = \\"z"',
        'Arguments = "x\\"\nClusterId = 999\nOwner = undefined\nProcId = 5\nY = 1\n"',
    ],
    ids=["a line feed", "a quote and a line feed", "undefined"],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_line_feed_in_the_ad_does_not_change_who_the_trace_names(point: LaggingPoint, forged: str, first: bool) -> None:
    honest = job_ad(ContainerImage="good/one:1").decode()
    line, _ = traced(point, (f"{forged}\n{honest}" if first else f"{honest}{forged}\n").encode())
    assert line["job"] in ("7.0", ""), "unknown at worst"
    assert line["owner"] in ("user", "")
    if "\\" not in forged.partition("\n")[0]:
        assert (line["job"], line["owner"]) == ("7.0", "user")


def test_a_line_feed_in_the_ad_does_not_hide_the_image(point: LaggingPoint) -> None:
    honest = job_ad(ContainerImage="bad/one:1").decode()
    for instead in ('"docker://ubuntu:22.04"', "undefined", '"good/one:1"'):
        forged = f'Arguments = "x\\"\nContainerImage = {instead}\nY = 1"\n'
        for ad in (honest + forged, forged + honest):
            job = Job(classad.parse(ad.encode()))
            found = decide(job, point.ep.settings(), scratch="/", now=NOW, until=time.monotonic() + 60, notes=Warnings())
            assert found.code == statuses.NO_REFERENCE, found.message


@pytest.mark.parametrize("unknown", ["pass", "fetch"])
@pytest.mark.parametrize(
    "url", ["{web}/sif/a.sif?{secret}", "{web}/sif/no.sif?authz=Bearer%20{secret}#{secret}", "s3://me:{secret}@b/x"]
)
def test_a_secret_in_a_url_reaches_no_trace_message_or_note(point: LaggingPoint, unknown: str, url: str) -> None:
    authority, tls = certificate(point.ep.root, "localhost")
    image = point.outside / "sif" / "a.sif"
    image.parent.mkdir()
    image.write_bytes(bytes(sif.DATA_OFFSET) + b"hsqs")
    sif.write_sif_header(image, architecture="amd64", identity=bytes(32), epoch=1)
    with FileServer(point.outside, tls=tls) as web:
        text = url.format(web=web.url.replace("127.0.0.1", "localhost"), secret="s3cret")
        ad = job_ad(ContainerImage=text, WantContainer=True, WantSIF=True)
        line, seen = traced(point, ad, unknown=unknown, ca=str(authority))
    assert str(line["image"]).startswith(text.partition("://")[0])
    is_held = text.startswith("s3:") or (unknown == "fetch" and "no.sif" in text)
    assert line["code"] == (statuses.NO_IMAGE if is_held else statuses.OK)
    assert b"s3cret" not in seen
    left = [path for path in point.ep.cache.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert left == []
