"""A repository that hangs: the first job waits a few seconds for it, the others do not, and it is taken again when it answers."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from publisher.contract import files
from publisher.resolver.system.outage import OUTAGE_DURATION
from tests.support.checkout import ROOT
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, version
from tests.support.ep.hook import Hook, job_ad
from tests.support.machine import hanging_mount
from tests.support.osdf.faulty_cache import FaultyServer

pytestmark = pytest.mark.system

NAME = "htc/rocky:9"
CVMFS = f"/cvmfs/{REPOSITORY}/{NAME}"


def test_a_repository_that_hangs_is_replaced_and_left_alone_until_it_answers(tmp_path: Path) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record(NAME, amd64=[version(NAME, sif=ep.store(sif_content(NAME)))]), now=int(time.time()))
    hook = Hook([ROOT / ".venv" / "bin" / "python", "-m", "publisher.resolver"], ep, trace=f"{tmp_path}/trace")
    hook.environment["PYTHONPATH"] = str(ROOT)

    def job() -> tuple[str, str]:
        answer = hook.job(ContainerImage=CVMFS)
        assert answer.code == 0, answer.message
        line = json.loads((tmp_path / "trace").read_text().splitlines()[-1])
        return answer.form, line["why"]

    with hanging_mount.mounted(ep.repository, tmp_path) as mount:
        assert job() == ("sandbox", "the site prefers it")
        mount.hang()
        assert job() == ("sif", "the sandbox is not available"), "who comes first waits for it"
        assert job() == ("sif", "the sandbox could not be read in time a short while ago")
        mount.go_on()
        assert job() == ("sif", "the sandbox could not be read in time a short while ago")
        memory = ep.cache / "failures" / "repository-hangs"
        os.utime(memory, (time.time() - OUTAGE_DURATION - 1,) * 2)
        assert job() == ("sandbox", "the site prefers it")
        assert not memory.exists()


def test_a_repository_that_opens_and_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    """The manifest in it is an outage as well, and for seconds nobody reads what was just read."""
    ep = ExecutionPoint(tmp_path)
    published = version(NAME, sif=ep.store(sif_content(NAME)))
    ep.publish(record(NAME, amd64=[published]), now=int(time.time()))
    labels = ep.repository / str(published.sandbox) / ".singularity.d" / "labels.json"
    labels.parent.mkdir()
    labels.write_text("{}")
    hook = Hook([ROOT / ".venv" / "bin" / "python", "-m", "publisher.resolver"], ep)
    hook.environment["PYTHONPATH"] = str(ROOT)
    with hanging_mount.half_broken(ep.repository, tmp_path):
        assert list(labels.parent.iterdir()) == [labels], "directories open"
        with pytest.raises(OSError, match="Input/output error"):
            labels.read_bytes()
        answer = hook.job(ContainerImage=CVMFS)
        assert (answer.code, answer.form) == (0, "sif"), answer.message
    assert (ep.cache / "failures" / "manifest-hangs").exists()
    refused = hook.job("--form=sandbox", ContainerImage=CVMFS)
    assert (refused.code, refused.form) == (0, "sandbox"), "an outage is no reason to refuse the only form"


def test_a_hook_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record(NAME, amd64=[version(NAME, sif=ep.store(sif_content(NAME)))]), now=int(time.time()))
    hook = Hook([ROOT / ".venv" / "bin" / "python", "-m", "publisher.resolver"], ep, form="sif")
    hook.environment["PYTHONPATH"] = str(ROOT)
    sha256 = version(NAME).sif
    assert sha256 is not None
    lock = ep.cache / "locks" / sha256.sha256
    lock.parent.mkdir(parents=True)
    ep.cache.chmod(0o700)
    ad = tmp_path / "ad"
    ad.write_bytes(job_ad(ContainerImage=CVMFS))
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    with files.locked(str(lock), 0):  # so the hook waits for this SIF
        command = f"{' '.join(hook.command)} < {ad} 3> {alive}; true"
        starter = subprocess.Popen(["sh", "-c", command], cwd=hook.scratch, env=hook.environment, stdout=subprocess.DEVNULL)
        with alive.open("rb") as end:  # open as long as the hook lives; its child has closed it
            while not any(children(int(started)) for started in children(starter.pid)):  # by then the hook knows its starter
                assert starter.poll() is None
            starter.kill()
            starter.wait()
            assert end.read() == b""


def test_a_directory_of_the_path_that_hangs_is_passed_over(tmp_path: Path) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record(NAME, amd64=[version(NAME, sif=ep.store(sif_content(NAME)))]), now=int(time.time()))
    (tmp_path / "elsewhere").mkdir()
    program = tmp_path / "elsewhere" / "apptainer"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "apptainer").write_text("")
    hook = Hook([ROOT / ".venv" / "bin" / "python", "-m", "publisher.resolver"], ep)
    hook.environment["PYTHONPATH"] = str(ROOT)
    hook.environment["PATH"] = f"{tmp_path}/tools:{tmp_path}/elsewhere:/usr/bin:/bin"
    start = [*hook.command[:-1], "pilot-start", "--probe-time=1"]

    def started(*flags: str) -> str:
        command = [*start, *flags]
        return subprocess.run(command, env=hook.environment, capture_output=True, text=True, check=True, timeout=60).stdout

    with hanging_mount.mounted(tmp_path / "tools", tmp_path) as mount:
        mount.hang()
        answer = hook.job(ContainerImage=CVMFS)
        assert (answer.code, answer.form) == (0, "sandbox"), "openssl is in another directory"
        said = started(f"--probe={NAME}")
        assert "HasSIF = true" in said
        assert "SIFs:" not in said
        said = started(f"--probe={tmp_path}/tools/x.sif", f"--apptainer={tmp_path}/tools/apptainer")
        assert "HasSIF" not in said, "neither program nor image can be read"


def test_nobody_hangs_with_it(tmp_path: Path) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record(NAME, amd64=[version(NAME, sif=None)]), now=int(time.time()))
    hook = Hook([ROOT / ".venv" / "bin" / "python", "-m", "publisher.resolver"], ep, backoff="0")
    hook.environment["PYTHONPATH"] = str(ROOT)
    with hanging_mount.mounted(ep.repository, tmp_path) as mount:
        mount.hang()
        with hook.start("--deadline=1") as process:
            out, _ = process.communicate(b"ContainerImage = " + f'"{CVMFS}"\n'.encode(), timeout=60)
        assert b"HookStatusCode = 303\n" in out, "the deadline holds also while a child of it hangs"
        assert process.returncode == 0
        answer = hook.job(ContainerImage=CVMFS)
        assert answer.code == 320
        assert "no answer in time" in answer.message
        answer = hook.job(ContainerImage=f"/cvmfs/{REPOSITORY}/old/one:1")
        assert answer.code == 320, "it may be there though no manifest lists it"
        assert "does not answer whether the path exists" in answer.message


def test_a_child_that_cannot_be_killed_withholds_nothing_and_stays_the_only_one(tmp_path: Path) -> None:
    """The manifest is what it hangs over; in its place comes the network's, for it and for those behind."""
    ep = ExecutionPoint(tmp_path)
    ep.publish(record(NAME, amd64=[version(NAME, sif=ep.store(sif_content(NAME)))]), now=int(time.time()))
    objects = {f"/{path.relative_to(ep.origin)}": path.read_bytes() for path in ep.origin.rglob("*") if path.is_file()}
    remembered = ep.cache / "manifest" / REPOSITORY
    with FaultyServer(objects) as origin, hanging_mount.mounted_beyond_kill(ep.repository, tmp_path) as mount:
        hook = Hook([ROOT / ".venv" / "bin" / "python", "-m", "publisher.resolver"], ep, origin=origin.url, prefer="sif")
        hook.environment["PYTHONPATH"] = str(ROOT)
        mount.hang()
        assert hook.job(ContainerImage=CVMFS).form == "sif"
        (child,) = stuck(hook.scratch)
        with files.locked(str(remembered / "asking-index"), 0):
            origin.asked.clear()
        (remembered / "asked").unlink()
        assert hook.job(ContainerImage=CVMFS).form == "sif"
        assert [asked.path for asked in origin.asked] == ["/manifest/index.json"]
        assert stuck(hook.scratch) == [child]


def stuck(directory: Path) -> list[int]:
    """The processes that are left of those at work in a directory, when all of them wait beyond the reach of signals."""
    until = time.monotonic() + 60
    while True:
        states = {int(path.name): state(path) for path in Path("/proc").glob("[0-9]*") if works_in(path, directory)}
        if set(states.values()) <= {"D"}:
            return sorted(states)
        assert time.monotonic() < until


def works_in(process: Path, directory: Path) -> bool:
    try:
        return (process / "cwd").readlink() == directory
    except OSError:  # gone, or another user's
        return False


def state(process: Path) -> str:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def children(process: int) -> list[str]:
    """Return the process ids of a process's children, none if it has ended (proc(5))."""
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
