from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.cli.state_directory import lock_state
from publisher.errors import StateDirectoryError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_state_directory_is_made_closed_to_writers_whatever_the_umask(state: Path) -> None:
    before = os.umask(0)
    try:
        with lock_state(state):
            pass
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (state, state / "blobs", state / "builds")}
    assert modes == {"state": 0o755, "blobs": 0o700, "builds": 0o700}


@pytest.mark.parametrize("name", [".", "blobs", "builds"])
def test_a_run_does_not_begin_in_a_directory_that_others_may_write_to(name: str, state: Path) -> None:
    (state / name).mkdir(parents=True, exist_ok=True)
    (state / name).chmod(0o777)
    message = r"other accounts may write to .* \(nothing was done; delete everything in "
    with pytest.raises(StateDirectoryError, match=message), lock_state(state):
        pytest.fail("it began")


def test_a_state_directory_that_was_open_to_readers_is_closed(state: Path) -> None:
    (state / "builds").mkdir(parents=True)
    (state / "builds").chmod(0o755)
    with lock_state(state):
        assert (state / "builds").stat().st_mode & 0o777 == 0o700
