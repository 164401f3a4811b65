from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.cache import start_failures

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_750_000_000


@pytest.fixture
def caches(tmp_path: Path) -> list[tuple[int, str]]:
    return [(os.geteuid(), str(tmp_path))]


def test_reports_count_until_a_probe_succeeds_or_they_are_old(caches: list[tuple[int, str]], tmp_path: Path) -> None:
    for second in (0, 10, 20):
        start_failures.report(str(tmp_path), f"job {second}.0:\ntest failed", NOW + second)
    assert start_failures.recent(caches, 0, NOW + 20) == [
        "job 0.0: test failed",
        "job 10.0: test failed",
        "job 20.0: test failed",
    ]
    assert start_failures.recent(caches, NOW + 10, NOW + 20) == ["job 20.0: test failed"]
    assert start_failures.recent(caches, 0, NOW + 3600) == []


def test_others_can_read_the_reports_and_nothing_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    start_failures.report(str(tmp_path), "x", NOW)
    assert (tmp_path.stat().st_mode & 0o777, (tmp_path / "start-failures").stat().st_mode & 0o777) == (0o711, 0o644)


def test_what_is_not_its_users_own_file_is_not_counted(caches: list[tuple[int, str]], tmp_path: Path) -> None:
    start_failures.report(str(tmp_path), "x", NOW)
    assert start_failures.recent([(os.geteuid() + 1, str(tmp_path))], 0, NOW) == []
    (tmp_path / "start-failures").rename(tmp_path / "other")
    (tmp_path / "start-failures").symlink_to("other")
    assert start_failures.recent(caches, 0, NOW) == []
    (tmp_path / "start-failures").unlink()
    os.mkfifo(tmp_path / "start-failures")
    assert start_failures.recent(caches, 0, NOW) == []


def test_reports_take_little_space_and_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    for second in range(300):
        start_failures.report(str(tmp_path), "y" * 500, NOW + second)
    assert (tmp_path / "start-failures").stat().st_size < 20_000
    start_failures.report(str(tmp_path / "away"), "x", NOW)
