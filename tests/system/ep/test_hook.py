"""The hook ``prepare-job`` as a process of its own, without HTCondor: one answer whatever a job names and a host does."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.cache.cache import Cache
from publisher.resolver.hook import statuses
from publisher.resolver.system import locks
from publisher.resolver.system.classad import MAX_BYTES
from tests.support.ep.chirp_starter import Starter
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, sif_of, version
from tests.support.ep.hook import WATCHDOG, Hook, job_ad, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.system

NAME = "htc/rocky:9"
CVMFS = f"/cvmfs/{REPOSITORY}/{NAME}"
CONTENT = sif_content(NAME, 100_000)
SHA256 = sif_of(CONTENT).sha256
JOB = job_ad(SingularityImage=CVMFS)


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    point = ExecutionPoint(tmp_path)
    point.publish(record(NAME, amd64=[version(NAME, sif=point.store(CONTENT))]), now=int(time.time()))
    return point


@pytest.fixture
def hook(program: Path, ep: ExecutionPoint) -> Hook:
    return Hook([program], ep, backoff="0", trace=f"{ep.root}/trace")


@pytest.fixture
def blocking(ep: ExecutionPoint) -> Path:
    """A file that whoever opens it waits for: nobody ever writes."""
    path = ep.root / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def silent(blocking: Path) -> Iterator[Path]:
    """A file that whoever reads it waits for."""
    descriptor = os.open(blocking, os.O_RDWR)
    yield blocking
    os.close(descriptor)


def trace(ep: ExecutionPoint) -> list[dict[str, object]]:
    return [json.loads(line) for line in (ep.root / "trace").read_text().splitlines()]


def is_open(fifo: Path) -> bool:
    """Whether a process has a fifo open for reading."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WATCHDOG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def reads(pid: int, path: Path) -> bool:
    try:
        return path in [descriptor.readlink() for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:  # one that was closed meanwhile
        return False


def is_gone(pid: int) -> bool:
    """Whether a process has ended, looked after or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def at_work(hook: Hook, silent: Path, *flags: str) -> tuple[subprocess.Popen[bytes], int]:
    """A hook whose child waits for ever, for its facts; and the child."""
    process = hook.start(f"--facts={silent}", *flags)
    assert process.stdin is not None
    process.stdin.write(JOB)
    process.stdin.close()
    process.stdin = None
    until(lambda: len(children(process)) == 1 and reads(children(process)[0], silent))
    return process, children(process)[0]


def test_a_job_gets_the_sandbox_itself_and_the_digest_for_its_log(hook: Hook, ep: ExecutionPoint) -> None:
    answer = hook.job(SingularityImage=CVMFS)
    assert (answer.code, answer.image, answer.form) == (0, f"{ep.repository}/{version(NAME).sandbox}", "sandbox")
    assert version(NAME).digest in answer.message
    assert answer.talk == ""


def test_without_the_repository_it_gets_the_sif(hook: Hook, ep: ExecutionPoint) -> None:
    ep.repository.rename(ep.root / "away")
    answer = hook.job(ContainerImage=CVMFS, WantContainer=True, WantSandboxImage=True, JobUniverse=5)
    assert (answer.code, answer.form) == (0, "sif")
    assert Path(answer.image).read_bytes() == CONTENT
    (line,) = trace(ep)
    assert (line["job"], line["form"], line["sif_source"], line["bytes"]) == ("7.0", "sif", str(ep.origin), len(CONTENT))


def test_the_answer_is_one_write(hook: Hook) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps the bounds of writes
    with ours, its:
        subprocess.run(hook.command, input=JOB, stdout=its.fileno(), check=True, cwd=hook.scratch, env=hook.environment)
        its.close()
        assert reply(ours.recv(1 << 16)).code == 0
        assert ours.recv(1 << 16) == b""


def test_who_waits_in_vain_for_anothers_download_gets_the_other_form_or_is_told(hook: Hook, ep: ExecutionPoint) -> None:
    cache = Cache(str(ep.cache))
    cache.prepare()
    cache.entries.make_directories(SHA256)
    jobs = []
    with locks.acquire([cache.entries.lock_path(SHA256)], 0):
        for flag in ("--prefer=sif", "--never=sandbox"):
            process = hook.start("--deadline=6", flag)
            assert process.stdin is not None
            process.stdin.write(JOB)
            process.stdin.close()
            process.stdin = None
            jobs.append(process)
        answers = [reply(out, err.decode()) for out, err in (process.communicate(timeout=WATCHDOG) for process in jobs)]
    assert (answers[0].code, answers[0].form) == (0, "sandbox")
    assert answers[1].code == statuses.BUSY
    fallback, busy = trace(ep)
    assert (fallback["code"], busy["code"]) == (0, statuses.BUSY)
    given_up = [float(str(line["seconds"])) for line in (fallback, busy)]
    assert given_up[0] < given_up[1], "the one leaves time for the sandbox, the other only for its answer"


def test_a_host_that_hangs_is_given_up_at_the_deadline(hook: Hook, blocking: Path, ep: ExecutionPoint) -> None:
    answer = hook.job(f"--facts={blocking}", "--deadline=0.5", SingularityImage=CVMFS)
    assert (answer.code, answer.updates) == (statuses.DEADLINE, {})
    assert "within 0.5 s" in answer.message
    assert not is_open(blocking), "the child is gone too"
    (line,) = trace(ep)
    assert line["code"] == statuses.DEADLINE


def test_a_trace_that_hangs_holds_up_nothing(hook: Hook, blocking: Path) -> None:
    answer = hook.job(f"--trace={blocking}", SingularityImage=CVMFS)
    assert (answer.code, answer.form) == (0, "sandbox")
    assert f"cannot write the trace {blocking}: no answer in time" in answer.talk
    assert not is_open(blocking), "the child is gone too"


def test_a_reader_of_the_trace_holds_up_nothing(hook: Hook, ep: ExecutionPoint) -> None:
    for _ in range(2):
        hook.job("--trace-size=1", SingularityImage=CVMFS)
    with (ep.root / "trace").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        answer = hook.job("--trace-size=1", SingularityImage=CVMFS)
    assert (answer.code, answer.talk) == (0, "")
    assert len(trace(ep)) == 2, "put aside by the next one"


def test_a_trace_that_cannot_be_written_withholds_no_image(hook: Hook, ep: ExecutionPoint) -> None:
    answer = hook.job(f"--trace={ep.root}/keys", SingularityImage=CVMFS)
    assert (answer.code, answer.form) == (0, "sandbox")
    assert "cannot write the trace " in answer.talk


def test_an_ad_that_does_not_end_is_given_up_at_the_deadline(hook: Hook) -> None:
    with hook.start("--deadline=0.5") as process:
        assert process.stdin is not None
        process.stdin.write(JOB)
        process.stdin.flush()
        assert process.stdout is not None
        assert reply(process.stdout.read()).code == statuses.NO_AD
        process.stdin.close()


@pytest.mark.parametrize("content", [b"", b" \n", JOB + b"A = 1\n" * (MAX_BYTES // 6)], ids=["empty", "blank", "endless"])
def test_what_is_no_ad_is_no_success(hook: Hook, content: bytes) -> None:
    process = hook.start()
    assert process.stdin is not None
    try:
        process.stdin.write(content)
        process.stdin.close()
    except BrokenPipeError:
        pass
    process.stdin = None
    out, _ = process.communicate(timeout=WATCHDOG)
    assert reply(out).code == statuses.NO_AD


def test_sigterm_leaves_no_answer_and_no_child(hook: Hook, silent: Path) -> None:
    process, child = at_work(hook, silent)
    process.terminate()
    out, err = process.communicate(timeout=WATCHDOG)
    assert (process.returncode, out, err) == (-signal.SIGTERM, b"", b"")
    until(lambda: is_gone(child))


def test_a_child_that_is_killed_sends_the_job_elsewhere(hook: Hook, silent: Path) -> None:
    process, child = at_work(hook, silent)
    os.kill(child, signal.SIGKILL)
    out, err = process.communicate(timeout=WATCHDOG)
    assert (process.returncode, reply(out).code) == (0, statuses.KILLED)
    assert (b"killed by SIGKILL" in reply(out).message.encode(), err) == (True, b"")


def test_a_bug_is_a_traceback_and_sends_the_job_elsewhere(hook: Hook) -> None:
    command = ["/bin/sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *hook.command]  # a directory that is gone is not foreseen
    run = subprocess.run(command, input=JOB, capture_output=True, check=True, cwd=hook.scratch, env=hook.environment)
    assert reply(run.stdout).code == statuses.BUG
    complaint, traceback = run.stderr.split(b"Traceback")
    assert complaint.count(b"\n") <= 1, "the shell that starts it may miss the directory as well"
    assert b"prepare.py" in traceback


def test_who_cannot_answer_dies_by_a_signal(hook: Hook) -> None:
    """An exit status would hold the job, and 0 would start it without its image."""
    process = hook.start()
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    process.communicate(JOB, timeout=WATCHDOG)
    assert process.returncode == -signal.SIGKILL


def test_closed_standard_error_is_no_failure(hook: Hook, ep: ExecutionPoint) -> None:
    ep.repository.rename(ep.root / "away")
    command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *hook.command]
    run = subprocess.run(command, input=JOB, stdout=subprocess.PIPE, check=True, cwd=hook.scratch, env=hook.environment)
    assert reply(run.stdout).code == 0


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--froom", "sif"], "unknown flag --froom"),
        (["--public-key", "/absent"], "cannot read the trusted key /absent"),
        (["--form", "squash"], "--form 'squash' must be one of"),
        (["--config", "/absent.ini"], "cannot read the configuration /absent.ini"),
    ],
)
def test_a_wrong_configuration_is_not_the_users_fault(hook: Hook, flags: list[str], why: str) -> None:
    answer = hook.run(JOB, *flags)
    assert (answer.code, answer.updates) == (statuses.CONFIGURATION, {})
    assert why in answer.message


def test_the_same_failure_again_is_kept_back(hook: Hook, ep: ExecutionPoint) -> None:
    for path in (ep.repository, ep.origin):
        path.rename(f"{path}.away")
    first = hook.run(JOB, "--backoff=1000")
    assert first.code == statuses.MANIFEST
    with hook.start("--backoff=1000") as again:
        assert again.stdin is not None
        assert again.stdout is not None
        again.stdin.write(JOB)
        again.stdin.close()
        until(lambda: len(trace(ep)) == 2)
        assert not select.select([again.stdout], [], [], 0.5)[0], "it is decided and not said"
        again.terminate()
        assert again.stdout.read() == b""
    assert hook.run(JOB, "--backoff=1000", "--deadline=1").code == statuses.MANIFEST, "the deadline ends the waiting as well"


def test_what_the_user_must_mend_is_said_at_once_however_often(hook: Hook) -> None:
    for _ in range(3):
        assert hook.run(job_ad(ContainerImage="no/such:1"), "--backoff=1000").code == statuses.NO_IMAGE


def test_the_starter_is_told_what_the_jobs_ad_keeps(hook: Hook, tmp_path: Path) -> None:
    with Starter(tmp_path, ["0"] * 4).serving() as starter:
        hook.environment["_CONDOR_CHIRP_CONFIG"] = str(starter.config)
        answer = hook.job(SingularityImage=CVMFS)
    assert (answer.code, answer.talk) == (0, "")
    assert f'set_job_attr_delayed ChirpImageDigest "{version(NAME).digest}"' in starter.lines


def test_a_starter_that_does_not_listen_withholds_no_image(hook: Hook, tmp_path: Path) -> None:
    hook.environment["_CONDOR_CHIRP_CONFIG"] = str(tmp_path / "absent")
    answer = hook.job(SingularityImage=CVMFS)
    assert (answer.code, answer.form) == (0, "sandbox")
    assert "cannot record the image in the job ad" in answer.talk
    assert hook.job(SingularityImage="docker://ubuntu:22.04").talk == "", "nothing to tell"


def test_a_configuration_file_and_variables_are_enough(program: Path, ep: ExecutionPoint) -> None:
    (ep.root / "resolver.ini").write_text(
        f"[resolver]\nrepository = {REPOSITORY}\norigin = origin\ncache = cache\npublic-key = keys\narch = amd64\n"
    )
    environment = {"PATH": os.environ["PATH"], "IMAGE_RESOLVER_CONFIG": str(ep.root / "resolver.ini")}
    run = subprocess.run([program, "prepare-job"], input=JOB, env=environment, capture_output=True, check=True)
    assert reply(run.stdout).image == f"{ep.repository}/{version(NAME).sandbox}"
