"""A push into a real docker-registry, whose own notifications reach ``publisher watch``, is published without a timer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract import files
from tests.support.images.printing_image import push
from tests.support.publisher.host import Host, environment
from tests.support.registries.registry import RegistryServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "a secret of the registry"
_DEADLINE = 120.0


def wait_for(state: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _DEADLINE
    while not state():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@pytest.fixture
def host(shared_path: Path) -> Iterator[Host]:
    """A publisher host whose registry notifies ``port`` of pushes, and the listener there, as its own process."""
    port = free_port()
    with RegistryServer(shared_path / "registry", notified=(f"http://127.0.0.1:{port}/events", f"Bearer {SECRET}")) as registry:
        made = Host(shared_path, registry)
        made.images("watch/one:1", "watch/other:1")
        (shared_path / "secrets").write_text(f"{SECRET}\n")
        flags = [f"--watch-listen=127.0.0.1:{port}", f"--watch-secrets={shared_path / 'secrets'}"]
        log = shared_path / "watch.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "publisher", "-vv", "watch", *flags, *made.flags()],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**environment(shared_path), "PYTHONUNBUFFERED": "1"},
                cwd=shared_path,
            )
        try:
            wait_for(lambda: b"listening at" in log.read_bytes(), "it does not listen")
            yield made
        finally:
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(_DEADLINE) == 130, log.read_text()
        assert "Traceback" not in log.read_text()


def published(host: Host, name: str) -> bool:
    return (host.repository / name).exists()


def test_a_push_is_published_at_once_and_one_during_another_run_after_it(host: Host) -> None:
    push(host.registry, "watch/unlisted:1")
    push(host.registry, "watch/one:1")
    wait_for(lambda: published(host, "watch/one:1"), "the push is not published")
    log = host.where / "watch.log"
    assert f"{host.registry.address}/watch/unlisted:1 was pushed, but it is not in the list" in log.read_text()
    with files.locked(str(host.state / "lock"), deadline=_DEADLINE):
        push(host.registry, "watch/other:1")
        wait_for(lambda: "ended with status 5" in log.read_text(), "no sync has met the lock")
    wait_for(lambda: published(host, "watch/other:1"), "the push during another run is lost")
