"""The build step as a job runs it, with the real programs and a registry that a test plays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.build.squash.find import find_squasher
from publisher.build.squash.own_squasher import MKSQUASHFS, OwnSquasher
from publisher.build.squash.programs import Mksquashfs, Tar2sqfs
from publisher.builders import returned, step, upload
from publisher.builders.orders import BUILT, FAILED, FILE_INDEX, ORDER, SIF, UNSUITABLE, BuildOrder, StepOptions
from publisher.builders.trial import trial_digest
from publisher.errors import BuildError
from publisher.layers.limits import DEFAULT_LIMITS
from publisher.targets.origins.job_uploads import UploadGrant
from tests.support.registries.scripted_http import ScriptedServer, says

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.build.builder import BuildRequest
    from publisher.build.squash.programs import Squasher
    from publisher.state.built import BuiltImage

TRIAL = "ab" * 32


@pytest.fixture
def order(asked: BuildRequest) -> BuildOrder:
    return BuildOrder(asked.name, "127.0.0.1:5000/htc/small:1", asked.image, TRIAL, StepOptions())


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs do not run as root; the tests may."""
    monkeypatch.setattr(step, "_is_root", lambda: False)


def test_a_job_fetches_builds_and_reports_what_this_host_would_have_built(
    tmp_path: Path, order: BuildOrder, asked: BuildRequest, build: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "trial_digest", lambda *_: TRIAL)

    async def registry_serves() -> None:
        layers = zip(asked.image.manifest.layers, asked.layers, strict=True)
        routes = {f"GET /v2/htc/small/blobs/{layer.digest}": [says(200, path.read_bytes())] for layer, path in layers}
        async with ScriptedServer(routes) as server:
            options = StepOptions(insecure=(server.address,))
            placed = replace(order, reference=f"{server.address}/htc/small:1", options=options)
            (tmp_path / ORDER).write_bytes(placed.to_bytes())
            assert await asyncio.to_thread(step.main, tmp_path) == 0

    asyncio.run(registry_serves())
    report = returned.read_report(tmp_path)
    assert (report.outcome, report.reason) == (BUILT, "")
    target = tmp_path / "target"
    target.mkdir()
    made = returned.collect(tmp_path, report, target, asked, limits=DEFAULT_LIMITS, deadline=60)
    assert (made.sha256, made.test, made.tools) == (build.sha256, build.test, build.tools)


@pytest.mark.parametrize("problem", [None, "status 403"], ids=["uploaded", "refused"])
def test_a_job_uploads_its_sif_and_returns_it_by_file_transfer_only_where_that_fails(
    tmp_path: Path, order: BuildOrder, build: BuiltImage, monkeypatch: pytest.MonkeyPatch, problem: str | None
) -> None:
    grant = UploadGrant("origin.example.org", "/images", ".incoming/job/image.sif", "token")
    sif, index = (tmp_path / name for name in ("made.sif", "made.zst"))
    for copy, made in ((sif, build.sif), (index, build.file_index)):
        copy.write_bytes(made.read_bytes())
    asked_for: list[object] = []

    class Builder:
        def build(self, *_: object) -> BuiltImage:
            assert not (tmp_path / ORDER).exists(), "its token is not for the image's code"
            return replace(build, sif=sif, file_index=index)

    async def fetch(*_: object) -> None: ...

    def send(given: UploadGrant, made: BuiltImage, _: StepOptions) -> str | None:
        asked_for.append((given, made.sif))
        return problem

    monkeypatch.setattr(step, "trial_digest", lambda *_: TRIAL)
    monkeypatch.setattr(step, "_make_builder", lambda *_: Builder())
    monkeypatch.setattr(step, "_fetch", fetch)
    monkeypatch.setattr(upload, "upload", send)
    (tmp_path / ORDER).write_bytes(replace(order, upload=grant).to_bytes())
    assert step.main(tmp_path) == 0
    report = returned.read_report(tmp_path)
    assert asked_for == [(grant, sif)]
    assert (report.outcome, report.uploaded, report.upload_problem) == (BUILT, problem is None, problem or "")
    assert (tmp_path / SIF).read_bytes() == (b"" if problem is None else build.sif.read_bytes())
    assert (tmp_path / FILE_INDEX).read_bytes() == build.file_index.read_bytes()
    assert returned.is_complete(tmp_path)


def test_a_machine_whose_trial_differs_does_not_build(tmp_path: Path, order: BuildOrder) -> None:
    report = step.carry_out(order, tmp_path, lambda *_: "cd" * 32)
    assert report.outcome == UNSUITABLE
    assert report.reason.startswith("its programs give other bytes of the trial image (mksquashfs ")


def test_a_machine_that_cannot_make_the_trial_says_why(tmp_path: Path, order: BuildOrder) -> None:
    def fail(_squasher: Squasher, _scratch: Path) -> str:
        raise BuildError("mksquashfs failed")

    report = step.carry_out(order, tmp_path, fail)
    assert (report.outcome, report.reason) == (UNSUITABLE, "it cannot build the trial image: mksquashfs failed")


def test_a_job_of_root_does_not_build(tmp_path: Path, order: BuildOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_is_root", lambda: True)
    assert step.carry_out(order, tmp_path).reason == "its jobs run as root"


def test_an_image_that_cannot_be_had_is_reported_with_the_kind_of_failure(tmp_path: Path, order: BuildOrder) -> None:
    report = step.carry_out(replace(order, reference="registry.invalid/htc/small:1"), tmp_path, lambda *_: TRIAL)
    assert (report.outcome, report.kind) == (FAILED, "UnknownHostError")
    assert "registry.invalid cannot be found" in report.reason


def test_the_trial_gives_the_same_bytes_each_time_and_others_with_another_compression(tmp_path: Path) -> None:
    first, second, other = (trial_digest(Mksquashfs(name), tmp_path) for name in ("zstd", "zstd", "gzip"))
    assert first == second != other
    assert list(tmp_path.iterdir()) == []


def test_the_trial_tells_apart_what_squashes_the_images_that_the_own_squasher_leaves(tmp_path: Path) -> None:
    own, same, other = find_squasher(), Mksquashfs(), Tar2sqfs()
    assert isinstance(own, OwnSquasher)
    assert own.others == (own._program,)
    digests = [trial_digest(one, tmp_path) for one in (own, same, OwnSquasher(other, own._zstd, 3))]
    assert (digests[0] == digests[1]) == (same.version == MKSQUASHFS)
    assert digests[2] not in digests[:2]
