from __future__ import annotations

import os
from typing import TYPE_CHECKING

from publisher.resolver.system import negative_cache

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_750_000_000.0


def test_a_failure_is_not_retried_for_a_growing_pause(tmp_path: Path) -> None:
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


def test_a_cleared_failure_is_forgotten(tmp_path: Path) -> None:
    negative_cache.record_failure(str(tmp_path), "x", "down", NOW)
    negative_cache.clear(str(tmp_path), "x")
    negative_cache.clear(str(tmp_path), "x")
    assert negative_cache.recent_failure(str(tmp_path), "x", NOW) is None


def test_a_clock_that_was_set_back_blocks_nothing(tmp_path: Path) -> None:
    negative_cache.record_failure(str(tmp_path), "x", "down", NOW + 86400)
    assert negative_cache.recent_failure(str(tmp_path), "x", NOW) is None


def test_the_pause_is_jittered(tmp_path: Path) -> None:
    for number in range(20):
        negative_cache.record_failure(str(tmp_path), str(number), "down", NOW)
    assert len({negative_cache.recent_failure(str(tmp_path), str(number), NOW) for number in range(20)}) > 3


def test_old_and_broken_entries_are_swept_and_other_files_are_not(tmp_path: Path) -> None:
    negative_cache.record_failure(str(tmp_path), "old", "down", NOW - 7200)
    negative_cache.record_failure(str(tmp_path), "new", "down", NOW)
    for name, age in (("somebody-elses", 60), ("broken", 7200)):
        path = tmp_path / "failures" / name
        path.write_text("?")
        os.utime(path, (NOW - age, NOW - age))
    negative_cache.sweep(str(tmp_path), NOW)
    assert sorted(path.name for path in (tmp_path / "failures").iterdir()) == ["new", "somebody-elses"]


def test_an_unwritable_cache_remembers_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    negative_cache.record_failure(str(tmp_path / "file"), "x", "down", NOW)
    negative_cache.sweep(str(tmp_path / "file"), NOW)
    assert negative_cache.recent_failure(str(tmp_path / "file"), "x", NOW) is None
