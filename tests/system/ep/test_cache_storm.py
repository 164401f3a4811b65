"""Many real hooks at once on one cache: a cold one, killed ones, and a disk that is full or fills."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.cache import counters, pins
from publisher.resolver.cache.cache import Cache
from publisher.resolver.hook import statuses
from tests.support.ep.execution_point import ExecutionPoint, record, sif_content, version
from tests.support.ep.hook import WATCHDOG, Hook, Reply, job_ad, reply
from tests.support.machine import child_process
from tests.support.machine.small_disk import small_disk
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.system

NAMES = ("htc/a:1", "htc/b:1", "htc/c:1")
SIZE = 600_000
JOBS, KILLED_JOBS, ROUNDS = 200, 16, 3


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    point = ExecutionPoint(tmp_path)
    records = [record(name, amd64=[version(name, sif=point.store(sif_content(name, SIZE)))]) for name in NAMES]
    point.publish(*records, now=int(time.time()))
    return point


@pytest.fixture
def web(ep: ExecutionPoint) -> Iterator[FileServer]:
    with FileServer(ep.origin) as server:
        yield server


@pytest.fixture
def disk(ep: ExecutionPoint) -> Iterator[Path]:
    """The cache on a device of two megabytes."""
    with small_disk(ep.cache, "size=2m,mode=700", "a cache on a full disk") as place:
        yield place


@pytest.fixture
def starters() -> Iterator[list[int]]:
    """Processes that live as long as the test, or until they are killed."""
    started = [child_process.start(signal.pause) for _ in NAMES]
    yield started
    for child in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            child_process.end(child)


def hook(program: Path, ep: ExecutionPoint, web: FileServer, **more: str) -> Hook:
    made = Hook([program], ep, **{"form": "sif", "backoff": "0", "cache_free": "0", "origin": web.url, **more})
    made.environment["CONDOR_STARTER_PID"] = str(os.getpid())
    return made


def start(hook: Hook, name: str, *, starter: int | None = None) -> subprocess.Popen[bytes]:
    """A hook that has its ad, in a session of its own."""
    environment = dict(hook.environment)
    if starter is not None:
        environment["CONDOR_STARTER_PID"] = str(starter)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        hook.command, cwd=hook.scratch, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.write(job_ad(SingularityImage=name))
    process.stdin.close()
    process.stdin = None
    return process


def end(process: subprocess.Popen[bytes]) -> Reply:
    with process:
        out, err = process.communicate(timeout=WATCHDOG)
    return reply(out, err.decode())


def ask(hook: Hook, name: str, starter: int | None = None) -> Reply:
    return end(start(hook, name, starter=starter))


def kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Each with its children, as HTCondor's procd does."""
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        with process:
            process.communicate(timeout=WATCHDOG)


def assert_right(answer: Reply, name: str) -> None:
    assert answer.code == 0, answer.message
    assert Path(answer.image).read_bytes() == sif_content(name, SIZE)


def assert_sound(ep: ExecutionPoint) -> None:
    """Whatever has a SIF's name has its bytes."""
    for path in (ep.cache / "sif").rglob("*.sif"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def fill(disk: Path) -> None:
    """Take all room, byte by byte at its end."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_200_jobs_at_once_on_a_cold_cache_are_one_download(program: Path, ep: ExecutionPoint, web: FileServer) -> None:
    one = hook(program, ep, web)
    web.faults = ["cut"]  # which makes it two requests, the second one for the rest, and gives the others time to come
    started = [start(one, NAMES[0]) for _ in range(JOBS)]
    for process in started:
        assert_right(end(process), NAMES[0])
    asked = [part for path, part in web.requests if path.startswith("/sif/")]
    assert asked == ["", f"bytes={SIZE // 2}-{SIZE - 1}"]
    counts = counters.read(str(ep.cache))
    assert (counts.hits, counts.downloads, counts.bytes) == (JOBS - 1, 1, SIZE)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_hooks_that_are_killed_leave_the_cache_right_and_the_others_go_on(
    program: Path, ep: ExecutionPoint, web: FileServer, seed: int
) -> None:
    chance = random.Random(seed)
    one = hook(program, ep, web)
    web.faults = ["stall"]
    started = [start(one, NAMES[0]) for _ in range(KILLED_JOBS)]
    assert web.stalled.wait(WATCHDOG)
    chance.shuffle(started)
    left = chance.randrange(1, 4)
    kill(started[left:])
    web.released.set()
    for process in started[:left]:
        assert_right(end(process), NAMES[0])
    assert_sound(ep)
    others = [start(one, chance.choice(NAMES)) for _ in range(KILLED_JOBS)]
    for process in chance.sample(others, len(others) // 2):  # at whatever they are
        kill([process])
        others.remove(process)
    for process in others:
        assert end(process).code == 0
    assert_sound(ep)
    for name in NAMES:
        assert_right(ask(one, name), name)
    assert not list((ep.cache / "sif").rglob("*.part"))


def test_a_killed_downloads_bytes_are_not_fetched_again(program: Path, ep: ExecutionPoint, web: FileServer) -> None:
    one = hook(program, ep, web)
    web.faults = ["stall"]
    first = start(one, NAMES[0])
    assert web.stalled.wait(WATCHDOG)
    part = Path(Cache(str(ep.cache)).entries.part_path(hashlib.sha256(sif_content(NAMES[0], SIZE)).hexdigest()))
    deadline = time.monotonic() + WATCHDOG
    while not part.stat().st_size:
        assert time.monotonic() < deadline
    second = start(one, NAMES[0])
    kill([first])
    web.released.set()
    assert_right(end(second), NAMES[0])
    rest = web.requests[-1][1]
    assert rest.startswith("bytes=")
    assert int(rest.removeprefix("bytes=").split("-")[0]) > 0


def test_a_full_disk_makes_room_for_what_jobs_need_and_says_so_when_it_cannot(
    program: Path, ep: ExecutionPoint, web: FileServer, disk: Path, starters: list[int]
) -> None:
    one = hook(program, ep, web)
    for name, starter in zip(NAMES, starters, strict=True):
        assert_right(ask(one, name, starter), name)
    fill(disk)
    asked = web.downloads()
    assert_right(ask(one, NAMES[0], starters[0]), NAMES[0])
    removed = hashlib.sha256(sif_content(NAMES[0], SIZE)).hexdigest()
    Path(Cache(str(ep.cache)).entries.sif_path(removed)).unlink()
    fill(disk)
    jobs = [start(one, NAMES[0], starter=os.getpid()) for _ in range(10)]
    replies = [end(job) for job in jobs]
    assert {answer.code for answer in replies} == {statuses.NO_ROOM}, "idle again: 300 and more"
    assert web.downloads() == asked, "none was begun"
    os.kill(starters[1], signal.SIGKILL)
    child_process.end(starters[1])
    (ep.cache / "failures/room").unlink(missing_ok=True)  # as after its time
    assert_right(ask(one, NAMES[0], os.getpid()), NAMES[0])
    assert set(pins.count_pins(str(ep.cache))) >= {removed}
    assert len(list((ep.cache / "sif").rglob("*.sif"))) == 2
    assert_sound(ep)


def test_a_disk_that_fills_while_jobs_wait_ends_in_their_sandboxes(
    program: Path, ep: ExecutionPoint, web: FileServer, disk: Path
) -> None:
    """The fallback where there is one: SIFs are preferred here, and the repository is there too."""
    one = hook(program, ep, web, form="auto", prefer="sif")
    web.faults = ["stall"]
    jobs = [start(one, NAMES[0]) for _ in range(10)]
    assert web.stalled.wait(WATCHDOG)
    fill(disk)
    web.released.set()
    answers = [end(job) for job in jobs]
    assert {answer.code for answer in answers} == {0}
    assert {answer.form for answer in answers} == {"sandbox"}
    assert web.downloads() <= 2 * 2, "not one for each job"
    assert_sound(ep)


def test_a_disk_that_fills_while_a_download_runs_loses_what_nobody_needs(
    program: Path, ep: ExecutionPoint, web: FileServer, disk: Path, starters: list[int]
) -> None:
    one = hook(program, ep, web)
    for name, starter in zip(NAMES[1:], starters, strict=False):
        assert_right(ask(one, name, starter), name)
    os.kill(starters[0], signal.SIGKILL)
    child_process.end(starters[0])
    web.faults = ["stall"]
    job = start(one, NAMES[0])
    assert web.stalled.wait(WATCHDOG)
    fill(disk)
    web.released.set()
    assert_right(end(job), NAMES[0])
    names = {path.stem for path in (ep.cache / "sif").rglob("*.sif")}
    assert names == {hashlib.sha256(sif_content(name, SIZE)).hexdigest() for name in (NAMES[0], NAMES[2])}
