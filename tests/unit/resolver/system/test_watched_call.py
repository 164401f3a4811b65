from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ManifestError
from publisher.resolver.errors import DeadlineError, FetchError, KilledError, ReadError
from publisher.resolver.system import watched_call
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.system.watched_call import WatchedCall, start_read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def soon() -> float:
    return time.monotonic() + 60


def process() -> bytes:
    return b"%d" % os.getpid()


def reader() -> bytes:
    """The process that makes a read for this one."""
    return start_read(process, "process").result(soon())


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, a child is young for the whole test."""
    monkeypatch.setattr(watched_call, "_YOUTH", 600.0)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Who opens it for reading waits for who writes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Let this process make its reads itself; return the end of the pipe at which its parent would be told of them."""
    reports, pipe = os.pipe()
    monkeypatch.setattr(watched_call._READS, "process", os.getpid())
    monkeypatch.setattr(watched_call._READS, "pipe", pipe)
    monkeypatch.setattr(watched_call._READS, "until", soon())
    yield reports
    os.close(reports)
    os.close(pipe)


def test_a_watched_child_makes_its_reads_itself_and_its_children_do_not() -> None:
    def work() -> bytes:
        assert reader() == process()
        maker, child = ForkedCall(lambda: reader() + b" " + process()).result(soon()).split()
        assert len({maker, child, process()}) == 3
        return b"done"

    assert WatchedCall(work).result(soon()) == b"done"
    assert reader() != process(), "nobody watches this process"


@pytest.mark.usefixtures("watched")
def test_a_child_that_has_worked_for_long_makes_no_reads_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader() == process()
    monkeypatch.setattr(watched_call._READS, "until", time.monotonic())
    assert reader() != process()


def test_the_parent_is_told_what_is_read_and_until_when(watched: int) -> None:
    until = soon()
    assert start_read(lambda: os.read(watched, 100), "/cvmfs/x\ny").result(until).endswith(b" /cvmfs/x y\n")
    assert os.read(watched, 100) == b"\n"
    with pytest.raises(ZeroDivisionError):
        start_read(lambda: bytes([1 // 0]), "a bug").result(until)
    assert os.read(watched, 100).endswith(b" a bug\n\n")


@pytest.mark.usefixtures("watched")
def test_a_failure_of_its_own_read_is_that_of_a_child() -> None:
    def broken() -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/cvmfs/x")

    def absent() -> bytes:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/cvmfs/x")

    def refused() -> bytes:
        raise ManifestError("no manifest", hint="look elsewhere")

    for work, kind in ((broken, ReadError), (absent, FetchError), (refused, FetchError)):
        errors = []
        for call in (start_read(work, "it"), ForkedCall(work)):
            with pytest.raises(FetchError) as failure:
                call.result(soon())
            errors.append((type(failure.value), str(failure.value)))
        assert errors[0] == errors[1]
        assert errors[0][0] is kind


def test_a_child_whose_read_hangs_is_replaced_and_reads_that_no_more(fifo: Path) -> None:
    def work() -> bytes:
        try:
            return start_read(fifo.read_bytes, "the fifo").result(time.monotonic() + 0.01)
        except DeadlineError as error:
            assert reader() != process(), "after one hang each read has a process of its own"
            return str(error).encode()

    assert WatchedCall(work).result(soon()) == b"no answer in time"


def test_a_read_has_all_of_its_time_whatever_was_read_before(watched: int) -> None:
    first, second = (start_read(process, name) for name in ("first", "second"))
    until = time.monotonic() + 10
    reported = []
    for read in (first, second):
        read.result(until)
        reported.append(float(os.read(watched, 100).split()[0]))
    assert reported[0] < reported[1]


def test_a_call_ends_at_its_own_deadline_if_that_is_the_earlier_one(fifo: Path) -> None:
    call = WatchedCall(lambda: start_read(fifo.read_bytes, "the fifo").result(soon()))
    with pytest.raises(DeadlineError, match="no answer in time"):
        call.result(time.monotonic() + 0.01)


def test_work_that_is_slow_but_no_read_is_not_started_again(tmp_path: Path, fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_call, "_PATIENCE", 0.0)
    log = tmp_path / "log"

    def work() -> bytes:
        with log.open("a") as file:
            file.write("started\n")
        for number in range(3):
            start_read(process, f"read {number}").result(time.monotonic())
        return fifo.read_bytes()

    call = WatchedCall(work)
    writer = ForkedCall(lambda: b"%d" % fifo.write_bytes(b"slow"))
    assert call.result(soon()) == b"slow"
    assert writer.result(soon()) == b"4"
    assert log.read_text() == "started\n"


def test_a_watched_child_that_somebody_killed_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    for patience in (0.0, 60.0):
        monkeypatch.setattr(watched_call, "_PATIENCE", patience)
        with pytest.raises(KilledError, match="killed by SIGKILL"):
            WatchedCall(work).result(soon())


def test_a_watched_child_is_killed_on_request(fifo: Path) -> None:
    call = WatchedCall(fifo.read_bytes)
    call.kill()
    with pytest.raises(KilledError, match="killed by SIGKILL"):
        call.result(soon())
