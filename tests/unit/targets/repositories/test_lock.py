"""The lock of a repository, as processes hold it that were killed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.targets.repositories.lock import RepositoryLockedError, hold_lock
from tests.support.machine import child_process

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_killed_holder_had_just_started_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was forked to become a program has the lock until it is the program."""
    path = tmp_path / "lock"
    ends, end = os.pipe()

    def hold_and_fork() -> None:
        with hold_lock(path, "images.example.org"):
            if os.fork() == 0:
                os.close(end)
                os.read(ends, 1)
            os._exit(0)

    child_process.end(child_process.start(hold_and_fork))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        if not waits:
            os.close(end)
        waits.append(seconds)

    monkeypatch.setattr("publisher.contract.files.time.sleep", sleep)
    with hold_lock(path, "images.example.org"):
        assert waits
    os.close(ends)


def test_a_holder_that_lives_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    monkeypatch.setattr("publisher.contract.files.time.sleep", lambda _: pytest.fail("waited"))
    with (
        hold_lock(path, "images.example.org"),
        pytest.raises(RepositoryLockedError, match=f"by process {os.getpid()}"),
        hold_lock(path, "images.example.org"),
    ):
        pass
