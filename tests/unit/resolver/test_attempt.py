from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.attempt import Attempt
from publisher.resolver.errors import FetchError, ManifestError

if TYPE_CHECKING:
    from pathlib import Path


def soon() -> float:
    return time.monotonic() + 60


def test_an_answer_of_any_size_arrives_whole() -> None:
    for content in (b"", b"+", b"x" * 3_000_000):
        assert Attempt(lambda content=content: content).result(soon()) == content  # type: ignore[misc]  # bound in the loop


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    def absent() -> bytes:
        return (tmp_path / "absent").read_bytes()

    def refused() -> bytes:
        raise ManifestError("no manifest", hint="look elsewhere")

    with pytest.raises(FetchError, match=r"No such file .*absent"):
        Attempt(absent).result(soon())
    with pytest.raises(FetchError, match=r"no manifest \(look elsewhere\)"):
        Attempt(refused).result(soon())


def test_a_bug_in_the_work_is_a_bug_here() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        Attempt(lambda: bytes([1 // 0])).result(soon())


def test_work_that_hangs_is_given_up_and_killed(tmp_path: Path) -> None:
    fifo, alive = tmp_path / "fifo", os.pipe()
    os.mkfifo(fifo)

    def hang() -> bytes:
        os.write(alive[1], b"%d\n" % os.getpid())
        return fifo.read_bytes()  # nobody will ever write

    attempt = Attempt(hang)
    child = int(os.read(alive[0], 100))
    with pytest.raises(FetchError, match="no answer in time"):
        attempt.result(time.monotonic() + 0.01)
    os.close(alive[1])
    assert os.read(alive[0], 1) == b"", "the child still holds its end"
    os.close(alive[0])
    with contextlib.suppress(ChildProcessError):  # where it was quick to die
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_attempts_run_at_the_same_time() -> None:
    """Each waits for the other's word."""
    (first, to_first), (second, to_second) = os.pipe(), os.pipe()

    def one() -> bytes:
        os.write(to_second, b"2")
        return os.read(first, 1)

    def other() -> bytes:
        os.write(to_first, b"1")
        return os.read(second, 1)

    attempts = [Attempt(one), Attempt(other)]
    assert [attempt.result(soon()) for attempt in attempts] == [b"1", b"2"]
    for descriptor in (first, to_first, second, to_second):
        os.close(descriptor)


def test_the_work_cannot_speak_on_the_streams_of_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    def speak() -> bytes:
        for stream in (1, 2):
            os.write(stream, b"talk")
        return os.read(0, 10)

    assert Attempt(speak).result(soon()) == b""
    assert capfd.readouterr() == ("", "")


def test_a_child_of_the_child_that_hangs_holds_up_nobody() -> None:
    """It holds the answer's pipe open: in the kernel, perhaps, where no signal reaches it."""
    read, write = os.pipe()

    def work() -> bytes:
        if os.fork() == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        return b"answer"

    try:
        assert Attempt(work).result(time.monotonic() + 60) == b"answer"
    finally:
        os.close(write)  # and the other ends
        os.close(read)
