"""Two publishers of one repository, each with its own state directory: one is at work, the other stands by."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING

import pytest

from publisher.errors import ANOTHER_RUN, AnotherRunError
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.machine import child_process
from tests.support.publisher.host import Host
from tests.support.registries.registry import push_image
from tests.system.publish.test_kill_sync import everything_named_is_there, sync_in_a_child

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

ROUNDS = 50 if "OSPOOL_EVERY_POINT" in os.environ else 3
NAMES = ("two/first:1", "two/second:1")


@pytest.fixture
def pair(shared_path: Path, registry: RegistryServer) -> tuple[Host, Host]:
    """Two publishers with one repository, origin, key and list."""
    hosts = []
    for name in ("one", "other"):
        (shared_path / name).mkdir()
        hosts.append(Host(shared_path / name, registry))
    one, other = hosts
    other.repository, other.origin, other.key, other.list = one.repository, one.origin, one.key, one.list
    return one, other


def push(registry: RegistryServer, name: str, version: int) -> None:
    layers = [tar(runnable()), tar([directory("etc"), file("etc/motd", f"{name} {version}".encode())])]
    push_image(registry.address, name.partition(":")[0], "1", layers)


def work(host: Host) -> None:
    """Run a sync in a child: it publishes, or finds the other one at work."""
    with contextlib.suppress(SystemExit, AnotherRunError):
        sync_in_a_child(host)


def test_the_one_that_stands_by_says_so_and_takes_over(pair: tuple[Host, Host], registry: RegistryServer) -> None:
    one, other = pair
    push(registry, NAMES[0], 1)
    one.images(NAMES[0])
    with DirectoryRepository(one.repository).hold():
        refused = other.sync(check=False)
        assert refused.status == ANOTHER_RUN
        assert "another publisher is at work in" in refused.stderr
        assert other.run("block", NAMES[0], "--reason", "x").returncode == ANOTHER_RUN
    assert one.sync().results == {NAMES[0]: "published"}
    push(registry, NAMES[0], 2)
    assert other.sync().results == {NAMES[0]: "published"}
    assert one.sync().results == {NAMES[0]: "unchanged"}
    assert other.run("verify").returncode == 0


@pytest.mark.timeout(3600)
def test_kills_of_two_publishers_at_work_leave_one_sound_manifest(pair: tuple[Host, Host], registry: RegistryServer) -> None:
    dice = random.Random(19)
    for name in NAMES:
        push(registry, name, 0)
    pair[0].images(*NAMES)
    changes = child_process.count_changes(lambda: work(pair[0]))
    for number in range(1, ROUNDS + 1):
        push(registry, dice.choice(NAMES), number)
        killed, standby = dice.sample(pair, 2)
        waiting = child_process.start(lambda standby=standby: work(standby))  # type: ignore[misc]  # bound per round
        child_process.killed(dice.randrange(changes), lambda killed=killed: work(killed))  # type: ignore[misc]
        child_process.end(waiting)
        everything_named_is_there(pair[0])
    assert set(pair[0].sync().results) == set(pair[1].sync().results) == set(NAMES)
    verified = pair[1].run("verify")
    assert (verified.returncode, verified.stderr) == (0, "publisher: 0 problem(s)\n")
    for name in NAMES:
        assert (pair[0].repository / name / ".singularity.d/runscript").is_file()
