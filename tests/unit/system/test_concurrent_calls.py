from __future__ import annotations

import threading

import pytest

from publisher.system.concurrent_calls import call_concurrently

PATIENCE = 60.0


def test_every_item_is_worked_on_and_several_at_the_same_time() -> None:
    both = threading.Barrier(2)
    done: list[int] = []

    def work(item: int) -> None:
        both.wait(PATIENCE)
        done.append(item)

    call_concurrently(work, range(20))
    assert sorted(done) == list(range(20))


def test_the_first_failure_is_raised_when_what_had_begun_has_ended() -> None:
    begun: list[int] = []
    failed = threading.Event()
    ended: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            failed.set()
            raise ValueError("the first one")
        failed.wait(PATIENCE)
        ended.append(item)

    with pytest.raises(ValueError, match="the first one"):
        call_concurrently(work, range(8))
    assert sorted([0, *ended]) == sorted(begun)
