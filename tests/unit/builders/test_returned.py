"""What a machine may have put into a job's files: everything that differs from its report or the image's is refused."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.build.sif import DATA_OFFSET
from publisher.builders import returned
from publisher.builders.orders import FILE_INDEX, REPORT, SIF, JobError, JobReport
from publisher.chunks.cutter import cut_file
from publisher.fileindex.format import FileIndexWriter
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.build.builder import BuildRequest
    from publisher.state.built import BuiltImage


class ReturnedJob:
    """The directory of a job that has returned a build, to be changed."""

    def __init__(self, where: Path, asked: BuildRequest, build: BuiltImage) -> None:
        self.asked = asked
        self.directory = where / "job"
        self.target = where / "target"
        for path in (self.directory, self.target):
            path.mkdir()
        self.sif, self.index = self.directory / SIF, self.directory / FILE_INDEX
        shutil.copyfile(build.sif, self.sif)
        shutil.copyfile(build.file_index, self.index)
        self.report = JobReport.of_build(build)

    def say(self, **facts: object) -> None:
        self.report = replace(self.report, build={**self.report.build, **facts})

    def collect(self, limits: LayerLimits = DEFAULT_LIMITS) -> BuiltImage:
        return returned.collect(self.directory, self.report, self.target, self.asked, limits=limits, deadline=60)

    def refused(self, reason: str) -> None:
        with pytest.raises(JobError, match=reason):
            self.collect()


@pytest.fixture
def job(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> ReturnedJob:
    return ReturnedJob(tmp_path, asked, build)


def test_what_is_right_is_copied(job: ReturnedJob, build: BuiltImage) -> None:
    made = job.collect()
    assert made.sif.read_bytes() == build.sif.read_bytes()
    assert made.file_index.read_bytes() == build.file_index.read_bytes()
    assert (made.sif.parent, made.sha256, made.tools) == (job.target, build.sha256, build.tools)
    assert made.chunk_table is not None
    assert (made.chunk_table.read_bytes(), made.chunks) == (cut_file(build.sif)[1], build.chunks), "made here, not by the machine"


def test_another_image(job: ReturnedJob) -> None:
    job.say(config="sha256:" + "ab" * 32)
    job.refused("another image than the one it was to build")


def test_an_image_over_the_limits(job: ReturnedJob) -> None:
    with pytest.raises(JobError, match="exceeds the limits"):
        job.collect(LayerLimits(entries=2))


@pytest.mark.parametrize("place", [0, 50, DATA_OFFSET - 1, DATA_OFFSET + 100, -1])
def test_a_changed_byte_of_the_sif(job: ReturnedJob, place: int) -> None:
    content = bytearray(job.sif.read_bytes())
    content[place] ^= 1
    job.sif.write_bytes(content)
    job.refused("does not have the digest")


def test_code_in_the_header_with_a_digest_that_fits(job: ReturnedJob) -> None:
    """The first line of a SIF is what a shell would run."""
    content = bytearray(job.sif.read_bytes())
    content[:12] = b"#!/bin/evil\n"
    job.sif.write_bytes(content)
    job.say(sha256=hashlib.sha256(content).hexdigest())
    job.refused("another header than it should")


def test_a_squashfs_with_other_contents_than_the_file_index(job: ReturnedJob) -> None:
    written = io.BytesIO()
    index = FileIndexWriter(written)
    for number in range(job.report.build["files"]):
        size = job.report.build["unpacked_size"] if number == 0 else 0
        index.add(b"0", b"file%d" % number, 0o644, 0, 0, size, 0, bytes(32))
    index.close()
    job.index.write_bytes(written.getvalue())
    job.report = replace(job.report, file_index_sha256=hashlib.sha256(written.getvalue()).hexdigest())
    job.refused("does not have the files that were written into it")


@pytest.mark.parametrize("fact", ["files", "unpacked_size"])
@pytest.mark.parametrize("by", [-1, 1])
def test_other_numbers_than_those_of_the_file_index(job: ReturnedJob, fact: str, by: int) -> None:
    job.say(**{fact: job.report.build[fact] + by})
    job.refused("does not have the number and sizes of files")


def test_a_file_index_of_another_digest(job: ReturnedJob) -> None:
    job.index.write_bytes(job.index.read_bytes() + b"x")
    job.refused("file index does not have the digest")


def test_a_file_index_that_is_none(job: ReturnedJob) -> None:
    job.index.write_bytes(b"no index")
    job.report = replace(job.report, file_index_sha256=hashlib.sha256(b"no index").hexdigest())
    job.refused("file index is not valid")


def test_a_sif_without_an_end(job: ReturnedJob) -> None:
    with job.sif.open("ab") as file:
        file.truncate(1 << 40)
    job.refused("SIF has more bytes than its report says")


def test_a_sif_without_a_squashfs(job: ReturnedJob) -> None:
    job.sif.write_bytes(bytes(DATA_OFFSET + 10))
    job.say(sha256=hashlib.sha256(bytes(DATA_OFFSET + 10)).hexdigest())
    job.refused("the job's SIF is not valid: image.sif has no squashfs")


def test_a_sif_that_is_cut(job: ReturnedJob) -> None:
    os.truncate(job.sif, 100)
    job.say(sha256=hashlib.sha256(job.sif.read_bytes()).hexdigest())
    job.refused("too short")


@pytest.mark.parametrize("name", [SIF, FILE_INDEX, REPORT])
def test_a_link_and_a_pipe_in_the_place_of_a_file(job: ReturnedJob, name: str) -> None:
    path = job.directory / name
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/passwd")
    assert returned.is_complete(job.directory) is False
    with pytest.raises(JobError, match=f"returned no {name}"):
        _read(job, name)
    path.unlink()
    os.mkfifo(path)
    shutil.rmtree(job.target)
    job.target.mkdir()
    with pytest.raises(JobError, match="that is not a file"):
        _read(job, name)


def _read(job: ReturnedJob, name: str) -> None:
    if name == REPORT:
        returned.read_report(job.directory)
    job.collect()


def test_a_link_in_the_place_of_the_directory(job: ReturnedJob, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(job.directory)
    with pytest.raises(JobError):
        returned.digest_of_sif(tmp_path / "link")


def test_a_job_is_complete_when_its_files_have_the_sizes_of_its_report(job: ReturnedJob) -> None:
    assert not returned.is_complete(job.directory), "no report"
    (job.directory / REPORT).write_bytes(job.report.to_bytes())
    assert returned.is_complete(job.directory)
    os.truncate(job.sif, job.sif.stat().st_size - 1)
    assert not returned.is_complete(job.directory), "the transfer was interrupted"
    (job.directory / REPORT).write_bytes(JobReport("failed", reason="no").to_bytes())
    assert returned.is_complete(job.directory)


def test_the_machine_is_read_from_the_event_log_and_the_last_words_from_the_error(job: ReturnedJob) -> None:
    assert (returned.read_machine(job.directory), returned.last_words(job.directory)) == ("", "")
    (job.directory / "log").write_text("\tSlotName: slot1_1@ep1\n...\n\tSlotName: slot1_2@ep2.example.org\n...\n")
    (job.directory / "err").write_text("one\ntwo \x1b[31m\n\n")
    assert returned.read_machine(job.directory) == "ep2.example.org"
    assert returned.last_words(job.directory).startswith("two")
    assert "\x1b" not in returned.last_words(job.directory)
