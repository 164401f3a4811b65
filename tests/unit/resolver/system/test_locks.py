from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from publisher.resolver.system import locks
from tests.support.machine import child_process

FOREVER = 1e9


def file_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def test_the_first_free_lock_is_acquired(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    with locks.acquire(paths, 0), locks.acquire(paths, 0) as second:
        assert second is not None
        assert file_of(second) == paths[1]
        with pytest.raises(TimeoutError, match="all busy"), locks.acquire(paths, 0, why="all busy"):
            pytest.fail("there are two")
    with locks.acquire(paths, 0) as again:
        assert again is not None
        assert file_of(again) == paths[0]


def test_waiting_ends_when_there_is_nothing_left_to_wait_for(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    asked = iter([False, False, True])
    with locks.acquire([path], 0), locks.acquire([path], time.monotonic() + FOREVER, lambda: next(asked)) as held:
        assert held is None


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path, (ready, done) = str(tmp_path / "lock"), os.pipe()

    def hold() -> None:
        with locks.acquire([path], 0):
            os.write(done, b"1")
            os.read(os.pipe()[0], 1)

    child = child_process.start(hold)
    os.read(ready, 1)
    assert locks.is_locked(path)
    os.kill(child, 9)
    with locks.acquire([path], time.monotonic() + FOREVER):
        pass
    child_process.end(child)
    assert not locks.is_locked(path)


def test_a_symbolic_link_is_not_used_as_a_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"), locks.acquire([str(tmp_path / "lock")], 0):
        pytest.fail("it would have made a file elsewhere")
    assert not (tmp_path / "elsewhere").exists()
