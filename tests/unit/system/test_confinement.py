"""Limits of programs; ``systemd-run`` is a stand-in on PATH, because few test hosts are managed by systemd."""

from __future__ import annotations

import os
import pwd
import resource
from typing import TYPE_CHECKING

import pytest

from publisher.errors import CommandError
from publisher.system.command import UnixAccount
from publisher.system.confinement import Confinement, ResourceLimits

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = ResourceLimits(memory=256 << 20, processes=50, file_size=1 << 20, cpu=9)
SHOWN = "ulimit -d; ulimit -v; ulimit -f; ulimit -t; ulimit -c; ulimit -H -f; id -u"
SYSTEMD_RUN = """#!/bin/sh
echo "$(id -u) $*" >> {log}
{failure}
while [ "$1" != setpriv ] && [ "$1" != prlimit ] && [ "$1" != true ]; do shift; done
exec "$@"
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: programs as another account; only root starts them")


def nobody() -> UnixAccount | None:
    entry = pwd.getpwnam("nobody")
    return UnixAccount(entry.pw_uid, entry.pw_gid) if os.geteuid() == 0 else None


def run(confined: Confinement, script: str, where: Path) -> list[str]:
    return confined.run(["sh", "-c", script], deadline=60, env={}, cwd=where).stdout.decode().split()


def test_a_program_has_limits_that_it_cannot_raise(shared_path: Path) -> None:
    confined = Confinement(LIMITS, nobody(), shared_path / "no-systemd")
    shown = run(confined, SHOWN, shared_path)
    assert "--core=0" in confined._rlimits(), "also where this process's own limit is not 0"
    assert shown[:6] == [str(256 << 10), str(1792 << 10), "2048", "9", "0", "2048"]
    account = nobody()
    assert shown[6] == str(os.geteuid() if account is None else account.uid)


def test_the_processes_that_an_account_has_already_are_not_counted(shared_path: Path) -> None:
    (found,) = run(Confinement(LIMITS, None, shared_path / "no-systemd"), "ulimit -p", shared_path)
    assert int(found) > LIMITS.processes, "those of this test run"


def test_a_hard_limit_of_this_process_that_is_lower_stays(shared_path: Path) -> None:
    """Raising it needs a privilege."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
        os.write(write, " ".join(run(Confinement(LIMITS, None, shared_path), "ulimit -t", shared_path)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as said:
        assert said.read() == "5"


def test_a_program_that_exceeds_a_limit_fails_under_its_own_name(shared_path: Path) -> None:
    confined = Confinement(LIMITS, None, shared_path / "no-systemd")
    with pytest.raises(CommandError, match=r"^dd failed with status 1: .*memory exhausted"):
        confined.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=512M", "count=1"], deadline=60, env={}, cwd=shared_path)


def stand_in(where: Path, monkeypatch: pytest.MonkeyPatch, failure: str = "") -> Path:
    """Put a systemd-run on PATH that logs its arguments; return the log."""
    (where / "bin").mkdir()
    program, log = where / "bin/systemd-run", where / "log"
    program.write_text(SYSTEMD_RUN.format(log=log, failure=failure))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


@needs_root
def test_systemd_gives_a_program_a_scope_that_limits_all_its_processes(
    shared_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = stand_in(shared_path, monkeypatch)
    shown = run(Confinement(LIMITS, nobody(), shared_path), SHOWN, shared_path)
    assert shown[2:] == ["2048", "9", "0", "2048", str(pwd.getpwnam("nobody").pw_uid)]
    asked = log.read_text().splitlines()[-1]
    assert asked.startswith("0 --scope --quiet --collect ")
    assert "--property=MemoryMax=268435456 --property=MemorySwapMax=0 --property=TasksMax=50 setpriv --reuid=" in asked


@needs_root
def test_a_systemd_that_gives_no_scope_is_done_without(shared_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stand_in(shared_path, monkeypatch, "exit 1")
    assert run(Confinement(LIMITS, nobody(), shared_path), SHOWN, shared_path)[3] == "9"
    assert len(log.read_text().splitlines()) == 1, "it is asked once"
