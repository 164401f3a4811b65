"""Builds in a pool that a script plays; tests/system/pool has a real one."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.builders import orders
from publisher.builders.condor import CondorBuilder
from publisher.builders.jobs import IDLE, RUNNING, QueuedJob
from publisher.builders.machines import MachineMemory
from publisher.builders.orders import FAILED, UNSUITABLE, BuildOrder, JobReport, StepOptions
from publisher.builders.pool_jobs import PoolOptions
from publisher.builders.sample import Sample
from publisher.contract.reference import Reference
from publisher.errors import BuildError, LayerError, UnavailableError
from tests.support.images import foreign_sif
from tests.support.images.layers import file
from tests.support.publisher.job_uploads import RecordedUploads, uploading
from tests.support.publisher.local_builder import builder as local_builder
from tests.support.publisher.scripted_pool import ScriptedPool, completed, held, returning

if TYPE_CHECKING:
    from publisher.build.builder import BuildRequest
    from publisher.state.built import BuiltImage

CONTENT = "ab" * 32


class PoolWorld:
    """A publisher host with a builder for a scripted pool."""

    def __init__(self, where: Path, pool: ScriptedPool, asked: BuildRequest, share: float = 0.0, **options: object) -> None:
        self.where = where
        self.pool = pool
        self.asked = asked
        self.share = share
        self.options = options
        self.now = 1000.0
        self.jobs = where / "jobs"
        self.jobs.mkdir()
        self.local = local_builder(where)
        self.uploads: RecordedUploads | None = None
        self.machines = MachineMemory(where / "machines.json", lambda: self.now)
        self.steps: list[str] = []
        self.builder = self.new_builder()

    def new_builder(self) -> CondorBuilder:
        values = {"interval": 0.001, **self.options}
        options = PoolOptions("here", self.where / "build-step.pyz", "X86_64", StepOptions(), "00" * 32, **values)  # type: ignore[arg-type]  # its own
        return CondorBuilder(
            self.local,
            self.pool,
            self.jobs,
            options,
            with_layers=lambda request: replace(request, layers=self.asked.layers, indexes=self.asked.indexes),
            machines=self.machines,
            sample=Sample(b"secret", self.share),
            uploads=self.uploads,  # type: ignore[arg-type]  # its methods
            clock=lambda: self.now,
        )

    def build(self, **more: object) -> BuiltImage:
        request = replace(self.asked, layers=(), indexes=(), **more)  # type: ignore[arg-type]  # fields of a request
        return self.builder.build(request, lambda step, *_: self.steps.append(step))

    def directories(self) -> list[Path]:
        return [path for path in self.jobs.iterdir() if path.is_dir()]


def content(asked: BuildRequest) -> str:
    return asked.image.content.removeprefix("sha256:")


def facts(built: BuiltImage) -> dict[str, object]:
    return {name: value for name, value in vars(built).items() if name not in {"sif", "file_index", "chunk_table"}}


def failing(report: JobReport, machine: str = "ep1") -> ScriptedPool:
    return ScriptedPool(lambda job: completed(job, None, machine, report))


def test_an_image_is_built_by_one_job_verified_kept_here_and_its_job_removed(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage
) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(returning(build)), asked)
    made = world.build()
    assert facts(made) == facts(build)
    assert made.sif.read_bytes() == build.sif.read_bytes()
    (job,) = world.pool.submitted
    order = BuildOrder.parse((Path(job["initialdir"]) / orders.ORDER).read_bytes())
    assert (order.name, order.reference, order.image) == (asked.name, str(asked.reference), asked.image)
    world.builder.close()
    assert (world.pool.queue, world.directories()) == ({}, [])
    assert world.build() == made
    assert len(world.pool.submitted) == 1
    world.builder.discard(asked)
    assert not made.sif.exists()


def test_a_publisher_that_was_killed_finds_its_running_job(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> None:
    pool = ScriptedPool(lambda job: replace(job, status=RUNNING))
    world = PoolWorld(tmp_path, pool, asked)

    def be_killed() -> None:
        with pytest.raises(UnavailableError, match="the run stops before its job has ended"):
            world.build()

    waiting = threading.Thread(target=be_killed)
    waiting.start()
    while not pool.queue:
        waiting.join(0.01)
    world.builder.stop()
    waiting.join()
    pool.work = returning(build)
    world.builder = world.new_builder()
    world.builder.sweep({asked.image.content})
    assert facts(world.build()) == facts(build)
    assert len(pool.submitted) == 1


def test_what_a_job_returned_counts_although_the_job_has_left_the_queue(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage
) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: job), asked)
    directory = world.jobs / f"{content(asked)}.1"
    directory.mkdir()
    completed(QueuedJob("1.0", IDLE, content(asked), str(directory)), build)
    (directory / "log").write_text("001 (1.0) Job executing on host\n\tSlotName: slot1_1@ep7\n...\n")
    world.builder.sweep({asked.image.content})
    assert facts(world.build()) == facts(build)
    assert world.pool.submitted == []
    assert world.machines.exclude("ep7", "") == [asked.name]


def test_a_job_that_the_queue_has_lost_is_submitted_again(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> None:
    ends = [None, None]
    pool = ScriptedPool(lambda job: ends.pop() if ends else completed(job, build))
    world = PoolWorld(tmp_path, pool, asked)
    world.build()
    assert len(pool.submitted) == 3


def test_a_held_job_is_made_anew_with_more_memory_where_it_had_too_little(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage
) -> None:
    holds: list[dict[str, object]] = [{"is_too_small": True}, {"is_too_small": False, "machine": "ep1"}]
    pool = ScriptedPool(lambda job: held(job, "for a reason", **holds.pop()) if holds else completed(job, build))
    world = PoolWorld(tmp_path, pool, asked)
    world.build()
    memory = [int(job["request_memory"]) for job in pool.submitted]
    assert memory == [memory[0], memory[0], 2 * memory[0]]
    assert '"ep1"' in pool.submitted[-1]["rank"], "another machine is better"
    assert len(pool.removed) == 2


def test_an_image_whose_jobs_are_always_held_fails_with_the_reasons(tmp_path: Path, asked: BuildRequest) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: held(job, "no disk", machine="ep1")), asked)
    with pytest.raises(UnavailableError, match=r"in 3 tries; ep1: its job was held: no disk") as given_up:
        world.build()
    assert given_up.value.image == asked.name
    world.builder.close()
    assert (world.pool.queue, world.directories()) == ({}, [])


def test_of_two_jobs_for_one_image_the_one_that_runs_stays(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: job), asked)
    first = world.pool.add(content(asked), world.jobs)
    directory = world.jobs / f"{content(asked)}.2"
    directory.mkdir()
    second = world.pool.add(content(asked), directory, status=RUNNING)
    world.pool.work = lambda job: completed(job, build) if job.id == second.id and first.id in world.pool.removed else job
    world.build()
    assert world.pool.removed[0] == first.id
    assert world.pool.submitted == []


def test_a_job_that_no_machine_takes_is_given_up(tmp_path: Path, asked: BuildRequest) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: replace(job, entered=1.0)), asked, wait=100.0)
    with pytest.raises(
        UnavailableError, match=r"no machine of the pool took its job within 100 s \(condor_q -better-analyze 1\.0"
    ):
        world.build()
    assert world.pool.removed == ["1.0"]


def test_an_evicted_job_that_waits_for_its_next_machine_is_not_given_up(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage
) -> None:
    def evict(job: QueuedJob) -> QueuedJob:
        return replace(job, entered=1.0, starts=1) if job.starts == 0 else completed(job, build)

    world = PoolWorld(tmp_path, ScriptedPool(evict), asked, wait=100.0)
    assert facts(world.build()) == facts(build)
    assert (world.pool.removed, len(world.pool.submitted)) == ([], 1)


def test_a_sweep_removes_jobs_of_images_that_left_the_list(tmp_path: Path, asked: BuildRequest) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: job), asked)
    for name in (CONTENT, content(asked)):
        directory = world.jobs / f"{name}.1"
        directory.mkdir()
        world.pool.add(name, directory)
    (world.jobs / f"{content(asked)}.2").mkdir()  # the publisher was killed before it submitted
    world.pool.silent = 1
    world.builder.sweep({asked.image.content})
    assert len(world.pool.queue) == 2, "the schedd did not answer"
    world.builder.sweep({asked.image.content})
    assert [job.content for job in world.pool.queue.values()] == [content(asked)]
    assert [path.name for path in world.directories()] == [f"{content(asked)}.1"]


def test_a_sweep_leaves_the_jobs_of_images_whose_registry_does_not_answer_now(tmp_path: Path, asked: BuildRequest) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: job), asked)
    for number, name in enumerate(("htc/gone:1", "htc/one:1", "htc/two:1 arm64")):
        directory = world.jobs / f"{number:064}.1"
        directory.mkdir()
        world.pool.add(f"{number:064}", directory, name=name)
    world.builder.sweep((), {"htc/one:1", "htc/two:1"})
    assert [job.name for job in world.pool.queue.values()] == ["htc/one:1", "htc/two:1 arm64"]
    assert {path.name for path in world.directories()} == {f"{number:064}.1" for number in (1, 2)}


def test_a_schedd_that_restarts_is_waited_for(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(returning(build)), asked)
    world.pool.silent = 3
    assert facts(world.build()) == facts(build)
    assert len(world.pool.submitted) == 1


def test_a_schedd_that_does_not_come_back_fails_the_image(tmp_path: Path, asked: BuildRequest) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: job), asked, patience=0.0)
    world.pool.silent = 1000
    with pytest.raises(UnavailableError, match=r"the schedd does not answer: .*Failed to connect"):
        world.build()


def test_a_machine_whose_programs_give_other_bytes_is_left_out_from_then_on(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage
) -> None:
    reports = [JobReport(UNSUITABLE, reason="other bytes")]
    pool = ScriptedPool(lambda job: completed(job, None, "ep1", reports.pop()) if reports else completed(job, build, "ep2"))
    world = PoolWorld(tmp_path, pool, asked)
    world.build()
    assert '"ep1"' not in pool.submitted[0]["requirements"]
    assert '!stringListIMember(TARGET.Machine, "ep1")' in pool.submitted[1]["requirements"]
    assert pool.requirements == [pool.submitted[1]["requirements"]], "jobs that wait already do not go there either"
    world.now += 90_000
    assert world.machines.avoided() == frozenset(), "it may have been updated"


def test_an_image_gives_up_where_no_machine_is_suitable(tmp_path: Path, asked: BuildRequest) -> None:
    world = PoolWorld(tmp_path, failing(JobReport(UNSUITABLE, reason="it has no mksquashfs")), asked)
    with pytest.raises(
        UnavailableError, match="20 machines of the pool could not build it, the last because it has no mksquashfs"
    ):
        world.build()


def test_a_failure_of_the_image_counts_once_two_jobs_report_it(tmp_path: Path, asked: BuildRequest) -> None:
    report = JobReport.of_error(LayerError("layer 1 is not a tar archive", hint="push it again"))
    world = PoolWorld(tmp_path, failing(report), asked)
    with pytest.raises(LayerError, match=r"layer 1 is not a tar archive \(push it again\)"):
        world.build()
    assert len(world.pool.submitted) == 2
    assert '"ep1"' in world.pool.submitted[1]["rank"]


@pytest.mark.parametrize(
    "report",
    [
        JobReport(FAILED, kind="SpaceError", reason="no space left"),
        JobReport("nonsense"),
        JobReport(FAILED, kind="BaseException"),
    ],
    ids=["the machine's", "not valid", "an error of no kind"],
)
def test_a_failure_of_the_machine_is_tried_again_and_not_the_images(
    tmp_path: Path, asked: BuildRequest, report: JobReport
) -> None:
    world = PoolWorld(tmp_path, failing(report), asked)
    with pytest.raises(UnavailableError, match="the pool did not build it in 3 tries"):
        world.build()
    assert len(world.pool.submitted) == 3


def test_the_last_line_of_a_job_that_crashed_is_repeated(tmp_path: Path, asked: BuildRequest) -> None:
    def crash(job: QueuedJob) -> QueuedJob:
        (Path(job.directory) / "err").write_text("Traceback:\nMemoryError\n\n")
        return completed(job, None)

    with pytest.raises(UnavailableError, match=r"the job's report is not valid \(its last line: MemoryError\)"):
        PoolWorld(tmp_path, ScriptedPool(crash), asked).build()


def test_an_image_of_the_sample_is_built_again_here(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(returning(build)), asked, share=1.0)
    assert facts(world.build()) == facts(build)
    assert "build again" in world.steps
    assert world.builder.take_notes() == []


def test_a_machine_whose_bytes_differ_is_found_excluded_and_not_published(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage
) -> None:
    forged = tmp_path / "forged.sif"
    forged.write_bytes(build.sif.read_bytes()[:-1] + b"!")
    other = replace(build, sif=forged, sha256="12" * 32)
    world = PoolWorld(tmp_path, ScriptedPool(returning(other, "ep9")), asked, share=1.0)
    world.machines.remember("ep9", "htc/earlier:1")
    assert facts(world.build()) == facts(build), "this host's bytes are published"
    (note,) = world.builder.take_notes()
    assert note.startswith(
        f"ep9 is excluded from builds: its SIF of {asked.name} is {other.sha256}, this host's is {build.sha256}"
    )
    assert "it has also built htc/earlier:1" in note
    assert MachineMemory(tmp_path / "machines.json", lambda: world.now + 1e9).avoided() == {"ep9"}
    world.builder.discard(asked)
    world.share = 0.0
    world.builder = world.new_builder()
    world.pool.work = returning(build, "ep9")
    with pytest.raises(UnavailableError, match="ep9: this machine is excluded"):
        world.build()


def test_a_private_image_is_built_here_and_never_in_the_pool(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(returning(build)), asked)
    assert facts(world.build(private=True)) == facts(build)
    assert world.pool.submitted == []


def test_what_is_wanted_as_a_sandbox_alone_is_planned_here_and_squashed_nowhere(tmp_path: Path, asked: BuildRequest) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(lambda _: None), asked)
    made = world.build(sif=False)
    assert (made.sha256, made.size, world.pool.submitted) == ("", 0, [])
    assert made.source is not None


def test_a_finished_sif_is_checked_here_because_nothing_is_built(tmp_path: Path) -> None:
    sif = foreign_sif.sif(foreign_sif.partition(foreign_sif.squashfs(tmp_path, (file("x"),))))
    world = PoolWorld(tmp_path, ScriptedPool(lambda _: None), foreign_sif.request(sif, tmp_path))
    reference = Reference("registry.example", "lab/solver", "1", None, "oras")
    assert world.build(reference=reference).notes["source"] == "SIF for amd64"
    assert world.directories() == []


def test_no_more_jobs_are_queued_than_allowed(tmp_path: Path, asked: BuildRequest) -> None:
    report = JobReport.of_error(BuildError("no"))
    world = PoolWorld(tmp_path, failing(report), asked, jobs=2)

    def build(number: int) -> None:
        config = replace(asked.image.manifest.config, digest=f"sha256:{number:064}")
        image = replace(asked.image, manifest=replace(asked.image.manifest, config=config))
        with pytest.raises(BuildError):
            world.build(image=image)

    threads = [threading.Thread(target=build, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(world.pool.submitted) == 8
    assert world.pool.most == 2


def test_a_job_that_claims_a_directory_of_somebody_else_is_removed(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage
) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(returning(build)), asked)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    job = world.pool.add(content(asked), elsewhere)
    world.build()
    assert job.id in world.pool.removed
    assert len(world.pool.submitted) == 1


@pytest.fixture
def uploads() -> RecordedUploads:
    return RecordedUploads()


def with_uploads(world: PoolWorld, uploads: RecordedUploads) -> PoolWorld:
    world.uploads = uploads
    world.builder = world.new_builder()
    return world


def test_what_a_job_has_uploaded_is_verified_and_kept_until_it_is_published(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage, uploads: RecordedUploads
) -> None:
    world = with_uploads(PoolWorld(tmp_path, ScriptedPool(uploading(uploads, build)), asked), uploads)
    made = world.build()
    assert facts(made) == facts(build)
    assert made.sif.read_bytes() == build.sif.read_bytes()
    (job,) = world.pool.submitted
    directory = Path(job["initialdir"])
    order = BuildOrder.parse((directory / orders.ORDER).read_bytes())
    assert order.upload == uploads.grant(directory.name)
    world.builder.close()
    assert (world.pool.queue, world.directories()) == ({}, [])
    assert (list(uploads.stored), uploads.discarded) == ([directory.name], [])
    world.builder.discard(asked)
    assert (uploads.stored, uploads.discarded) == ({}, [directory.name])


@pytest.mark.parametrize(
    ("share", "reason"),
    [(0, "is not in the origin, or has another size than its report says"), (1, "does not have the digest that its report says")],
    ids=["nothing", "other bytes"],
)
def test_an_upload_that_is_not_what_the_job_says_is_not_believed(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage, share: int, reason: str
) -> None:
    uploads = RecordedUploads()
    pool = ScriptedPool(uploading(uploads, build, bytes(share * build.size)))
    world = with_uploads(PoolWorld(tmp_path, pool, asked), uploads)
    with pytest.raises(UnavailableError, match=reason):
        world.build()
    world.builder.close()
    assert len(world.pool.submitted) == len(uploads.discarded) == 3
    assert uploads.stored == {}


def test_an_upload_of_the_sample_is_compared_where_it_is(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage, uploads: RecordedUploads
) -> None:
    world = with_uploads(
        PoolWorld(tmp_path, ScriptedPool(uploading(uploads, build, bytes(build.size))), asked, share=1.0), uploads
    )
    assert facts(world.build()) == facts(build)
    (note,) = world.builder.take_notes()
    assert note.startswith("ep1 is excluded from builds")
    world.builder.close()
    assert uploads.stored == {}, "this host's own SIF is published"


def test_a_job_that_cannot_upload_or_gets_no_token_returns_its_sif_by_file_transfer(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage, uploads: RecordedUploads, caplog: pytest.LogCaptureFixture
) -> None:
    report = replace(JobReport.of_build(build), upload_problem="status 403")
    world = with_uploads(PoolWorld(tmp_path, ScriptedPool(returning(build, report=report)), asked), uploads)
    uploads.is_down = True
    assert facts(world.build()) == facts(build)
    (job,) = world.pool.submitted
    assert BuildOrder.parse((Path(job["initialdir"]) / orders.ORDER).read_bytes()).upload is None
    assert "ep1 could not upload" in caplog.text
    assert "the director does not answer" in caplog.text


def test_an_upload_that_this_run_cannot_read_is_built_again(
    tmp_path: Path, asked: BuildRequest, build: BuiltImage, uploads: RecordedUploads
) -> None:
    """The settings of the run before had tokens for jobs."""
    first, later = uploading(uploads, build), returning(build)
    world = PoolWorld(tmp_path, ScriptedPool(lambda job: (first if job.id == "1.0" else later)(job)), asked)
    assert facts(world.build()) == facts(build)
    assert len(world.pool.submitted) == 2


def test_two_names_of_one_image_are_built_once(tmp_path: Path, asked: BuildRequest, build: BuiltImage) -> None:
    world = PoolWorld(tmp_path, ScriptedPool(returning(build)), asked)
    threads = [threading.Thread(target=world.build, kwargs={"name": name}) for name in ("htc/a:1", "htc/b:1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(world.pool.submitted) == 1
