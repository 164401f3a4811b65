"""A publisher of a CVMFS repository that is killed (SIGKILL) before each of its changes to the file system, and at random."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from tests.support.machine import child_process

if TYPE_CHECKING:
    from tests.support.cvmfs.real import RealCvmfs
    from tests.support.cvmfs.stand_in import FakeCvmfs

    Cvmfs = FakeCvmfs | RealCvmfs

pytestmark = pytest.mark.system

INDEX = ".publisher/index.json"
KILLS, RANDOM_KILLS = 10, 8


def image(revision: int) -> str:
    return f".images/0a/{revision}"


def publish(cvmfs: Cvmfs, revision: int, *, clone: bool) -> None:
    """A new image, unpacked or cloned from the last one, the link to it, the index that names it, and the last one away."""
    repository = cvmfs.repository()
    with repository.transaction() as transaction:
        if not repository.exists(image(revision)):
            tree = transaction.clone(image(revision - 1), image(revision)) if clone else None
            if tree is None:
                tree = transaction.tree(image(revision))
                (tree / "bin").mkdir(parents=True)
            (tree / "bin/sh").write_text(str(revision))
        transaction.link("htc/rocky:9", f"../{image(revision)}")
        transaction.write(INDEX, json.dumps(revision).encode())
        transaction.remove(image(revision - 2))


def seen(cvmfs: Cvmfs) -> int:
    """The revision that a reader finds; it is whole, in the published mount and in the revision that clients get."""
    reader = cvmfs.repository()
    revision = int(reader.read(INDEX) or b"0")
    assert reader.read("htc/rocky:9/bin/sh") == str(revision).encode()
    assert reader.links() == {"htc/rocky:9": f"../{image(revision)}"}
    assert not reader.exists(image(revision + 1))
    assert reader.exists(image(revision - 1)) == (revision > 1)
    assert not reader.exists(image(revision - 2))
    return revision


def settled(cvmfs: Cvmfs) -> None:
    """Nothing is open, nothing is claimed, and nothing is left in the repository that does not belong there."""
    assert not cvmfs.flag.exists()
    assert cvmfs.claimed() == []
    assert sorted(path.name for path in (cvmfs.spool / "rdonly").iterdir()) == [".images", ".publisher", "htc"]


@pytest.mark.parametrize("clone", [False, True])
def test_a_kill_before_any_change_costs_only_a_rerun(cvmfs: Cvmfs, clone: bool) -> None:
    """One repository for all points: what one kill leaves is there for the next."""
    for revision in (1, 2):
        publish(cvmfs, revision, clone=False)
    points = child_process.count_changes(lambda: publish(cvmfs, 3, clone=clone))  # the first that removes one
    assert points > 20
    revision, outcomes = 3, []
    for point in child_process.sample(points, KILLS):
        assert child_process.killed(point, lambda: publish(cvmfs, revision + 1, clone=clone))  # noqa: B023 - called in this round
        done = cvmfs.repository().recover()
        assert cvmfs.repository().recover() == []
        found = seen(cvmfs)
        assert found in (revision, revision + 1)
        assert len(done) == (1 if done else 0)
        outcomes.append(found == revision + 1)
        publish(cvmfs, revision + 1, clone=clone)
        revision += 1
        assert seen(cvmfs) == revision
        settled(cvmfs)
    assert set(outcomes) == {False, True}, "before and after the publish"


def test_a_rerun_needs_not_be_told_to_recover(cvmfs: Cvmfs) -> None:
    publish(cvmfs, 1, clone=False)
    revision = 1
    for point in itertools.count(0, 5):
        if not child_process.killed(point, lambda: publish(cvmfs, revision + 1, clone=True)):  # noqa: B023 - called in this round
            break
        publish(cvmfs, revision + 1, clone=True)
        revision += 1
        assert seen(cvmfs) == revision
        settled(cvmfs)
    assert revision > 5


def test_a_killed_recovery_is_recovered_from(cvmfs: Cvmfs) -> None:
    publish(cvmfs, 1, clone=False)
    for point in itertools.count():
        cvmfs.fault("publish", "fail 1 Synchronization failed")
        cvmfs.fault("abort", "kill")
        with pytest.raises(RepositoryError):
            publish(cvmfs, 2, clone=True)
        assert cvmfs.flag.exists()
        killed = child_process.killed(point, lambda: cvmfs.repository().recover())
        cvmfs.repository().recover()
        assert seen(cvmfs) == 1
        settled(cvmfs)
        if not killed:
            assert point > 2
            return


def test_kills_at_random_moments_cost_only_a_rerun(cvmfs: Cvmfs) -> None:
    dice = random.Random(5)
    publish(cvmfs, 1, clone=False)
    revision = 1
    for _ in range(RANDOM_KILLS):
        clone = dice.random() < 0.5
        child = child_process.start(lambda: publish(cvmfs, revision + 1, clone=clone))  # noqa: B023 - called in this round
        time.sleep(dice.random() * 0.3)
        os.kill(child, 9)
        child_process.end(child)
        cvmfs.repository().recover()
        assert seen(cvmfs) in (revision, revision + 1)
        publish(cvmfs, revision + 1, clone=clone)
        revision += 1
        assert seen(cvmfs) == revision
        settled(cvmfs)


@pytest.mark.parametrize("clone", [False, True])
@pytest.mark.parametrize(
    ("command", "fault"),
    [("publish", "kill"), ("publish", "killed-late"), ("abort", "kill"), ("publish", "fail-late"), ("transaction", "fail 1 no")],
)
def test_a_tool_that_dies_costs_only_a_rerun(cvmfs: Cvmfs, command: str, fault: str, clone: bool) -> None:
    publish(cvmfs, 1, clone=False)
    cvmfs.fault(command, fault)
    if command == "abort":
        cvmfs.fault("publish", "fail 1 no")
    try:
        publish(cvmfs, 2, clone=clone)
    except RepositoryError:
        assert seen(cvmfs) == 1
    cvmfs.repository().recover()
    publish(cvmfs, 2, clone=clone)
    assert seen(cvmfs) == 2
    settled(cvmfs)


def test_two_publishers_at_once_are_one_and_one_that_says_so(cvmfs: Cvmfs) -> None:
    publish(cvmfs, 1, clone=False)
    started, go_on = os.pipe(), os.pipe()

    def publish_slowly() -> None:
        with cvmfs.repository().transaction() as transaction:
            transaction.write(INDEX, b"1")
            transaction.write("slow", b"")
            os.write(started[1], b".")
            os.read(go_on[0], 1)

    child = child_process.start(publish_slowly)
    os.read(started[0], 1)
    try:
        with pytest.raises(RepositoryError, match=f"another transaction is open in {cvmfs.fqrn}, by process {child}") as error:
            publish(cvmfs, 2, clone=True)
        assert "not touched" in (error.value.hint or "")
        assert cvmfs.repository().recover() == []
        assert seen(cvmfs) == 1
    finally:
        os.write(go_on[1], b".")
    assert child_process.end(child) == 0
    assert cvmfs.repository().read("slow") == b""
    for descriptor in (*started, *go_on):
        os.close(descriptor)
