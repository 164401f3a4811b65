from __future__ import annotations

import threading

from publisher.publish.pipeline.threads import WorkThreads

PATIENCE = 60.0


def test_as_many_pieces_of_work_are_done_at_a_time_as_there_are_threads() -> None:
    threads = WorkThreads[str](2)
    both = threading.Barrier(2)

    def work() -> None:
        both.wait(PATIENCE)  # raises if the other one does not run
        threads.tell("done")

    for _ in range(4):
        threads.submit(work)
    assert [threads.wait(PATIENCE) for _ in range(4)] == ["done"] * 4
    threads.join()


def test_the_main_thread_does_not_wait_longer_than_it_wants_to() -> None:
    threads = WorkThreads[str](1)
    assert threads.wait(0.0) is None
    threads.join()


def test_threads_end_when_all_work_is_done() -> None:
    before = set(threading.enumerate())
    threads = WorkThreads[str](2)
    threads.submit(lambda: threads.tell("the last"))
    threads.join()
    assert threads.wait(None) == "the last"
    assert set(threading.enumerate()) <= before
