from __future__ import annotations

import os
from typing import TYPE_CHECKING

from publisher.resolver.system import negative_cache

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_750_000_000.0


def test_what_failed_is_left_alone_for_a_while_that_grows(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert negative_cache.recent_failure(root, "x", NOW) is None
    negative_cache.record_failure(root, "x", "the server\nis down", NOW)
    reason = negative_cache.recent_failure(root, "x", NOW + 9)
    assert reason is not None
    assert reason.startswith("the server is down (1 in a row")
    assert negative_cache.recent_failure(root, "x", NOW + 31) is None
    assert negative_cache.recent_failure(root, "other", NOW) is None
    for _ in range(20):
        negative_cache.record_failure(root, "x", "down", NOW)
    assert "(21 in a row" in (negative_cache.recent_failure(root, "x", NOW + 400) or "")
    assert negative_cache.recent_failure(root, "x", NOW + 1400) is None


def test_what_works_again_is_forgotten(tmp_path: Path) -> None:
    negative_cache.record_failure(str(tmp_path), "x", "down", NOW)
    negative_cache.clear(str(tmp_path), "x")
    negative_cache.clear(str(tmp_path), "x")
    assert negative_cache.recent_failure(str(tmp_path), "x", NOW) is None


def test_a_clock_that_was_wrong_stops_nothing(tmp_path: Path) -> None:
    negative_cache.record_failure(str(tmp_path), "x", "down", NOW + 86400)
    assert negative_cache.recent_failure(str(tmp_path), "x", NOW) is None


def test_the_pause_is_not_the_same_everywhere(tmp_path: Path) -> None:
    for number in range(20):
        negative_cache.record_failure(str(tmp_path), str(number), "down", NOW)
    assert len({negative_cache.recent_failure(str(tmp_path), str(number), NOW) for number in range(20)}) > 3


def test_old_and_broken_memories_are_swept_and_others_are_not(tmp_path: Path) -> None:
    negative_cache.record_failure(str(tmp_path), "old", "down", NOW - 7200)
    negative_cache.record_failure(str(tmp_path), "new", "down", NOW)
    for name, age in (("somebody-elses", 60), ("broken", 7200)):
        path = tmp_path / "failures" / name
        path.write_text("?")
        os.utime(path, (NOW - age, NOW - age))
    negative_cache.sweep(str(tmp_path), NOW)
    assert sorted(path.name for path in (tmp_path / "failures").iterdir()) == ["new", "somebody-elses"]


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    negative_cache.record_failure(str(tmp_path / "file"), "x", "down", NOW)
    negative_cache.sweep(str(tmp_path / "file"), NOW)
    assert negative_cache.recent_failure(str(tmp_path / "file"), "x", NOW) is None
