"""What the page remembers between syncs."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from publisher.errors import StateDirectoryError
from publisher.page.details import BuildChanges, ImageDetails
from publisher.page.memory import FAILED, DayTotal, PageEvent, PageMemory

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_is_there_again_after_the_block(tmp_path: Path) -> None:
    events = [PageEvent(5, 1, "a:1", "amd64", "sha256:0", "new"), PageEvent(6, 0, "b:1", "", "", FAILED, "why", "docker.io")]
    with PageMemory(tmp_path / "m") as memory:
        memory.put("serial", 7)
        memory.wrote("index.html", "f")
        memory.wrote("old.html", "f")
        memory.removed("old.html")
        memory.add_events(events)
        memory.add_details({"sha256:0": ImageDetails(user="x"), "sha256:1": ImageDetails()})
        memory.add_build_changes("sha256:0", BuildChanges("sha256:9", 1))
        memory.set_total(DayTotal(2, 1, 2, 3))
        memory.set_total(DayTotal(2, 4, 5, 6))
        memory.add_lag(5, "a:1", 60)
        memory.keep_only(["sha256:0"])
    with PageMemory(tmp_path / "m") as memory:
        assert (memory.get("serial"), memory.get("none", 0)) == (7, 0)
        assert memory.files() == {"index.html": "f"}
        assert [(one.name, one.number) for one in memory.events()] == [("b:1", 2), ("a:1", 1)]
        assert [one.what for one in memory.events("b:1")] == [FAILED]
        assert memory.newest_events() == {"a:1": 1, "b:1": 2}
        assert memory.failures_by_registry(6) == {"docker.io": 1}
        assert memory.failures_by_registry(7) == {}
        assert memory.known_details() == {"sha256:0"}
        assert memory.details("sha256:0") == ImageDetails(user="x")
        assert memory.details("sha256:1") is None
        assert memory.compared() == {("sha256:0", "sha256:9")}
        assert memory.build_changes("sha256:0", "sha256:9") == BuildChanges("sha256:9", 1)
        assert memory.build_changes("sha256:0", "sha256:8") is None
        assert memory.totals() == [DayTotal(2, 4, 5, 6)]
        assert (memory.lags(5), memory.lags(6)) == ([(5, 60)], [])
        memory.forget_files()
        assert memory.files() == {}


def test_nothing_is_stored_of_a_block_that_raises(tmp_path: Path) -> None:
    def fail() -> None:
        with PageMemory(tmp_path / "m") as memory:
            memory.put("serial", 7)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with PageMemory(tmp_path / "m") as memory:
        assert memory.get("serial") is None


@pytest.mark.parametrize("damage", ["bytes", "version"])
def test_a_file_that_cannot_be_read_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m"
    if damage == "bytes":
        path.write_bytes(b"no database at all" * 100)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    with PageMemory(path) as memory:
        memory.put("serial", 7)
    with PageMemory(path) as memory:
        assert memory.get("serial") == 7


def test_a_file_that_cannot_be_made_is_an_expected_failure(tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryError, match="cannot be used"), PageMemory(tmp_path / "none" / "m"):
        pass
