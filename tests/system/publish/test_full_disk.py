"""Directory repository and origin on a device that runs full: a small tmpfs, which takes root to mount."""

from __future__ import annotations

import contextlib
import hashlib
from itertools import count
from typing import TYPE_CHECKING

import pytest

from publisher.errors import SpaceError
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.images.trees import snapshot
from tests.support.machine.small_disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.targets.repositories.base import Transaction

TREE, INDEX = ".images/0a/rocky", ".publisher/index.json"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of two megabytes and 64 files."""
    with small_disk(tmp_path / "disk", "size=2m,nr_inodes=64", "what happens on a full disk") as place:
        yield place


def fill(disk: Path) -> None:
    """Fill the disk, byte by byte at the end."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def fill_inodes(disk: Path, left: int) -> None:
    """Use up all inodes except for some."""
    with contextlib.suppress(OSError):
        for number in count():
            (disk / f"filler.{number}").touch()
    for filler in list(disk.glob("filler.*"))[:left]:
        filler.unlink()


def free(disk: Path) -> None:
    for filler in disk.glob("filler*"):
        filler.unlink()


def change(transaction: Transaction) -> None:
    tree = transaction.tree(TREE)
    tree.mkdir()
    (tree / "sh").write_bytes(b"#!")
    transaction.link("htc/rocky:9", f"../{TREE}")
    transaction.write(INDEX, b"2")


def repository_on(disk: Path) -> DirectoryRepository:
    repository = DirectoryRepository(disk / "repository")
    with repository.transaction() as transaction:
        transaction.write(INDEX, b"1")
    return repository


def publish(repository: DirectoryRepository, last: Callable[[Transaction], object]) -> None:
    with repository.transaction() as transaction:
        change(transaction)
        last(transaction)


def assert_works(repository: DirectoryRepository) -> None:
    publish(repository, lambda _: None)
    assert repository.read("htc/rocky:9/sh") == b"#!"
    assert repository.read(INDEX) == b"2"
    assert [path.name for path in (repository.root / ".transaction").iterdir()] == ["lock"]


def test_a_file_that_has_no_room_changes_nothing_visible(disk: Path) -> None:
    repository = repository_on(disk)
    before = snapshot(repository.root)
    with pytest.raises(SpaceError, match=r"No space left.*\(free space there and run again\)"):
        publish(repository, lambda transaction: transaction.write(".publisher/shards/big.json", bytes(4 << 20)))
    assert snapshot(repository.root) == before
    assert_works(repository)


def test_a_disk_that_is_full_when_the_transaction_ends_changes_nothing_visible(disk: Path) -> None:
    """Everything is staged, and only the journal does not fit."""
    repository = repository_on(disk)
    before = snapshot(repository.root)
    with pytest.raises(SpaceError):
        publish(repository, lambda _: fill(disk))
    assert snapshot(repository.root) == before
    free(disk)
    assert_works(repository)


def test_a_disk_without_room_for_a_file_opens_no_transaction(disk: Path) -> None:
    repository = repository_on(disk)
    before = snapshot(repository.root)
    fill_inodes(disk, left=0)
    with pytest.raises(SpaceError), repository.transaction():
        pytest.fail("it was opened")
    free(disk)
    assert snapshot(repository.root) == before
    assert_works(repository)


def test_a_disk_that_runs_full_after_the_commit_point_is_made_up_for_by_the_next_run(disk: Path) -> None:
    """The journal fits, but the two directories above the tree do not."""
    repository = repository_on(disk)
    before = snapshot(repository.root)
    with pytest.raises(SpaceError, match="next run"):
        publish(repository, lambda _: fill_inodes(disk, left=2))
    assert repository.read(INDEX) == b"1"
    assert repository.links() == {}
    free(disk)
    assert repository.recover() == ["finished an interrupted transaction: 1 tree(s), 1 link(s), 1 file(s), 0 removal(s)"]
    assert snapshot(repository.root) != before
    assert repository.read("htc/rocky:9/sh") == b"#!"
    assert repository.read(INDEX) == b"2"


def test_an_upload_that_has_no_room_leaves_nothing(disk: Path, tmp_path: Path) -> None:
    origin = DirectoryOrigin(disk / "origin")
    origin.replace(INDEX, b"1")
    source = tmp_path / "built.sif"
    source.write_bytes(bytes(1 << 20))
    sha256 = hashlib.sha256(bytes(1 << 20)).hexdigest()
    fill(disk)
    with pytest.raises(SpaceError, match="0 B are free"):
        origin.put("sif/x.sif", source, sha256=sha256, size=1 << 20)
    overtaken = DirectoryOrigin(disk / "origin", free=lambda _: 1 << 40)
    with pytest.raises(SpaceError, match="No space left"):
        overtaken.put("sif/x.sif", source, sha256=sha256, size=1 << 20)
    with pytest.raises(SpaceError, match="No space left"):
        origin.put_bytes("shard.json", b"{}")
    with pytest.raises(SpaceError, match="No space left"):
        origin.replace(INDEX, b"2")
    assert list(origin.names()) == [INDEX]
    assert origin.read(INDEX) == b"1"
    assert origin.recover() == []
    free(disk)
    assert origin.put("sif/x.sif", source, sha256=sha256, size=1 << 20)
