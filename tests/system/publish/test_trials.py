"""The test run of a finished image: what it may do, and what ends it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from publisher.build.local import LocalBuilder
from publisher.build.squash.find import find_squasher
from publisher.build.testrun import TestRunner
from publisher.errors import TestRunError
from tests.support.images.built_layers import request
from tests.support.images.layers import file, symlink, tar
from tests.support.images.runnable import runnable
from tests.support.images.tar_stream import NOW
from tests.support.machine import child_process
from tests.support.publisher.local_builder import ACCOUNT, build, refused

pytestmark = pytest.mark.system


def test_an_image_that_does_not_start_is_refused(tmp_path: Path) -> None:
    entries = [entry for entry in runnable() if entry.name != "bin/dash"]
    broken = tar([*entries, file("bin/dash", b"no program", mode=0o755)])
    refused(request([broken], tmp_path / "blobs"), tmp_path, TestRunError, "test run of the finished SIF failed")


def script(text: str) -> list[bytes]:
    """Return an image with a script in place of its shell, which the test run starts."""
    return [tar([*runnable(), symlink("bin/true-sh", "dash"), file("bin/sh", b"#!/bin/dash\n" + text.encode(), mode=0o755)])]


def running(marker: bytes) -> list[int]:
    """Processes that have the marker as a word of their command lines (proc(5))."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if marker in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def test_an_image_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    marker = f"3{os.getpid()}"
    asked = request(script(f"sleep {marker} & sleep {marker}"), tmp_path / "blobs")
    (tmp_path / "scratch").mkdir()
    tester = TestRunner(ACCOUNT, tmp_path / "scratch", deadline=3)
    with pytest.raises(TestRunError, match="did not end within 3 s"):
        LocalBuilder(tmp_path / "builds", find_squasher(), tester, now=lambda: NOW).build(asked, lambda *_: None)
    assert list((tmp_path / "builds").iterdir()) == []
    assert running(marker.encode()) == []


def test_what_a_killed_publisher_was_testing_dies_with_it(tmp_path: Path) -> None:
    marker = f"4{os.getpid()}".encode()
    asked = request(script(f"sleep {marker.decode()} & sleep {marker.decode()}"), tmp_path / "blobs")
    child = child_process.start(lambda: build(asked, tmp_path))
    with contextlib.ExitStack() as stack:
        stack.callback(child_process.end, child)
        stack.callback(os.kill, child, signal.SIGKILL)
        until = time.monotonic() + 60
        while len(found := running(marker)) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        watched = [os.pidfd_open(process) for process in found]
    for descriptor in watched:
        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)
    assert running(marker) == []


@pytest.mark.parametrize(
    "attempt",
    [
        "cat {secret}",
        "cat {home}/.netrc",
        "find / -xdev -name netrc-of-the-publisher | cat | while read found; do exit 0; done; exit 1",
        'case "$(env)" in *hunter2*) exit 0;; *) exit 1;; esac',
        "while read line; do case $line in *eth*|*enp*|*ens*|*veth*) exit 0;; esac; done < /proc/net/dev; exit 1",
        "echo planted > {shared}/planted",
    ],
    ids=["a file by its path", "a file in our home", "a file by its name", "our environment", "our network", "writing"],
)
def test_an_image_under_test_reaches_nothing_of_the_host(
    attempt: str, shared_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image's shell succeeds only if the attempt does."""
    (shared_path / "keys").mkdir()
    secret = shared_path / "keys" / "netrc-of-the-publisher"
    secret.write_text("hunter2")
    (shared_path / ".netrc").write_text("hunter2")
    shared_path.chmod(0o777)
    monkeypatch.setenv("HOME", str(shared_path))
    monkeypatch.setenv("REGISTRY_PASSWORD", "hunter2")
    monkeypatch.setenv("APPTAINERENV_LEAKED", "hunter2")
    monkeypatch.chdir(shared_path)
    asked = request(script(attempt.format(secret=secret, home=shared_path, shared=shared_path)), shared_path / "blobs")
    refused(asked, shared_path, TestRunError, "failed")
    assert not (shared_path / "planted").exists()


def test_an_image_under_test_has_no_network(shared_path: Path) -> None:
    """A listener on this host's loopback is reached without Apptainer, and not from an image under test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        call = f"exec 3<>/dev/tcp/127.0.0.1/{listener.getsockname()[1]}"
        subprocess.run(["bash", "-c", call], check=True)
        listener.accept()[0].close()
        listener.settimeout(0)
        silent, calling = (
            [tar([*runnable("/bin/bash"), file("bin/sh", f"#!/bin/bash\n{does}\n".encode(), mode=0o755)])] for does in (":", call)
        )
        assert build(request(silent, shared_path / "silent"), shared_path).test == "ran"
        with pytest.raises(TestRunError, match=r"Network is unreachable|Connection refused"):
            build(request(calling, shared_path / "calling"), shared_path)
        with pytest.raises(BlockingIOError):
            listener.accept()
