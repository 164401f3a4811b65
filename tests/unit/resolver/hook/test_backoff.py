from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from publisher.resolver.hook import backoff

if TYPE_CHECKING:
    from pathlib import Path


def test_the_first_failure_is_answered_at_once_and_the_same_again_later_and_later(tmp_path: Path) -> None:
    found = [backoff.delay(str(tmp_path), "321 a:1", 10, 1.0) for _ in range(6)]
    assert found == [0, 10, 20, 40, 80, 80]


def test_another_failure_or_image_is_another_matter(tmp_path: Path) -> None:
    assert backoff.delay(str(tmp_path), "321 a:1", 10, 1.0) == 0
    assert backoff.delay(str(tmp_path), "310 a:1", 10, 1.0) == 0
    assert backoff.delay(str(tmp_path), "321 b:1", 10, 1.0) == 0
    assert backoff.delay(str(tmp_path), "321 a:1", 10, 1.0) == 10


def test_chance_takes_up_to_half_of_it(tmp_path: Path) -> None:
    backoff.delay(str(tmp_path), "x", 10, 0.0)
    assert backoff.delay(str(tmp_path), "x", 10, 0.0) == 5
    assert backoff.delay(str(tmp_path), "x", 10, 0.5) == 15


def test_it_is_forgotten_after_a_while(tmp_path: Path) -> None:
    for _ in range(3):
        backoff.delay(str(tmp_path), "x", 10, 1.0)
    (memory,) = (tmp_path / "failures").iterdir()
    for moved in (-backoff.RESET_AFTER - 1, 3600):
        os.utime(memory, (time.time() + moved,) * 2)
        assert backoff.delay(str(tmp_path), "x", 10, 1.0) == 0
        assert backoff.delay(str(tmp_path), "x", 10, 1.0) == 10


def test_a_damaged_memory_is_none(tmp_path: Path) -> None:
    backoff.delay(str(tmp_path), "x", 10, 1.0)
    (memory,) = (tmp_path / "failures").iterdir()
    memory.write_text("often")
    assert backoff.delay(str(tmp_path), "x", 10, 1.0) == 0


def test_where_nothing_can_be_remembered_every_failure_waits(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cache in (None, str(tmp_path / "file")):
        assert [backoff.delay(cache, "x", 10, 1.0) for _ in range(2)] == [10, 10]


def test_a_step_of_nothing_is_no_waiting(tmp_path: Path) -> None:
    assert [backoff.delay(str(tmp_path), "x", 0, 1.0) for _ in range(3)] == [0, 0, 0]
