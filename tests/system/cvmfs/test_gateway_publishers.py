"""Publishers on two hosts with one repository behind a gateway, one origin, one key and one list, at work at the same time."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING

import pytest

from publisher.errors import ANOTHER_RUN, AnotherRunError
from tests.support.cvmfs.gateway import FakeGateway
from tests.support.cvmfs.host import CvmfsHost
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

ROUNDS = 50 if "OSPOOL_EVERY_POINT" in os.environ else 3
NAMES = ("kill/one", "kill/two")


@pytest.fixture
def pair(shared_path: Path, registry: RegistryServer) -> Iterator[tuple[CvmfsHost, CvmfsHost]]:
    gateway = FakeGateway(shared_path)
    one, other = (CvmfsHost(shared_path / host.root.name, registry, host) for host in gateway.hosts)
    other.host.origin, other.host.key, other.host.list = one.host.origin, one.host.key, one.host.list
    yield one, other
    gateway.close()


def test_a_run_that_another_host_has_overtaken_changes_nothing(pair: tuple[CvmfsHost, CvmfsHost]) -> None:
    one, other = pair
    one.push(NAMES[0], 1)
    one.host.images(f"{NAMES[0]}:1")
    late = one.publication()
    snapshot, _ = late.open()
    assert other.sync().exit_code == 0
    with pytest.raises(AnotherRunError, match="another run has published"):
        late.change(snapshot, {})
    assert {outcome.result.value for outcome in one.sync().outcomes.values()} == {"unchanged"}
    assert one.problems() == other.problems() == []


def test_a_busy_lease_ends_a_run_with_what_to_do_and_keeps_its_build(pair: tuple[CvmfsHost, CvmfsHost]) -> None:
    one, other = pair
    one.push(NAMES[0], 1)
    one.host.images(f"{NAMES[0]}:1")
    with one.publication().repository.exclusively():
        report = other.sync()
    assert report.exit_code == ANOTHER_RUN
    assert "another publisher host has the gateway's lease" in str(report.stopped)
    assert other.sync().exit_code == 0
    assert one.problems() == []


def work(there: CvmfsHost) -> None:
    """Run a sync in a child: it publishes, or finds the other host at work."""
    with contextlib.suppress(AnotherRunError):
        there.sync()


@pytest.mark.timeout(3600)
def test_kills_of_two_hosts_at_work_leave_one_sound_manifest(pair: tuple[CvmfsHost, CvmfsHost]) -> None:
    dice = random.Random(19)
    for name in NAMES:
        pair[0].push(name, 0)
    pair[0].host.images(*(f"{name}:1" for name in NAMES))
    changes = child_process.count_changes(lambda: work(pair[0]))
    for number in range(1, ROUNDS + 1):
        pair[0].push(dice.choice(NAMES), number)
        killed, beside = dice.sample(pair, 2)
        going_on = child_process.start(lambda beside=beside: work(beside))  # type: ignore[misc]  # bound per round
        child_process.killed(dice.randrange(changes), lambda killed=killed: work(killed))  # type: ignore[misc]
        assert child_process.end(going_on) == 0
        beside.sound()
    for there in pair:
        assert there.sync().exit_code == 0
    assert pair[0].problems() == pair[1].problems() == []
    for there in pair:
        assert {outcome.result.value for outcome in there.sync().outcomes.values()} == {"unchanged"}
        assert there.cvmfs.claimed() == []
        for name in NAMES:
            versions = [version.digest for _, version in there.host.record(f"{name}:1").versions()]
            assert len(versions) == len(set(versions))
