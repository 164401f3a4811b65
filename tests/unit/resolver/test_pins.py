from __future__ import annotations

import os
from pathlib import Path

from publisher.resolver import pins
from tests.support import children

ONE, OTHER = "a" * 64, "b" * 64


def sleeper() -> int:
    """A child that lives until it is told to end."""
    return children.start(lambda: os.read(os.pipe()[0], 1))


def end(child: int) -> None:
    os.kill(child, 9)
    children.end(child)


def test_a_pin_holds_as_long_as_its_process_lives(tmp_path: Path) -> None:
    child = sleeper()
    pins.pin(str(tmp_path), ONE, pins.Starter(child))
    pins.pin(str(tmp_path), ONE, pins.Starter(child))
    pins.pin(str(tmp_path), ONE, pins.Starter(os.getpid()))
    pins.pin(str(tmp_path), OTHER, pins.Starter(child))
    assert pins.held(str(tmp_path)) == {ONE: 2, OTHER: 1}
    end(child)
    assert pins.held(str(tmp_path)) == {ONE: 1}
    assert len(list((tmp_path / "pins").iterdir())) == 1, "pins of the dead are removed"


def test_another_process_with_the_same_number_is_another_process(tmp_path: Path) -> None:
    starter = pins.Starter(os.getpid())
    pid, _, rest = starter.name.partition("-")
    start, _, namespace = rest.partition("-")
    starter.name = f"{pid}-{int(start) + 1}-{namespace}"
    pins.pin(str(tmp_path), ONE, starter)
    assert pins.held(str(tmp_path)) == {}


def test_a_pin_from_another_pid_namespace_holds_a_week(tmp_path: Path) -> None:
    starter = pins.Starter(os.getpid())
    starter.name = "4000000-1-1"
    pins.pin(str(tmp_path), ONE, starter)
    assert pins.held(str(tmp_path)) == {ONE: 1}
    os.utime(tmp_path / "pins" / f"{ONE}.4000000-1-1", (1, 1))
    assert pins.held(str(tmp_path)) == {}


def test_release_takes_back_a_starters_pins_and_no_others(tmp_path: Path) -> None:
    child = sleeper()
    for sha256 in (ONE, OTHER):
        pins.pin(str(tmp_path), sha256, pins.Starter(child))
    pins.pin(str(tmp_path), ONE, pins.Starter(os.getpid()))
    assert sorted(pins.release(str(tmp_path), pins.Starter(child))) == [ONE, OTHER]
    assert pins.held(str(tmp_path)) == {ONE: 1}
    end(child)


def test_the_starter_is_the_one_that_htcondor_names_else_the_parent() -> None:
    assert pins.starter({}).pid == os.getppid()
    assert pins.starter({"CONDOR_STARTER_PID": str(os.getpid())}).pid == os.getpid()
    assert pins.starter({"CONDOR_STARTER_PID": "nonsense"}).pid == os.getppid()


def test_what_is_no_pin_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "pins").mkdir()
    for name in ("README", f"{ONE}.x-1-1", f"{ONE}.", f"{ONE}.99999999-1-{Path('/proc/self/ns/pid').stat().st_ino}"):
        (tmp_path / "pins" / name).touch()
    assert pins.held(str(tmp_path)) == {}
