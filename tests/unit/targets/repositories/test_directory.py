"""The directory repository; the tests that every repository passes are in tests/contract."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.cvmfs.undeletable_tree import undeletable
from tests.support.images.trees import private_umask
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.targets.repositories.base import Transaction

TREE, INDEX = ".images/0a/rocky", ".publisher/index.json"

only_root_gives_away = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give files to somebody else")


@pytest.fixture
def repository(tmp_path: Path) -> DirectoryRepository:
    return DirectoryRepository(tmp_path / "repository")


def make(tree: Path) -> None:
    tree.mkdir()
    (tree / "sh").write_bytes(b"#!")


def change(transaction: Transaction) -> None:
    make(transaction.tree(TREE))
    transaction.link("htc/rocky:9", f"../{TREE}")
    transaction.write(INDEX, b"1")


def publish(repository: DirectoryRepository) -> None:
    with repository.transaction() as transaction:
        change(transaction)


def make_twice(transaction: Transaction) -> None:
    """Fails when a tree is staged."""
    tree = transaction.tree(".images/0a/other")
    make(tree)
    make(tree)


def staging(repository: DirectoryRepository) -> list[str]:
    return sorted(path.name for path in (repository.root / ".transaction").iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_first_transaction_makes_the_directory_and_looking_does_not(repository: DirectoryRepository) -> None:
    assert repository.recover() == []
    assert repository.links() == {}
    assert not repository.exists(TREE)
    assert not repository.root.exists()
    publish(repository)
    assert repository.exists(TREE)


def test_the_name_is_that_of_the_directory_unless_given(tmp_path: Path) -> None:
    assert DirectoryRepository(tmp_path / "a/../images.example.org/").name == "images.example.org"
    assert DirectoryRepository(tmp_path / "demo", "images.example.org").name == "images.example.org"


def test_everything_is_open_to_readers_whatever_the_umask(tmp_path: Path) -> None:
    repository = DirectoryRepository(tmp_path / "new/repository")
    with private_umask():
        publish(repository)
    directories = ("", ".images", ".images/0a", TREE, "htc", ".publisher")
    assert [oct(mode(repository.root / path)) for path in directories] == ["0o755"] * len(directories)
    assert oct(mode(repository.root / INDEX)) == "0o644"
    assert oct(mode(repository.root / ".transaction")) == "0o700"


def test_a_tree_keeps_its_mode_but_for_what_readers_need(repository: DirectoryRepository) -> None:
    """As an ordinary user, who cannot rename a directory without write permission."""

    def publish_three() -> None:
        with repository.transaction() as transaction:
            for given in (0o555, 0o1770, 0o500):
                tree = transaction.tree(f".images/0a/{given:o}")
                make(tree)
                tree.chmod(given)

    child_process.unprivileged(publish_three)
    assert {path.name: oct(mode(path)) for path in (repository.root / ".images/0a").iterdir()} == {
        "555": "0o555",
        "1770": "0o1775",
        "500": "0o555",
    }


def test_a_tree_without_write_permission_is_removed_by_an_ordinary_user(repository: DirectoryRepository) -> None:
    publish(repository)
    (repository.root / TREE).chmod(0o555)

    def remove() -> None:
        with repository.transaction() as transaction:
            transaction.remove(TREE)

    child_process.unprivileged(remove)
    assert not repository.exists(TREE)
    assert staging(repository) == ["lock"]


def test_nothing_stays_behind_of_a_transaction_however_it_ends(repository: DirectoryRepository) -> None:
    publish(repository)
    assert staging(repository) == ["lock"]
    with pytest.raises(FileExistsError), repository.transaction() as transaction:
        make_twice(transaction)
    assert staging(repository) == ["lock"]
    with repository.transaction() as transaction:
        transaction.remove(TREE)
    assert staging(repository) == ["lock"]
    assert sorted(path.name for path in repository.root.iterdir()) == [".publisher", ".transaction", "htc"]


@pytest.mark.parametrize("path", [".transaction", ".transaction/journal", ".transaction/stage.1/x"])
def test_the_staging_area_is_out_of_bounds(repository: DirectoryRepository, path: str) -> None:
    with repository.transaction() as transaction:
        for refused in (
            lambda: transaction.tree(path),
            lambda: transaction.link(path, "x"),
            lambda: transaction.link("htc/x:1", f"../{path}"),
            lambda: transaction.write(path, b""),
            lambda: transaction.remove(path),
        ):
            with pytest.raises(RepositoryError, match=r"\.transaction"):
                refused()
    for look in (repository.exists, repository.read):
        with pytest.raises(RepositoryError, match=r"\.transaction"):
            look(path)


def test_a_link_in_a_tree_does_not_lead_into_the_staging_area(repository: DirectoryRepository) -> None:
    with repository.transaction() as transaction:
        tree = transaction.tree(TREE)
        tree.mkdir()
        (tree / "spy").symlink_to("../../../.transaction/lock")
    assert not repository.exists(f"{TREE}/spy")
    assert repository.read(f"{TREE}/spy") is None


def test_what_is_published_just_so_is_not_touched(repository: DirectoryRepository) -> None:
    publish(repository)
    before = [(repository.root / path).lstat().st_ino for path in ("htc/rocky:9", INDEX)]
    with repository.transaction() as transaction:
        transaction.link("htc/rocky:9", f"../{TREE}")
        transaction.write(INDEX, b"1")
    assert [(repository.root / path).lstat().st_ino for path in ("htc/rocky:9", INDEX)] == before


def test_the_staged_is_on_disk_before_the_commit_point_and_the_published_before_the_journal_goes(tmp_path: Path) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    @contextlib.contextmanager
    def watched(area: Path) -> Iterator[Callable[[], None]]:
        def sync() -> None:
            staged = next(area.glob("stage.*/0/sh"), None) is not None
            seen.append((staged, (area / "journal").exists(), (area.parent / INDEX).exists()))

        yield sync

    repository = DirectoryRepository(tmp_path / "repository", durable=watched)
    publish(repository)
    assert seen == [(True, False, False), (False, True, True)]
    publish_nothing = repository.transaction()
    with publish_nothing:
        pass
    assert len(seen) == 2


def test_what_cannot_be_synchronised_is_not_published(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def failing(_area: Path) -> Iterator[Callable[[], None]]:
        def sync() -> None:
            raise OSError(5, "Input/output error")

        yield sync

    repository = DirectoryRepository(tmp_path / "repository", durable=failing)
    with pytest.raises(RepositoryError, match=r"cannot publish: .*Input/output error"):
        publish(repository)
    assert not repository.exists(TREE)
    assert staging(repository) == ["lock"]


def test_a_file_in_place_of_a_tree_is_refused(repository: DirectoryRepository) -> None:
    with pytest.raises(RepositoryError, match="no directory was created"), repository.transaction() as transaction:
        transaction.tree(TREE).write_bytes(b"")
    assert not repository.exists(TREE)


def test_a_transaction_that_is_over_takes_nothing_more(repository: DirectoryRepository) -> None:
    with repository.transaction() as transaction:
        pass
    for late in (lambda: transaction.tree(TREE), lambda: transaction.write(INDEX, b""), lambda: transaction.remove(INDEX)):
        with pytest.raises(RepositoryError, match="over"):
            late()


def test_the_index_goes_first_and_links_before_the_trees_they_name(tmp_path: Path) -> None:
    """Killed at every change to the file system, a removal of all three shows these states and no other."""
    repository = DirectoryRepository(tmp_path / "repository")
    publish(repository)

    def remove_all() -> None:
        with repository.transaction() as transaction:
            for path in (TREE, "htc/rocky:9", INDEX):
                transaction.remove(path)

    states = set()
    for point in range(1000):
        killed = child_process.killed(point, remove_all)
        states.add((repository.exists(TREE), bool(repository.links()), repository.read(INDEX) is not None))
        if not killed:
            break
        repository.recover()
        with repository.transaction() as transaction:
            transaction.link("htc/rocky:9", f"../{TREE}")
            transaction.write(INDEX, b"1")
            if not repository.exists(TREE):
                make(transaction.tree(TREE))
    assert states == {(True, True, True), (True, True, False), (True, False, False), (False, False, False)}


# what an ordinary user meets


def test_a_directory_without_permission_is_refused_before_anything_is_visible(repository: DirectoryRepository) -> None:
    publish(repository)
    (repository.root / "htc").chmod(0o555)

    def publish_again() -> None:
        with repository.transaction() as transaction:
            transaction.write(INDEX, b"2")
            transaction.link("htc/rocky:9", "elsewhere")

    def be_refused() -> None:
        with pytest.raises(RepositoryError, match="htc/rocky:9: no permission to write in"):
            publish_again()

    child_process.unprivileged(be_refused)
    assert repository.read(INDEX) == b"1"
    assert staging(repository) == ["lock"]


@only_root_gives_away
def test_somebody_elses_tree_is_not_removed(repository: DirectoryRepository) -> None:
    publish(repository)
    os.chown(repository.root / TREE, 65534, 65534)

    def remove() -> None:
        with pytest.raises(RepositoryError, match="belongs to another user"), repository.transaction() as transaction:
            transaction.remove(TREE)

    child_process.unprivileged(remove)
    assert repository.exists(TREE)


@only_root_gives_away
def test_what_cannot_be_swept_is_reported_and_in_nobodys_way(repository: DirectoryRepository) -> None:
    publish(repository)
    left = repository.root / ".transaction/removed.1"
    left.mkdir()
    (left / "file").touch()
    os.chown(left, 65534, 65534)

    def recover() -> None:
        (line,) = repository.recover()
        assert line.startswith("cannot delete .transaction/removed.1: ")
        with repository.transaction() as transaction:
            transaction.write(INDEX, b"2")

    child_process.unprivileged(recover)
    assert repository.read(INDEX) == b"2"


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="cannot take the lock"):
        publish(DirectoryRepository(tmp_path / "file/repository"))


def test_what_cannot_be_looked_at_is_an_error_and_not_missing(repository: DirectoryRepository) -> None:
    publish(repository)
    (repository.root / ".publisher").chmod(0)

    def look() -> None:
        for refused in (repository.read, repository.exists):
            with pytest.raises(RepositoryError, match="Permission denied"):
                refused(INDEX)

    child_process.unprivileged(look)
    (repository.root / ".publisher").chmod(0o755)


# what recovering meets; kills at every point are in tests/system/publish/test_kill_repository.py


def test_leftovers_are_discarded_and_named(repository: DirectoryRepository) -> None:
    publish(repository)
    area = repository.root / ".transaction"
    (area / "stage.1/0/bin").mkdir(parents=True)
    (area / "removed.2").mkdir()
    (area / ".journal.3").touch()
    assert repository.recover() == [
        "discarded what was left of an interrupted transaction: .transaction/.journal.3",
        "discarded what was left of a removed tree: .transaction/removed.2",
        "discarded what was left of an interrupted transaction: .transaction/stage.1",
    ]
    assert staging(repository) == ["lock"]


@pytest.mark.parametrize(
    "journal", [b"", b"{", b"[]", b"1", b"\xff", json.dumps({"schema": 2}).encode(), json.dumps({"schema": 1}).encode()]
)
def test_a_journal_of_another_version_or_a_damaged_one_stops_everything(repository: DirectoryRepository, journal: bytes) -> None:
    publish(repository)
    (repository.root / ".transaction/journal").write_bytes(journal)
    (repository.root / ".transaction/stage.1").mkdir()
    for stopped in (repository.recover, lambda: publish(repository)):
        with pytest.raises(RepositoryError, match=r"journal is damaged, or of another version.*remove it to give"):
            stopped()
    assert staging(repository) == ["journal", "lock", "stage.1"]


@pytest.mark.parametrize("lost", ["trees", "files"])
def test_what_is_neither_staged_nor_in_place_is_an_error(repository: DirectoryRepository, lost: str) -> None:
    publish(repository)
    journal = {"schema": 1, "stage": "stage.1", "trees": [], "links": [], "files": [], "removals": []}
    entry = {"staged": "0", "path": "new/thing"} | ({"mode": 0o755} if lost == "trees" else {})
    (repository.root / ".transaction/journal").write_text(json.dumps(journal | {lost: [entry]}))
    with pytest.raises(RepositoryError, match=r"new/thing is neither staged nor in place.*give that transaction up"):
        repository.recover()


def test_a_removal_that_does_not_go_is_told_by_the_recovery_once_and_holds_up_nothing(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository)
    journal = {"schema": 1, "stage": "stage.1", "trees": [], "links": [], "files": [], "removals": [INDEX, TREE, "htc/rocky:9"]}
    (repository.root / ".transaction/journal").write_text(json.dumps(journal))
    with undeletable(repository, TREE, tmp_path, monkeypatch):
        finished, said = repository.recover()
        assert finished.startswith("finished an interrupted transaction")
        assert f"cannot remove {TREE}: " in said
        assert repository.recover() == []
    assert (repository.read(INDEX), repository.links(), repository.exists(TREE)) == (None, {}, True)
