from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from publisher.resolver import pins
from tests.support import children

SHA, OTHER = "a" * 64, "b" * 64


def pin_files(root: Path) -> list[Path]:
    return sorted((root / "pins").iterdir())


def sleeper() -> int:
    """A process that lives until it is killed."""
    return children.start(signal.pause)


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    children.end(child)


def test_a_pin_holds_one_sif_until_it_is_released(tmp_path: Path) -> None:
    assert pins.pin(str(tmp_path), SHA, os.getpid())
    assert pins.held(str(tmp_path), SHA)
    assert not pins.held(str(tmp_path), OTHER)
    assert pins.holders(str(tmp_path)) == {SHA: [os.getpid()]}
    assert pins.release(str(tmp_path), os.getpid()) == 1
    assert not pins.held(str(tmp_path), SHA)
    assert pin_files(tmp_path) == []


def test_a_release_is_of_one_process_and_of_one_sif_if_it_is_named(tmp_path: Path) -> None:
    child = sleeper()
    try:
        for pid in (child, os.getpid()):
            pins.pin(str(tmp_path), SHA, pid)
            pins.pin(str(tmp_path), OTHER, pid)
        assert pins.release(str(tmp_path), child, OTHER) == 1
        assert pins.release(str(tmp_path), os.getpid()) == 2
        assert pins.holders(str(tmp_path)) == {SHA: [child]}
    finally:
        kill(child)


def test_pinning_again_says_that_it_was_pinned(tmp_path: Path) -> None:
    assert pins.pin(str(tmp_path), SHA, os.getpid())
    assert not pins.pin(str(tmp_path), SHA, os.getpid())
    assert len(pin_files(tmp_path)) == 1


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    child = sleeper()
    pins.pin(str(tmp_path), SHA, child)
    assert pins.held(str(tmp_path), SHA)
    kill(child)
    assert not pins.held(str(tmp_path), SHA)
    assert not pins.pin(str(tmp_path), OTHER, child)
    (taken,) = pins.sweep(str(tmp_path))
    assert taken[0] == SHA
    assert abs(taken[1] - time.time()) < 60
    assert pin_files(tmp_path) == []


def test_a_dead_process_that_nobody_waited_for_holds_nothing(tmp_path: Path) -> None:
    child = sleeper()
    pins.pin(str(tmp_path), SHA, child)
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert not pins.held(str(tmp_path), SHA)
    finally:
        children.end(child)


def test_what_a_dead_process_held_can_still_be_released(tmp_path: Path) -> None:
    child = sleeper()
    pins.pin(str(tmp_path), SHA, child)
    kill(child)
    assert pins.release(str(tmp_path), child) == 1


def test_another_process_with_the_same_number_holds_nothing(tmp_path: Path) -> None:
    pins.pin(str(tmp_path), SHA, os.getpid())
    (path,) = pin_files(tmp_path)
    pid, start, place, sha256 = path.name.split(".")
    path.rename(path.with_name(f"{pid}.{int(start) - 1}.{place}.{sha256}"))
    assert not pins.held(str(tmp_path), SHA)
    assert pins.release(str(tmp_path), os.getpid()) == 0, "it is not this process's"
    assert len(pins.sweep(str(tmp_path))) == 1


def test_a_process_may_be_called_anything(tmp_path: Path) -> None:
    (reached, here) = os.pipe()

    def renamed() -> None:
        Path("/proc/self/comm").write_text("x) R 1 (2 3")
        os.write(here, b".")
        signal.pause()

    child = children.start(renamed)
    os.read(reached, 1)
    try:
        pins.pin(str(tmp_path), SHA, child)
        (path,) = pin_files(tmp_path)
        began = int(path.name.split(".")[1]) / os.sysconf("SC_CLK_TCK")
        assert 0 <= float(Path("/proc/uptime").read_text().split()[0]) - began < 60
    finally:
        kill(child)
        os.close(reached)
        os.close(here)


def test_a_pin_of_another_place_counts_for_three_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host or pid namespace: its process cannot be looked at from here."""
    child = sleeper()
    pins.pin(str(tmp_path), SHA, child)
    kill(child)
    (path,) = pin_files(tmp_path)
    pid, start, place, sha256 = path.name.split(".")
    path.rename(path.with_name(f"{pid}.{start}.{place}1.{sha256}"))
    assert pins.held(str(tmp_path), SHA)
    assert pins.release(str(tmp_path), child) == 0
    assert pins.sweep(str(tmp_path)) == []
    later = time.time() + 3 * 86400 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert not pins.held(str(tmp_path), SHA)
    assert len(pins.sweep(str(tmp_path))) == 1


def test_a_process_of_ones_own_holds_as_long_as_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins.pin(str(tmp_path), SHA, os.getpid())
    later = time.time() + 30 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    assert pins.held(str(tmp_path), SHA)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's file")
def test_another_users_pin_counts_for_three_days_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store anybody may pin, and name a process that never ends."""
    pins.pin(str(tmp_path), SHA, os.getpid())
    (path,) = pin_files(tmp_path)
    os.chown(path, 12345, 12345)
    assert pins.held(str(tmp_path), SHA)
    later = time.time() + 3 * 86400 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert not pins.held(str(tmp_path), SHA)


@pytest.mark.parametrize("pid", [0, 1, 1 << 40])
def test_nothing_is_held_for_no_process(tmp_path: Path, pid: int) -> None:
    """Orphans are init's children: it would hold what it was never given."""
    assert not pins.pin(str(tmp_path), SHA, pid)
    assert not (tmp_path / "pins").exists()


def test_names_that_are_no_pins_are_left_until_they_are_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins/x").touch()
    (tmp_path / f"pins/x.1.y.{SHA}").touch()
    assert not pins.held(str(tmp_path), SHA)
    assert pins.sweep(str(tmp_path)) == []
    later = time.time() + 3 * 86400 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert pins.sweep(str(tmp_path)) == []
    assert pin_files(tmp_path) == []


def test_where_nothing_can_be_written_nothing_is_pinned(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not pins.pin(str(tmp_path / "file"), SHA, os.getpid())
    assert pins.holders(str(tmp_path / "absent")) == {}


def test_a_pin_follows_no_link(tmp_path: Path) -> None:
    pins.pin(str(tmp_path), SHA, os.getpid())
    (path,) = pin_files(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "precious")
    assert not pins.pin(str(tmp_path), SHA, os.getpid())
    assert not (tmp_path / "precious").exists()


def test_the_starter_is_whom_condor_names_else_the_parent() -> None:
    assert pins.starter({"CONDOR_STARTER_PID": "4711"}) == 4711
    for nobody in ({}, {"CONDOR_STARTER_PID": ""}, {"CONDOR_STARTER_PID": "-1"}, {"CONDOR_STARTER_PID": "²"}):
        assert pins.starter(nobody) == os.getppid()
