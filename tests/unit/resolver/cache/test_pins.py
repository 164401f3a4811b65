from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from publisher.resolver.cache import pins
from tests.support.checkout import ROOT
from tests.support.machine import child_process

ONE, OTHER = "a" * 64, "b" * 64


def sleeper() -> int:
    """A child that lives until it is told to end."""
    return child_process.start(lambda: os.read(os.pipe()[0], 1))


def end(child: int) -> None:
    os.kill(child, 9)
    child_process.end(child)


def test_a_pin_holds_as_long_as_its_process_lives(tmp_path: Path) -> None:
    child = sleeper()
    pins.pin(str(tmp_path), ONE, pins.Starter(child))
    pins.pin(str(tmp_path), ONE, pins.Starter(child))
    pins.pin(str(tmp_path), ONE, pins.Starter(os.getpid()))
    pins.pin(str(tmp_path), OTHER, pins.Starter(child))
    assert pins.count_pins(str(tmp_path)) == {ONE: 2, OTHER: 1}
    end(child)
    assert pins.count_pins(str(tmp_path)) == {ONE: 1}
    assert len(list((tmp_path / "pins").iterdir())) == 1, "pins of the dead are removed"


def test_another_process_with_the_same_number_is_another_process(tmp_path: Path) -> None:
    starter = pins.Starter(os.getpid())
    pid, _, rest = starter.name.partition("-")
    start, _, namespace = rest.partition("-")
    starter.name = f"{pid}-{int(start) + 1}-{namespace}"
    pins.pin(str(tmp_path), ONE, starter)
    assert pins.count_pins(str(tmp_path)) == {}


def test_a_pin_from_another_pid_namespace_holds_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starter = pins.Starter(os.getpid())
    starter.name = "4000000-1-1"
    pins.pin(str(tmp_path), ONE, starter)
    assert pins.count_pins(str(tmp_path)) == {ONE: 1}
    later = time.time() + 8 * 86400
    monkeypatch.setattr("time.time", lambda: later)
    assert pins.count_pins(str(tmp_path)) == {}


def test_a_pin_from_another_pid_namespace_is_soft_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours, now = pins.Starter(os.getpid()), pins.Starter(os.getpid()), time.time()
    theirs.name = "4000000-1-1"
    pins.pin(str(tmp_path), ONE, theirs)
    pins.pin(str(tmp_path), OTHER, ours)
    assert pins.count_pins(str(tmp_path), ignore_soft=True) == {ONE: 1, OTHER: 1}
    monkeypatch.setattr("time.time", lambda: now + 3700)
    assert pins.count_pins(str(tmp_path), ignore_soft=True) == {OTHER: 1}
    assert pins.count_pins(str(tmp_path)) == {ONE: 1, OTHER: 1}


def test_a_pin_that_is_made_again_is_young_again(tmp_path: Path) -> None:
    me = pins.Starter(os.getpid())
    pins.pin(str(tmp_path), ONE, me)
    (path,) = (tmp_path / "pins").iterdir()
    os.utime(path, (0, 0))
    pins.pin(str(tmp_path), ONE, me)
    assert path.stat().st_mtime > 0


def test_release_takes_back_a_starters_pins_and_no_others(tmp_path: Path) -> None:
    child = sleeper()
    for sha256 in (ONE, OTHER):
        pins.pin(str(tmp_path), sha256, pins.Starter(child))
    pins.pin(str(tmp_path), ONE, pins.Starter(os.getpid()))
    assert sorted(pins.release(str(tmp_path), pins.Starter(child))) == [ONE, OTHER]
    assert pins.count_pins(str(tmp_path)) == {ONE: 1}
    end(child)


def test_the_starter_is_the_one_that_htcondor_names_else_the_parent() -> None:
    assert pins.find_starter({}).pid == os.getppid()
    assert pins.find_starter({"CONDOR_STARTER_PID": str(os.getpid())}).pid == os.getpid()
    assert pins.find_starter({"CONDOR_STARTER_PID": "nonsense"}).pid == os.getppid()


def test_what_is_no_pin_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "pins").mkdir()
    for name in ("README", f"{ONE}.x-1-1", f"{ONE}.", f"{ONE}.99999999-1-{Path('/proc/self/ns/pid').stat().st_ino}"):
        (tmp_path / "pins" / name).touch()
    assert pins.count_pins(str(tmp_path)) == {}


def test_a_dead_process_that_nobody_waited_for_yet_holds_nothing(tmp_path: Path) -> None:
    child = child_process.start(signal.pause)
    pins.pin(str(tmp_path), ONE, pins.Starter(child))
    assert pins.count_pins(str(tmp_path)) == {ONE: 1}
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert pins.count_pins(str(tmp_path)) == {}
    finally:
        child_process.end(child)


def test_a_process_may_be_called_anything() -> None:
    before = Path("/proc/self/comm").read_text()
    expected = pins.Starter(os.getpid()).name
    Path("/proc/self/comm").write_text("x) R 1 (2 3")
    try:
        assert pins.Starter(os.getpid()).name == expected
    finally:
        Path("/proc/self/comm").write_text(before.strip())


@pytest.mark.parametrize("pid", [0, 1])
def test_init_is_nobodys_starter(pid: int) -> None:
    """An orphan's parent: it would hold for ever what it was never given."""
    with pytest.raises(ProcessLookupError):
        pins.Starter(pid)


@pytest.mark.parametrize("trap", ["link", "pipe"])
def test_what_others_put_in_the_way_is_neither_followed_nor_opened(tmp_path: Path, trap: str) -> None:
    """In a store's pins/ everybody may make files. Opening a pipe would hang the hook."""
    me = pins.Starter(os.getpid())
    path = tmp_path / "pins" / f"{ONE}.{me.name}"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "precious") if trap == "link" else os.mkfifo(path)
    child = child_process.start(lambda: pins.pin(str(tmp_path), ONE, me))
    assert child_process.end(child) == 0
    assert not (tmp_path / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's file")
def test_another_users_pin_holds_a_week_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """He may name a process that never ends, and set any date but the one that counts."""
    pins.pin(str(tmp_path), ONE, pins.Starter(os.getpid()))
    (path,) = (tmp_path / "pins").iterdir()
    os.utime(path, (1 << 32, 1 << 32))
    later = time.time() + 8 * 86400
    monkeypatch.setattr("time.time", lambda: later)
    assert pins.count_pins(str(tmp_path)) == {ONE: 1}, "one's own process holds as long as it lives"
    os.chown(path, 12345, 12345)
    assert pins.count_pins(str(tmp_path)) == {}


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts another /proc, in a namespace of its own")
def test_a_starter_that_proc_hides_holds_until_it_is_dead(shared_path: Path) -> None:
    """Mount option hidepid: the hook runs as the job's user, the starter may not."""
    program = (
        "import os, sys; from publisher.resolver.cache import pins; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "assert not os.path.exists(f'/proc/{sys.argv[2]}/stat')\n"
        "pins.pin(sys.argv[1], 'a' * 64, pins.Starter(int(sys.argv[2]))); print(pins.count_pins(sys.argv[1]))"
    )
    (shared_path / "pins").mkdir()
    (shared_path / "pins").chmod(0o1777)
    child = child_process.start(signal.pause)
    hidden = f'mount -t proc -o hidepid=2 proc /proc && exec {sys.executable} -c "$@"'
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", program, str(shared_path), str(child)]
    try:
        root = ROOT
        assert subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout == f"{{'{ONE}': 1}}\n"
        assert pins.count_pins(str(shared_path)) == {ONE: 1}, "root sees it"
    finally:
        os.kill(child, signal.SIGKILL)
        child_process.end(child)
    assert pins.count_pins(str(shared_path)) == {}
