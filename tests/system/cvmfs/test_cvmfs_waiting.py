"""A publish that waits says for what, for how long, and what an operator can look at."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.server import CvmfsTimeouts
from tests.support.cvmfs.contract_changes import announce
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cvmfs.stand_in import FakeCvmfs

pytestmark = pytest.mark.system

INDEX = ".publisher/index.json"


@contextlib.contextmanager
def running(*argv: str | Path, **more: object) -> Iterator[int]:
    """Run a program that says when it is ready and ends when its standard input does; yield its process id."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more) as process:  # type: ignore[call-overload]
        assert process.stdout.read(1)
        try:
            yield process.pid
        finally:
            process.kill()


def warned(caplog: pytest.LogCaptureFixture, command: str) -> str:
    """Return the first warning about a command that is still running."""
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return next(line for line in lines if f"cvmfs_server {command} has been running for" in line)


def open_and_be_killed(fake: FakeCvmfs) -> None:
    with fake.repository().transaction() as transaction:
        transaction.write(INDEX, b"1")
        os.kill(os.getpid(), 9)


def wait_in_vain(fake: FakeCvmfs) -> None:
    """Publish with a tool that does not end."""
    fake.fault("publish", "hang")
    with pytest.raises(RepositoryError, match="did not end"):
        announce(fake.repository(timeouts=CvmfsTimeouts(publish=2, report=0.1), timeout=1), b"2")


def test_a_mount_in_a_namespace_of_its_own_is_named_while_a_publish_waits(
    fake: FakeCvmfs, caplog: pytest.LogCaptureFixture
) -> None:
    announce(fake.repository())
    with running("unshare", "--mount", "sh", "-c", "echo ready; read x") as process:
        wait_in_vain(fake)
    said = warned(caplog, "publish")
    assert f"process {process} (sh), which has a mount of the repository in a mount namespace of its own" in said


def test_a_reader_is_named_while_a_publish_waits(fake: FakeCvmfs, caplog: pytest.LogCaptureFixture) -> None:
    announce(fake.repository())
    index = fake.spool / "rdonly" / INDEX
    with running("sh", "-c", f"exec 3<{index}; echo ready; read x") as process:
        wait_in_vain(fake)
    assert f"process {process} (sh), which uses {index}" in warned(caplog, "publish")
    assert f"process {process} (sh), which uses {index}" in warned(caplog, "abort"), "the abort waits for it as well"


def test_a_publish_that_only_takes_long_says_where_it_is(fake: FakeCvmfs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announce(fake.repository())
    wait_in_vain(fake)
    assert [line for line in caplog.messages if "cvmfs_server publish has been running for" in line]


@pytest.mark.parametrize("is_left_open", [False, True])
def test_a_client_that_has_not_come_up_is_not_taken_for_a_publish(fake: FakeCvmfs, tmp_path: Path, is_left_open: bool) -> None:
    """It has inherited the lock of the publish that started it; a transaction of ours cannot be aborted then either."""
    announce(fake.repository())
    if is_left_open:
        assert child_process.end(child_process.start(lambda: open_and_be_killed(fake))) == -9
    client = shutil.copy(shutil.which("bash") or "", tmp_path / "cvmfs2")
    with (fake.spool / "is_publishing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            running(client, "-c", "echo ready; read x", pass_fds=(lock.fileno(),)) as process,
            pytest.raises(RepositoryError) as error,
        ):
            announce(fake.repository(), b"2")
    assert f"process {process} (cvmfs2) holds {lock.name}: it is a client" in error.value.reason
    assert f"kill {process}" in (error.value.hint or "")
    (fake.spool / "is_publishing.lock").unlink()
    announce(fake.repository(), b"3")
    assert fake.repository().read(INDEX) == b"3"
