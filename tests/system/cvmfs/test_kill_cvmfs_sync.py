"""Whole runs into a CVMFS repository that are killed (SIGKILL) at each step of their publishing, and at random."""

from __future__ import annotations

import os
import random
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import child_process

if TYPE_CHECKING:
    from tests.support.cvmfs.host import CvmfsHost

pytestmark = pytest.mark.system

NAME = "kill/one"
RANDOM_KILLS = 3


class Moment(ABC):
    """A moment of a run, known by the audit event that it is the last before."""

    @abstractmethod
    def __call__(self, event: str, arguments: tuple[object, ...]) -> bool:
        """Whether this is it."""


class Change(Moment):
    """The moment before the first change of this kind to a path with such an ending: the last path that it is given."""

    def __init__(self, event: str, ending: str) -> None:
        self._event, self._ending = event, ending

    def __call__(self, event: str, arguments: tuple[object, ...]) -> bool:
        paths = [os.fsdecode(argument) for argument in arguments if isinstance(argument, str | bytes | os.PathLike)]
        return event == self._event and bool(paths) and paths[-1].endswith(self._ending)


class Start(Moment):
    """The moment before ``cvmfs_server`` is started with this command."""

    def __init__(self, command: str) -> None:
        self._command = repr(command)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> bool:
        return event == "subprocess.Popen" and self._command in str(arguments[1])


STEPS: tuple[tuple[str, Moment, bool], ...] = (
    # (what was not yet done, the moment, whether readers see the new build already)
    ("a transaction claimed", Change("os.rename", "image-publisher/claim"), False),
    ("a transaction opened", Start("transaction"), False),
    ("the clone changed", Change("os.rename", "motd"), False),
    ("what is staged put in place", Change("os.rename", ".publisher/index.json"), False),
    ("the publish started", Start("publish"), False),
    ("the claim given up", Change("os.remove", "image-publisher/claim"), True),
    ("the shard in the origin", Change("os.link", ".json"), True),
    ("the index in the origin", Change("os.rename", "manifest/index.json"), True),
)
ORPHANS = (
    # (the tool's command, what becomes of the publisher meanwhile): the tool goes on to its end
    ("transaction", "orphan", False),
    ("transaction", "orphan-late", False),
    ("publish", "orphan", True),
    ("publish", "orphan-late", True),
)


def shown(there: CvmfsHost) -> str:
    return (there.host.repository / f"{NAME}:1/etc/motd").read_text()


def completed(there: CvmfsHost, version: int) -> None:
    """The next run makes up for all that a kill has left, and leaves nothing of it."""
    there.sound()
    assert there.sync().exit_code == 0
    assert there.sound() == 2 * (version + 1)
    assert shown(there) == f"{NAME} {version}"
    assert not there.cvmfs.flag.exists()
    assert there.cvmfs.claimed() == []
    assert there.host.leftovers() == []


def run(there: CvmfsHost) -> None:
    assert there.sync().exit_code == 0


@pytest.fixture
def published(there: CvmfsHost) -> CvmfsHost:
    """A host with a first version published; the next ones are clones."""
    there.host.images(f"{NAME}:1")
    there.push(NAME, 0)
    run(there)
    return there


@pytest.mark.timeout(600)
def test_a_kill_before_any_step_of_publishing_costs_only_a_rerun(published: CvmfsHost) -> None:
    """One host for all: what one kill leaves is there for the next."""
    for version, (missing, moment, visible) in enumerate(STEPS, 1):
        published.push(NAME, version)
        assert child_process.killed_when(moment, lambda: run(published)), f"there was no moment without {missing}"
        published.cvmfs.repository().recover()
        assert shown(published) == f"{NAME} {version - (not visible)}", f"without {missing}"
        completed(published, version)


def test_a_kill_while_the_transaction_is_open_early_costs_only_a_rerun(there: CvmfsHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is unpacked while the SIF is checked and stored."""
    there.host.images(f"{NAME}:1")
    there.push(NAME, 0)
    with monkeypatch.context() as patched:
        there.before_storing(patched, lambda: None)
        assert child_process.killed_when(Change("os.link", ".sif"), lambda: run(there))
    assert there.cvmfs.flag.exists()
    completed(there, 0)


@pytest.mark.timeout(600)
def test_a_kill_while_the_tool_works_costs_only_a_rerun(published: CvmfsHost) -> None:
    for version, (command, fault, visible) in enumerate(ORPHANS, 1):
        published.push(NAME, version)

        def be_orphaned(command: str = command, fault: str = fault) -> None:
            published.cvmfs.fault(command, f"{fault} {os.getpid()}")
            published.sync()

        assert child_process.end(child_process.start(be_orphaned)) == -9
        published.cvmfs.repository().recover()
        assert shown(published) == f"{NAME} {version - (not visible)}", f"{command}, {fault}"
        completed(published, version)


@pytest.mark.timeout(600)
def test_a_kill_at_random_costs_only_a_rerun(published: CvmfsHost) -> None:
    dice = random.Random(7)
    for version in range(1, RANDOM_KILLS + 1):
        published.push(NAME, version)
        child = child_process.start(lambda: run(published))
        time.sleep(dice.random() * 1.5)
        os.kill(child, 9)
        child_process.end(child)
        completed(published, version)
