from __future__ import annotations

import logging

import pytest

from publisher.net.retry import RetriesExhaustedError, RetryPolicy, TransientError


class Host:
    """A host that fails a number of times, and the delays that its clients waited."""

    def __init__(self, *failures: TransientError) -> None:
        self.failures = list(failures)
        self.delays: list[float] = []

    async def answer(self) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return "answer"

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(sleep=self.sleep)


async def test_a_retry_is_logged_with_attempt_reason_and_delay(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "publisher.net.retry")
    host = Host(TransientError("host answered 429", 30))
    assert await host.policy.run(host.answer) == "answer"
    assert host.delays == [30]
    (record,) = caplog.records
    assert record.getMessage() == "attempt 1 failed: host answered 429; retrying in 30.0 s"
    assert (record.levelname, vars(record)["attempt"], vars(record)["delay"]) == ("INFO", 1, 30)


async def test_exhausted_attempts_are_logged_and_raised_with_the_last_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "publisher.net.retry")
    host = Host(*(TransientError(f"host answered {status}") for status in range(500, 504)))
    with pytest.raises(RetriesExhaustedError, match=r"^host answered 503, after 4 attempts \(nothing was changed"):
        await host.policy.run(host.answer)
    assert len(host.delays) == 3
    assert caplog.messages[-1] == "giving up: host answered 503, after 4 attempts"


async def test_a_wait_beyond_the_limit_is_not_waited_for() -> None:
    host = Host(TransientError("host answered 503", 61))
    with pytest.raises(RetriesExhaustedError, match="host answered 503 and asks to retry after 61 s"):
        await host.policy.run(host.answer)
    assert host.delays == []


async def test_an_attempt_that_made_progress_is_not_counted() -> None:
    host = Host(*(TransientError("broke off") for _ in range(10)))
    assert await host.policy.run(host.answer, lambda: -len(host.failures)) == "answer"
