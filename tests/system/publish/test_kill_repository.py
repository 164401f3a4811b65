"""A directory repository whose publisher is killed (SIGKILL) before each of its changes to the file system."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.system import durable
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.images.trees import private_umask, snapshot
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OLD, GONE, FIRST, SECOND = ".images/0a/old", ".images/0b/gone", ".images/0c/first", ".images/0a/second"
INDEX = ".publisher/index.json"
LINKS = {
    "htc/rocky:9": f"../{FIRST}",
    "htc/debian:12": f"../{SECOND}",
    ".arch/arm64/htc/debian:12": f"../../../{SECOND}",
}


@contextlib.contextmanager
def unsynchronised(_directory: Path) -> Iterator[Callable[[], None]]:
    """Skip syncing: a kill, unlike a power cut, loses nothing that was written, and hundreds of runs are quick without it."""
    yield lambda: None


def opened(root: Path) -> DirectoryRepository:
    return DirectoryRepository(root, durable=unsynchronised)


def make(tree: Path) -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/sh").write_bytes(b"#!")
    (tree / "bin/sh").chmod(0o755)
    (tree / "bin").chmod(0o555)
    tree.chmod(0o555)


def publish_before(root: Path) -> None:
    with opened(root).transaction() as transaction:
        for tree, link in ((OLD, "htc/rocky:9"), (GONE, "htc/gone:1")):
            make(transaction.tree(tree))
            transaction.link(link, f"../{tree}")
        transaction.write(".publisher/shards/1.json", b"{}")
        transaction.write(INDEX, json.dumps([".publisher/shards/1.json", f"{OLD}/bin/sh", f"{GONE}/bin/sh"]).encode())


def publish(root: Path) -> None:
    """Publish new trees, links made, replaced and removed, a new manifest, and a removed tree; can be repeated."""
    repository = opened(root)
    with repository.transaction() as transaction:
        transaction.write(
            INDEX, json.dumps([".publisher/shards/2.json", *(f"{tree}/bin/sh" for tree in (FIRST, SECOND))]).encode()
        )
        transaction.write(".publisher/shards/2.json", b"{}")
        transaction.remove(GONE)
        transaction.remove("htc/gone:1")
        for link, target in LINKS.items():
            transaction.link(link, target)
        for tree in (FIRST, SECOND):
            if not repository.exists(tree):
                make(transaction.tree(tree))


def assert_sound(root: Path) -> None:
    """Assert what a reader needs: everything that is named is there, and is complete."""
    reader = opened(root)
    named = json.loads(reader.read(INDEX) or b"")
    assert [path for path in named if not reader.exists(path)] == []
    assert [link for link in reader.links() if reader.read(f"{link}/bin/sh") != b"#!"] == []
    assert "htc/rocky:9" in reader.links()


def staging(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".transaction").iterdir())


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the repository before and after an undisturbed transaction."""
    place = tmp_path_factory.mktemp("states")
    before, after = place / "before", place / "after"
    publish_before(before)
    copy(before, after)
    publish(after)
    assert_sound(after)
    assert snapshot(before) != snapshot(after)
    return before, after


def copy(state: Path, root: Path) -> Path:
    shutil.copytree(state, root, symlinks=True)
    return root


def killed_everywhere(place: Path, state: Path, work: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a copy of the state for each point that ``work`` can be killed at, after the kill and a look by a reader."""
    for point in itertools.count():
        root = copy(state, place / str(point))
        if not child_process.killed(point, partial(work, root)):
            assert point > 10
            return
        assert_sound(root)
        yield root
        durable.delete(root)  # directories without write permission too


def interrupted(place: Path, state: Path, *, committed: bool) -> Path:
    """Return what a kill right before, or right after, the commit point leaves."""
    for root in killed_everywhere(place, state, publish):
        if (root / ".transaction/journal").exists():
            point = int(root.name) - (not committed)
            left = copy(state, place / "interrupted")
            assert child_process.killed(point, partial(publish, left))
            assert (left / ".transaction/journal").exists() == committed
            durable.delete(root)
            return left
    pytest.fail("never committed")


def test_a_killed_transaction_is_finished_or_discarded_and_a_rerun_completes_it(
    tmp_path: Path, states: tuple[Path, Path]
) -> None:
    """This runs as an ordinary user, because root may write into directories without write permission."""
    before, after = (snapshot(state) for state in states)
    outcomes = []

    def publish_as_a_user(root: Path) -> None:
        child_process.drop_privileges()
        publish(root)

    def recover(root: Path) -> None:
        opened(root).recover()
        assert opened(root).recover() == []

    for root in killed_everywhere(tmp_path, states[0], publish_as_a_user):
        child_process.unprivileged(partial(recover, root))
        assert staging(root) == ["lock"]
        assert snapshot(root) in (before, after)
        outcomes.append(snapshot(root) == after)
        child_process.unprivileged(partial(publish, root))
        assert snapshot(root) == after
    assert outcomes == sorted(outcomes)  # discarded up to the commit point, finished from there on
    assert set(outcomes) == {False, True}


def test_a_rerun_completes_a_killed_transaction_without_being_told_to_recover(tmp_path: Path, states: tuple[Path, Path]) -> None:
    for root in killed_everywhere(tmp_path, states[0], publish):
        publish(root)
        assert snapshot(root) == snapshot(states[1])
        assert staging(root) == ["lock"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_killed_recovery_is_recovered_from(tmp_path: Path, states: tuple[Path, Path], committed: bool) -> None:
    left = interrupted(tmp_path, states[0], committed=committed)
    for root in killed_everywhere(tmp_path, left, lambda root: opened(root).recover()):
        opened(root).recover()
        assert snapshot(root) == snapshot(states[committed])
        assert staging(root) == ["lock"]


def test_a_killed_first_transaction_leaves_a_repository_that_works(tmp_path: Path, states: tuple[Path, Path]) -> None:
    """Directories made in the transaction must be readable whatever the umask."""
    for point in itertools.count():
        root = tmp_path / str(point)
        with private_umask():
            if not child_process.killed(point, partial(publish_before, root)):
                break
            opened(root).recover()
            if not opened(root).exists(OLD):
                publish_before(root)
        assert snapshot(root) == snapshot(states[0])


def test_an_open_transaction_of_another_process_is_neither_joined_nor_swept(tmp_path: Path, states: tuple[Path, Path]) -> None:
    root = copy(states[0], tmp_path / "repository")
    started, go_on = os.pipe(), os.pipe()

    def publish_slowly() -> None:
        with opened(root).transaction() as transaction:
            make(transaction.tree(FIRST))
            os.write(started[1], b".")
            os.read(go_on[0], 1)
            transaction.link("htc/rocky:9", f"../{FIRST}")

    child = child_process.start(publish_slowly)
    os.read(started[0], 1)
    try:
        with pytest.raises(RepositoryError, match=f"open in {root}, by process {child}"), opened(root).transaction():
            pytest.fail("a second transaction was opened")
        assert opened(root).recover() == []
        assert snapshot(root) == snapshot(states[0])
    finally:
        os.write(go_on[1], b".")
    assert child_process.end(child) == 0
    assert opened(root).links()["htc/rocky:9"] == f"../{FIRST}"
    assert_sound(root)
    for descriptor in (*started, *go_on):
        os.close(descriptor)
