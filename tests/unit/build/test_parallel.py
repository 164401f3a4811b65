from __future__ import annotations

import io
import logging
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from publisher.build import build_process, parallel
from publisher.build.build_process import BuildProcessBug, Step
from publisher.build.builder import BuildRequest
from publisher.build.parallel import ParallelBuilder, default_builds, lock_builds
from publisher.errors import BuildError, LayerError, StateDirectoryError
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest
from tests.support.publisher.built_values import AMD64, digest
from tests.support.publisher.process_builder import ScriptedBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from publisher.state.built import BuiltImage

PATIENCE = 60.0
GIB = 1 << 30


def request(name: str) -> BuildRequest:
    config = Descriptor("", digest(f"config of {name}"), 1)
    return BuildRequest(name, Image(ImageManifest(digest(name), "", config, ()), ImageConfig(AMD64, (), b"{}")), (), ())


def until(there: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while not there.exists():
        assert time.monotonic() < ends, f"{there} does not come"
        time.sleep(0.01)


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[ParallelBuilder]:
    with lock_builds(tmp_path / "builds") as lock:
        made = ParallelBuilder(ScriptedBuilder(tmp_path), 2, lock)  # type: ignore[arg-type]  # a builder that can be pickled
        yield made
        made.stop()
        made.close()


def nothing(*_: object) -> None: ...


def test_a_process_builds_one_image_after_the_other_and_says_what_it_does(
    builder: ParallelBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[tuple[str, int, int]] = []
    with caplog.at_level(logging.INFO, "publisher"):
        first = builder.build(request("one"), lambda *step: steps.append(step))
        second = builder.build(request("two"), nothing)
    assert first.sif.name == "one"
    assert steps == [("squash", 1, 2)]
    assert first.tools == second.tools != {"process": str(os.getpid())}
    assert [record.getMessage() for record in caplog.records] == ["one is built", "two is built"]


@pytest.mark.parametrize(("images", "processes"), [(0, 0), (1, 1), (5, 2)])
def test_processes_are_started_ahead_for_as_many_images_as_there_are_places(
    builder: ParallelBuilder, images: int, processes: int
) -> None:
    builder.start(images)
    started = list(builder._idle)
    assert len(started) == processes
    builder.build(request("one"), nothing)
    builder.start(images)
    assert len(builder._idle) == max(1, processes), "the build took one that was started, and no other was started after it"
    assert set(started) <= set(builder._idle)


def test_failures_and_bugs_arrive_as_they_are_and_the_process_goes_on(builder: ParallelBuilder) -> None:
    process = builder.build(request("one"), nothing).tools
    with pytest.raises(LayerError, match="not a tar archive") as refused:
        builder.build(request("refused"), nothing)
    assert (refused.value.image, refused.value.hint) == ("refused", "push it again")
    with pytest.raises(BuildProcessBug, match=r"(?s)process_builder.py.*ZeroDivisionError: bug"):
        builder.build(request("bug"), nothing)
    assert builder.build(request("two"), nothing).tools == process


def test_a_process_that_dies_fails_its_image_alone(builder: ParallelBuilder, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(builder.build, request("hangs"), nothing)
        until(tmp_path / "hangs")
        with pytest.raises(BuildError, match="the process that built it ended: the build process was ended by signal 9") as died:
            builder.build(request("killed"), nothing)
        assert died.value.image == "killed"
        assert "builds" in str(died.value.hint)
        assert builder.build(request("one"), nothing).sif.name == "one", "while the first one still hangs"
        assert not hanging.done()
        builder.stop()
        with pytest.raises(BuildError, match="was killed"):
            hanging.result(PATIENCE)


def test_a_stop_also_ends_builds_that_wait_for_their_place_and_no_later_ones(builder: ParallelBuilder, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as threads:
        futures: list[Future[BuiltImage]] = []
        for number in range(2):
            futures.append(threads.submit(builder.build, request(f"hangs {number}"), nothing))
            until(tmp_path / f"hangs {number}")
        entered = threading.Event()
        waiting = threads.submit(_call, entered, builder, request("waits"))
        assert entered.wait(PATIENCE)
        while builder._contents.keys() != {digest(f"config of {name}") for name in ("hangs 0", "hangs 1", "waits")}:
            time.sleep(0.01)
        builder.stop()
        for future in (*futures, waiting):
            with pytest.raises(BuildError):
                future.result(PATIENCE)
    assert builder.build(request("one"), nothing).sif.name == "one"


def _call(entered: threading.Event, builder: ParallelBuilder, asked: BuildRequest) -> BuiltImage:
    entered.set()
    return builder.build(asked, nothing)


def test_finished_builds_are_discarded_and_swept_here(builder: ParallelBuilder, tmp_path: Path) -> None:
    builder.discard(request("one"))
    builder.sweep({"sha256:1"})
    assert {path.name for path in tmp_path.iterdir()} == {"builds", "discarded one", "swept ['sha256:1']"}


def test_the_next_run_waits_for_processes_that_a_killed_run_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_LEFT_BEHIND", 0.2)
    with lock_builds(tmp_path), pytest.raises(StateDirectoryError, match="processes of a killed run are still building"):
        lock_builds(tmp_path).__enter__()
    with lock_builds(tmp_path) as descriptor:
        assert os.fstat(descriptor).st_ino == (tmp_path / "lock").stat().st_ino


def test_what_a_build_process_reads_and_writes(tmp_path: Path) -> None:
    """The same in this process, without pipes."""
    asked = io.BytesIO(
        b"".join(map(pickle.dumps, [(logging.INFO, ScriptedBuilder(tmp_path)), *map(request, ("one", "refused", "bug"))]))
    )
    answers = io.BytesIO()
    logger = logging.getLogger("publisher")
    propagate = logger.propagate
    try:
        build_process.serve(asked, answers)
    finally:
        logger.propagate = propagate
    answers.seek(0)
    step, record, built, _, _, refused, _, _, bug = [pickle.load(answers) for _ in range(9)]  # noqa: S301 - ours
    assert (step, record.getMessage(), built.sif.name) == (Step("squash", 1, 2), "one is built", "one")
    assert isinstance(refused, LayerError)
    assert isinstance(bug, BuildProcessBug)
    assert answers.read() == b""


def test_a_log_record_with_an_exception_can_be_sent() -> None:
    sent: list[object] = []
    with pytest.raises(ValueError, match="invalid") as caught:
        int("x")
    trace = (caught.type, caught.value, caught.tb)
    made = logging.makeLogRecord({"msg": "%s", "args": ("failed",), "exc_info": trace})
    build_process._Forwarding(sent.append).emit(made)
    (record,) = pickle.loads(pickle.dumps(sent))  # noqa: S301 - ours
    assert record.getMessage() == "failed"
    assert "ValueError" in record.exc_text
    assert made.args == ("failed",), "other handlers get the record as it was"


def test_by_default_there_are_as_many_builds_as_cores_memory_and_disk_allow() -> None:
    plenty = {"cores": 32, "memory": 1000 * GIB, "disk": 1000 * GIB, "test_memory": GIB // 2}
    assert default_builds(**plenty) == 32
    assert default_builds(**plenty | {"memory": 10 * GIB}) == 11
    assert default_builds(**plenty | {"disk": 20 * GIB}) == 5
    assert default_builds(**plenty | {"memory": 0}) == 1
