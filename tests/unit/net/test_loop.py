from __future__ import annotations

import asyncio
import threading

import pytest

from publisher.net.loop import BackgroundLoop
from tests.support.machine import child_process


def test_work_runs_beside_the_main_thread_and_gives_its_result() -> None:
    async def who() -> str:
        return threading.current_thread().name

    with BackgroundLoop() as background:
        assert background.submit(who()).result(60) == "network"


def test_an_error_reaches_who_waits_for_it() -> None:
    async def fail() -> None:
        raise LookupError("nothing there")

    with BackgroundLoop() as background, pytest.raises(LookupError, match="nothing there"):
        background.submit(fail()).result(60)


def test_what_is_unfinished_at_the_end_is_cancelled() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with BackgroundLoop() as background:
        future = background.submit(forever())
        assert begun.wait(60)
    assert ended.is_set()
    assert future.cancelled()


def test_a_forked_child_does_not_wait_for_a_thread_that_it_has_not() -> None:
    with BackgroundLoop() as background:
        child = child_process.start(lambda: background.__exit__(None, None, None))
        assert child_process.end(child) == 0
        assert background.here
