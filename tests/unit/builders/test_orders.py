"""What goes into a job comes out of it unchanged, and what a machine says is believed only where it can be a record's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.builders.orders import BUILT, FAILED, UNSUITABLE, BuildOrder, JobError, JobReport, StepOptions
from publisher.errors import LayerError, SpaceError
from publisher.layers.limits import LayerLimits
from publisher.targets.origins.job_uploads import UploadGrant

if TYPE_CHECKING:
    from publisher.build.builder import BuildRequest
    from publisher.state.built import BuiltImage


def test_an_order_is_read_as_it_was_written(asked: BuildRequest) -> None:
    options = StepOptions(
        limits=LayerLimits(entries=7),
        insecure=("localhost:5000",),
        networks=("10.1.0.0/16",),
        mirrors={"docker.io": ("http://m",)},
    )
    order = BuildOrder("htc/small:1", "registry.example.org/htc/small:1", asked.image, "ab" * 32, options)
    assert BuildOrder.parse(order.to_bytes()) == order
    grant = UploadGrant("origin.example.org:8443", "/images", ".incoming/job/image.sif", "s3cret", "-----BEGIN")
    with_upload = replace(order, upload=grant)
    assert BuildOrder.parse(with_upload.to_bytes()) == with_upload
    assert "s3cret" not in repr(with_upload)


def test_a_report_is_read_as_it_was_written(build: BuiltImage) -> None:
    reports = [
        JobReport.of_build(build),
        JobReport.of_error(LayerError("no tar", hint="push")),
        JobReport(UNSUITABLE, reason="no"),
        replace(JobReport.of_build(build), uploaded=True),
        replace(JobReport.of_build(build), upload_problem="no space left"),
    ]
    assert [JobReport.parse(report.to_bytes()) for report in reports] == reports


def test_a_report_names_failures_of_images_and_of_registries_and_no_others() -> None:
    error = JobReport.of_error(LayerError("no tar", hint="push")).error()
    assert isinstance(error, LayerError)
    assert str(error) == "no tar (push)"
    assert JobReport.of_error(SpaceError("full")).error() is None, "the machine's"
    assert JobReport(FAILED, kind="SystemExit").error() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "../etc"},
        {"sha256": 5},
        {"size": -1},
        {"size": True},
        {"size": 1.5},
        {"files": "1"},
        {"test": "passed"},
        {"config": None},
        {"tools": {"mksquashfs": ["4.5"]}},
        {"tools": "mksquashfs"},
        {"notes": {"dropped": {}}},
        {"notes": {"test": "x" * 3000}},
        {"sif": "/etc/passwd"},
    ],
    ids=str,
)
def test_a_report_with_other_facts_than_a_record_has_is_refused(build: BuiltImage, changes: dict[str, object]) -> None:
    report = JobReport.of_build(build)
    with pytest.raises(JobError, match="the job's report is not valid"):
        JobReport.parse(replace(report, build={**report.build, **changes}).to_bytes())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'"' + b" " * (2 << 20) + b'"',
        json.dumps({"outcome": "published"}).encode(),
        json.dumps({"outcome": BUILT, "build": {}, "file_index_sha256": "ab" * 32}).encode(),
        json.dumps({"outcome": FAILED, "reason": 7}).encode(),
        json.dumps({"outcome": FAILED, "uploaded": "yes"}).encode(),
        json.dumps({"outcome": FAILED, "reason": "x" * 3000}).encode(),
    ],
    ids=["empty", "list", "nothing", "deep", "long", "outcome", "no-build", "reason", "uploaded", "long-reason"],
)
def test_a_report_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(JobError, match="the job's report is not valid"):
        JobReport.parse(content)
