from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract import files
from publisher.contract.errors import ManifestError
from publisher.resolver.errors import FetchError, KilledError, ReadError
from publisher.resolver.system.deadline_fork import ForkedCall

if TYPE_CHECKING:
    from pathlib import Path


def soon() -> float:
    return time.monotonic() + 60


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Who opens it for reading waits for who writes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_an_answer_of_any_size_arrives_whole() -> None:
    for content in (b"", b"+", b"x" * 3_000_000):
        assert ForkedCall(lambda content=content: content).result(soon()) == content  # type: ignore[misc]  # bound in the loop


def test_a_failure_is_reported_with_its_reason(tmp_path: Path) -> None:
    def absent() -> bytes:
        return (tmp_path / "absent").read_bytes()

    def refused() -> bytes:
        raise ManifestError("no manifest", hint="look elsewhere")

    with pytest.raises(FetchError, match=r"No such file .*absent"):
        ForkedCall(absent).result(soon())
    with pytest.raises(FetchError, match=r"no manifest \(look elsewhere\)"):
        ForkedCall(refused).result(soon())


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN])
def test_a_broken_file_system_is_told_from_an_absent_file(number: int) -> None:
    def broken() -> bytes:
        raise OSError(number, os.strerror(number), "/cvmfs/x")

    def source() -> bytes:
        raise ReadError("index.json: Input/output error")

    for work in (broken, source):
        with pytest.raises(ReadError, match=r"error|endpoint"):
            ForkedCall(work).result(soon())
    with pytest.raises(FetchError) as failure:
        ForkedCall(lambda: bytes(open("/no/such/file", "rb").read())).result(soon())  # noqa: PTH123, SIM115
    assert not isinstance(failure.value, ReadError)


def test_a_child_that_somebody_killed_is_no_bug() -> None:
    def work() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with pytest.raises(KilledError, match="killed by SIGKILL"):
        ForkedCall(work).result(soon())


def test_a_bug_in_the_work_is_a_bug_here() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        ForkedCall(lambda: bytes([1 // 0])).result(soon())


def test_a_call_that_hangs_is_killed(tmp_path: Path, fifo: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)

    def hang() -> bytes:
        with alive.open("wb", buffering=0) as end:
            end.write(b"%d\n" % os.getpid())
            return fifo.read_bytes()  # nobody will ever write

    attempt = ForkedCall(hang)
    with alive.open("rb") as end:
        child = int(end.readline())
        with pytest.raises(FetchError, match="no answer in time"):
            attempt.result(time.monotonic() + 0.01)
        assert end.read(1) == b"", "the child still holds its end"
    with contextlib.suppress(ChildProcessError):  # where it was quick to die
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_calls_run_concurrently(tmp_path: Path) -> None:
    """Each waits for the other's word."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        os.mkfifo(path)
    held = [os.open(path, os.O_RDWR) for path in (first, second)]

    def swap(give: Path, take: Path) -> bytes:
        os.write(os.open(give, os.O_RDWR), give.name.encode())
        return os.read(os.open(take, os.O_RDWR), 10)

    attempts = [ForkedCall(lambda: swap(second, first)), ForkedCall(lambda: swap(first, second))]
    assert [attempt.result(soon()) for attempt in attempts] == [b"first", b"second"]
    for descriptor in held:
        os.close(descriptor)


def test_a_call_cannot_write_to_the_standard_streams(capfd: pytest.CaptureFixture[str]) -> None:
    def speak() -> bytes:
        for stream in (1, 2):
            os.write(stream, b"talk")
        return os.read(0, 10)

    assert ForkedCall(speak).result(soon()) == b""
    assert capfd.readouterr() == ("", "")


def test_a_hanging_grandchild_delays_nothing(fifo: Path) -> None:
    """It holds the answer's pipe open: in the kernel, perhaps, where no signal reaches it."""

    def work() -> bytes:
        if os.fork() == 0:
            fifo.read_bytes()
            os._exit(0)
        return b"answer"

    assert ForkedCall(work).result(time.monotonic() + 60) == b"answer"
    fifo.write_bytes(b"")


def test_a_child_that_hangs_does_not_hold_its_parents_locks(tmp_path: Path, fifo: Path) -> None:
    lock = str(tmp_path / "lock")
    with files.locked(lock, 0):
        attempt = ForkedCall(fifo.read_bytes)
    try:
        with files.locked(lock, 20):
            pass
    finally:
        fifo.write_bytes(b"it hung all the time")
    assert attempt.result(soon()) == b"it hung all the time"
