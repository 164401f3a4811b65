"""The test run, with a stand-in for Apptainer on PATH; its isolation is tested in tests/system/build/test_builder.py."""

from __future__ import annotations

import fcntl
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from publisher.build.testrun import TestOutcome, TestRunner
from publisher.errors import TestRunError, UsageError
from publisher.system.confinement import ResourceLimits
from publisher.system.durable import delete

REPORT = r"""#!/bin/sh
{ echo "$*"; id -u; pwd; ls; echo "$HOME"; stat -c %u "$HOME"; cat image.sif; } | tr '\n' '|' >&2
exit 1
"""


@pytest.fixture
def apptainer(shared_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Apptainer that fails and reports its environment as its last line."""
    place = shared_path / "bin"
    place.mkdir()
    program = place / "apptainer"
    program.write_text(REPORT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return program


@pytest.fixture
def sif(shared_path: Path) -> Path:
    path = shared_path / "an image.sif"
    path.write_bytes(b"content")
    path.chmod(0o600)
    return path


def seen(scratch: Path, sif: Path, **more: object) -> list[str]:
    """Return what Apptainer saw: arguments, uid, directory, its files, home, the home's owner, the SIF."""
    asked = {"architecture": "amd64", "has_shell": True, **more}
    with pytest.raises(TestRunError, match="the test run of the finished SIF failed") as caught:
        TestRunner("nobody", scratch, deadline=60).test(sif, **asked)  # type: ignore[arg-type]  # its own
    return caught.value.reason.partition("status 1: ")[2].split("|")


def account() -> int:
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()


@pytest.mark.usefixtures("apptainer")
def test_a_sif_runs_isolated_in_a_new_home(shared_path: Path, sif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    scratch = shared_path / "scratch"
    scratch.mkdir()
    arguments, uid, directory, *files, home, owner, content = seen(scratch, sif)
    options = "--containall --no-home --net --network none --pwd /"
    assert arguments == f"--silent exec {options} --security seccomp:seccomp.json image.sif /bin/sh -c :"
    assert (uid, owner) == (str(account()), str(account()))
    assert (directory, files, content) == (home, ["image.sif", "seccomp.json"], "content")
    assert Path(home).parent == scratch
    assert list(scratch.iterdir()) == []
    assert sif.read_bytes() == b"content"


@pytest.mark.usefixtures("apptainer")
def test_a_failure_says_what_a_test_run_may_use(shared_path: Path, sif: Path) -> None:
    with pytest.raises(TestRunError) as caught:
        TestRunner("nobody", shared_path, limits=ResourceLimits(memory=1 << 29, cpu=7)).test(
            sif, architecture="s390x", has_shell=True
        )
    assert caught.value.hint == "a test run may use 512 MiB of memory, 128 processes, files of 32 MiB and 7 s of CPU time"


@pytest.mark.usefixtures("apptainer")
def test_the_homes_of_killed_runs_are_swept_and_those_of_running_ones_are_not(shared_path: Path, sif: Path) -> None:
    dead, living = shared_path / "ospool-test-run-dead", shared_path / "ospool-test-run-living"
    for home in (dead, living):
        home.mkdir()
        (home / "image.sif").write_bytes(b"another")
    descriptor = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        seen(shared_path, sif)
    finally:
        os.close(descriptor)
    assert not dead.exists()
    assert (living / "image.sif").read_bytes() == b"another"


@pytest.mark.usefixtures("apptainer")
def test_a_home_that_a_stranger_made_very_deep_ends_no_run_and_stays(shared_path: Path, sif: Path) -> None:
    """In /var/tmp anybody can make one. Of an account of ours it is deleted, however deep."""
    homes = [shared_path / "ospool-test-run-own", shared_path / "ospool-test-run-strange"]
    for home in homes:
        home.mkdir()
        directory = os.open(home, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("a", dir_fd=directory)
            below = os.open("a", os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = below
        os.close(directory)
    if os.geteuid() == 0:
        os.chown(homes[1], 12345, 12345)
    seen(shared_path, sif)
    assert not homes[0].exists()
    assert homes[1].exists() == (os.geteuid() == 0)
    delete(homes[1])  # shutil.rmtree(), which pytest uses, recurses


@pytest.mark.usefixtures("apptainer")
def test_a_state_directory_that_the_account_cannot_enter_is_replaced_by_var_tmp(shared_path: Path, sif: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: testing as another account; only root changes to it")
    closed = shared_path / "closed"
    closed.mkdir(mode=0o700)
    *_, home, _, content = seen(closed, sif.rename(closed / "image"), architecture="s390x")
    assert (Path(home).parent, content) == (Path("/var", "tmp"), "content")
    assert not Path(home).exists()


@pytest.mark.parametrize(
    ("machine", "asked", "reason"),
    [
        ("x86_64", {"architecture": "arm64", "has_shell": True}, "built for arm64, this host is amd64"),
        ("aarch64", {"architecture": "amd64", "has_shell": True}, "built for amd64, this host is arm64"),
        ("x86_64", {"architecture": "amd64", "has_shell": False}, "the image has no /bin/sh"),
    ],
)
def test_only_the_structure_is_checked_of_images_that_cannot_run_here(
    *, machine: str, asked: dict[str, Any], reason: str, apptainer: Path, sif: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert seen(sif.parent, sif, **asked)[0] == "--silent sif list image.sif"
    apptainer.write_text("#!/bin/sh\nexit 0\n")
    assert TestRunner("nobody", sif.parent).test(sif, **asked) == TestOutcome("structure", reason)


def test_images_are_not_tested_as_root_nor_as_a_missing_account(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: accounts to test as; only root changes to another")
    with pytest.raises(UsageError, match="images are tested as must not be root"):
        TestRunner("root", tmp_path)
    with pytest.raises(UsageError, match=r"account 'no-such-account' .* does not exist"):
        TestRunner("no-such-account", tmp_path)


def test_a_test_run_that_gets_no_process_is_repeated_once(apptainer: Path, shared_path: Path, sif: Path) -> None:
    """Other test runs at the same time count against the same limit of the account."""
    apptainer.write_text("#!/bin/sh\n[ -e tried ] || { >tried; echo 'sh: Cannot fork' >&2; exit 2; }\n")
    machine = os.uname().machine
    runner = TestRunner("nobody", shared_path, deadline=60)
    assert (
        runner.test(sif, architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine), has_shell=True).test == "ran"
    )
    apptainer.write_text("#!/bin/sh\n[ -e tried ] && echo 'second try' >&2; >tried; echo 'sh: Cannot fork' >&2; exit 2\n")
    with pytest.raises(TestRunError, match="Cannot fork"):
        runner.test(sif, architecture="s390x", has_shell=True)
