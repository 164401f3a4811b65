from __future__ import annotations

import os
from typing import TYPE_CHECKING

from publisher.resolver import tally
from tests.support import children

if TYPE_CHECKING:
    from pathlib import Path


def test_hits_and_bytes_are_counted(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert (tally.hits(root), tally.counted(root, tally.MISSES)) == (0, (0, 0))
    tally.hit(root)
    tally.hit(root)
    for size in (0, 5, 1 << 40):
        tally.count(root, tally.MISSES, size)
    tally.count(root, tally.EVICTIONS, 7)
    assert tally.hits(root) == 2
    assert tally.counted(root, tally.MISSES) == (3, 5 + (1 << 40))
    assert tally.counted(root, tally.EVICTIONS) == (1, 7)


def test_processes_that_count_at_once_lose_nothing(tmp_path: Path) -> None:
    def count() -> None:
        for _ in range(50):
            tally.hit(str(tmp_path))
            tally.count(str(tmp_path), tally.MISSES, 3)

    assert [children.end(child) for child in [children.start(count) for _ in range(8)]] == [0] * 8
    assert tally.hits(str(tmp_path)) == 400
    assert tally.counted(str(tmp_path), tally.MISSES) == (400, 1200)


def test_a_kill_at_any_point_loses_its_own_count_at_most(tmp_path: Path) -> None:
    tally.hit(str(tmp_path))
    point = 0
    while children.killed(point, lambda: tally.hit(str(tmp_path))):
        point += 1
    assert point == 1, "it opens one file"
    assert tally.hits(str(tmp_path)) == 2
    with (tmp_path / "tally/misses").open("wb") as file:
        file.write(b"\x05" + bytes(7) + b"\x01\x01")  # a write that had no room for all
    assert tally.counted(str(tmp_path), tally.MISSES) == (1, 5)


def test_what_cannot_be_counted_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tally.hit(str(tmp_path / "file"))
    (tmp_path / "tally").mkdir()
    (tmp_path / "tally/hits").symlink_to(tmp_path / "precious")
    tally.hit(str(tmp_path))
    assert not os.path.lexists(tmp_path / "precious")
