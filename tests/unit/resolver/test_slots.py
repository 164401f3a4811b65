from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver import slots
from tests.support import children

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_ONCE, LONG = 0.0, 1e9


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def holder(paths: list[str], pipe: tuple[int, int]) -> int:
    """A process that has a turn, until it is killed."""

    def hold() -> None:
        with slots.turn(paths, LONG):
            os.write(pipe[1], b".")
            signal.pause()

    child = children.start(hold)
    os.read(pipe[0], 1)
    return child


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    children.end(child)


def test_there_are_as_many_turns_as_files(tmp_path: Path, pipe: tuple[int, int]) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    first, second = holder(paths, pipe), holder(paths, pipe)
    with pytest.raises(TimeoutError), slots.turn(paths, AT_ONCE):
        pytest.fail("a third one had a turn")
    kill(first)
    with slots.turn(paths, AT_ONCE) as mine:
        assert mine
        with pytest.raises(TimeoutError), slots.turn(paths, AT_ONCE):
            pytest.fail("it was given away twice")
    with slots.turn(paths, AT_ONCE):
        pass
    kill(second)


def test_waiting_ends_at_the_deadline(tmp_path: Path, pipe: tuple[int, int]) -> None:
    child = holder([str(tmp_path / "a")], pipe)
    began = time.monotonic()
    with pytest.raises(TimeoutError), slots.turn([str(tmp_path / "a")], began + 0.3):
        pytest.fail("it had a turn")
    assert time.monotonic() >= began + 0.3
    kill(child)


def test_who_waits_gets_the_turn_of_a_killed_process(tmp_path: Path, pipe: tuple[int, int]) -> None:
    first = holder([str(tmp_path / "a")], pipe)
    asked, ask = os.pipe()

    def wait() -> None:
        with slots.turn([str(tmp_path / "a")], LONG, lambda: os.write(ask, b".") != 1) as mine:
            assert mine

    second = children.start(wait)
    os.read(asked, 1)  # it has been tried, and waits
    kill(first)
    assert children.end(second) == 0
    os.close(asked)
    os.close(ask)


def test_who_waits_for_something_that_has_come_goes_on_without_a_turn(tmp_path: Path, pipe: tuple[int, int]) -> None:
    child = holder([str(tmp_path / "a")], pipe)
    answers = iter([False, False, True])
    with slots.turn([str(tmp_path / "a")], LONG, lambda: next(answers)) as mine:
        assert not mine
    kill(child)


def test_a_turn_at_a_file_that_was_removed_is_none(tmp_path: Path) -> None:
    """Whoever comes next would make it anew, and have the turn as well."""
    path = tmp_path / "a"

    def take() -> None:
        once = iter([path.unlink])

        def sweep(event: str, _: tuple[object, ...]) -> None:
            if event == "fcntl.flock":
                next(once, lambda: None)()

        sys.addaudithook(sweep)
        with slots.turn([str(path)], LONG), pytest.raises(TimeoutError), slots.turn([str(path)], AT_ONCE):
            pytest.fail("two have it")

    assert children.end(children.start(take)) == 0


def test_what_another_user_made_can_be_waited_for(tmp_path: Path) -> None:
    with slots.turn([str(tmp_path / "a")], AT_ONCE):
        pass
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    (tmp_path / "a").chmod(0o444)
    tmp_path.chmod(0o555)

    def take() -> None:
        with slots.turn([str(tmp_path / "a")], AT_ONCE) as mine:
            assert mine
        with pytest.raises(OSError, match="b"), slots.turn([str(tmp_path / "b")], AT_ONCE):
            pytest.fail("it was made where nothing can be made")

    try:
        children.unprivileged(take)
    finally:
        tmp_path.chmod(0o755)


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), slots.turn([str(tmp_path / "a")], AT_ONCE):
        pytest.fail("it was followed")
    assert not (tmp_path / "precious").exists()
