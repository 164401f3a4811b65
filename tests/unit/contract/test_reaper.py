"""What the reaper does, in this process; test_command.py and test_pelican_cli.py show it after the process was killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess

import pytest

from publisher.contract.reaper import Reaper, held


def test_sessions_that_have_not_ended_are_killed_at_the_end() -> None:
    left, ended, gone = (subprocess.Popen(["sleep", "1000"], start_new_session=True) for _ in range(3))
    gone.kill()
    gone.wait()
    with Reaper() as reaper:
        for process in (left, ended, gone):
            reaper._send(b"begin %d\n" % process.pid)
        reaper._send(b"end %d\n" % ended.pid)
    assert left.wait(60) == -signal.SIGKILL
    assert ended.poll() is None
    ended.kill()
    ended.wait()


def test_all_process_groups_of_a_session_are_killed() -> None:
    script = "set -m; sleep 1000 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        other = os.pidfd_open(int(leader.stdout.readline()))
        with Reaper() as reaper:
            reaper._send(b"begin %d\n" % leader.pid)
        assert leader.wait(60) == -signal.SIGKILL
        assert select.select([other], [], [], 60)[0] == [other], "the other group still runs"
        os.close(other)


def test_a_session_whose_guard_is_over_is_not_killed() -> None:
    """Its number may belong to another process by then."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        with Reaper() as reaper, reaper.guard(process.pid):
            pass
        assert process.poll() is None
        process.kill()


def test_a_reaper_that_was_killed_stops_nobody() -> None:
    with Reaper() as reaper:
        assert reaper._shell is not None
        reaper._shell.kill()
        reaper._shell.wait()
        with reaper.guard(os.getpid()):
            pass


def test_a_reaper_starts_once() -> None:
    with Reaper() as reaper:
        shell = reaper._shell
        reaper.start()
        assert reaper._shell is shell


def test_without_a_shell_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.contract.reaper._SHELL", "/nowhere/sh")
    with pytest.raises(FileNotFoundError, match="/nowhere/sh"):
        Reaper().start()


def _start_held(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(held(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)


def test_a_held_program_never_starts_without_its_process() -> None:
    with _start_held("echo", "started") as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.close()
        assert program.stdout.read() == b""
    assert program.returncode == 1


def test_a_released_program_is_guarded_and_reads_nothing() -> None:
    with Reaper() as reaper, _start_held("cat") as program, reaper.release(program):
        assert program.stdout is not None
        assert program.stdout.read() == b""
    assert program.returncode == 0


def test_a_held_program_that_was_killed_is_released_in_vain() -> None:
    with Reaper() as reaper, _start_held("cat") as program:
        program.kill()
        program.wait()
        with reaper.release(program):
            pass
