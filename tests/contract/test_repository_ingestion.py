"""The contract of every implementation of a repository: trees that are published from a tar stream, where that is possible."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.system.tar_stream import header
from tests.support.cvmfs.contract_changes import INDEX, ROCKY, DeliberateError, fail_after, make, publish, publish_rocky

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.system.tar_stream import TarStream
    from publisher.targets.repositories.base import Repository, Transaction

NEXT = ".images/0a/next"
MARK = f"{NEXT}.incomplete"
OWNER, TIME = 70_000, 1_600_000_000
LONG = b"n" * 120
CONTENT = os.urandom(2_500_000)


@pytest.fixture
def ingesting(repositories: Callable[[], Repository]) -> Callable[[], Repository]:
    """Return the repositories, with a tree beside which another can be ingested."""
    publish_rocky(repositories())
    if repositories().largest_ingested(NEXT) is None:
        pytest.skip("this kind of repository takes no tar streams")
    return repositories


def add(
    stream: TarStream, name: bytes, kind: bytes = b"0", content: bytes = b"", *, mode: int = 0o644, link: bytes = b""
) -> None:
    path = b"next/" + name if name else b"next"
    blocks = header(path, kind, mode=mode, uid=OWNER, gid=OWNER + 1, size=len(content), mtime=TIME, link=link)
    stream.add(blocks, [content], len(content))


def add_tree(stream: TarStream) -> None:
    add(stream, b"", b"5", mode=0o755)
    add(stream, b".cvmfscatalog")
    add(stream, b"bin", b"5", mode=0o755)
    add(stream, b"bin/sh", content=b"#!", mode=0o4755)
    add(stream, b"bin/bash", b"2", link=b"sh", mode=0o777)
    add(stream, b"bin/dash", b"1", link=b"next/bin/sh", mode=0o4755)
    add(stream, b"large", content=CONTENT)
    add(stream, b"empty")
    add(stream, LONG, content=b"long")
    add(stream, b"\xff\n \xc3\xa9", content=b"strange")


def ingest(repository: Repository, members: Callable[[TarStream], None] = add_tree) -> None:
    with repository.ingest(NEXT) as stream:
        members(stream)


def complete(change: Transaction) -> Path:
    tree = change.complete(NEXT)
    assert tree is not None
    return tree


def test_a_tree_is_published_as_it_is_in_the_stream(ingesting: Callable[[], Repository]) -> None:
    ingest(ingesting())
    publish(ingesting(), complete)
    reader = ingesting()
    tree = reader.root / NEXT
    assert reader.read(f"{NEXT}/bin/bash") == b"#!"
    assert reader.read(f"{NEXT}/bin/dash") == b"#!"
    assert reader.read(f"{NEXT}/large") == CONTENT
    assert reader.read(f"{NEXT}/empty") == b""
    assert reader.read(f"{NEXT}/{LONG.decode()}") == b"long"
    assert (tree / os.fsdecode(b"\xff\n \xc3\xa9")).read_bytes() == b"strange"
    shell = (tree / "bin/sh").lstat()
    assert (shell.st_mode, shell.st_uid, shell.st_gid, shell.st_mtime) == (0o104755, OWNER, OWNER + 1, TIME)
    for path in (tree, tree / "bin"):
        status = path.lstat()
        assert (status.st_mode, status.st_uid, status.st_mtime) == (0o40755, OWNER, TIME)


def test_a_tree_exists_once_a_transaction_has_completed_it(ingesting: Callable[[], Repository]) -> None:
    ingest(ingesting())
    assert not ingesting().exists(NEXT)
    with ingesting().transaction() as transaction:
        complete(transaction)
        transaction.link("htc/next", f"../{NEXT}")
        transaction.write(INDEX, b"2")
    reader = ingesting()
    assert reader.exists(NEXT)
    assert reader.read("htc/next/bin/sh") == b"#!"
    assert not os.path.lexists(reader.root / MARK)


def test_what_is_missing_can_be_added(ingesting: Callable[[], Repository]) -> None:
    ingest(ingesting())
    publish(ingesting(), lambda change: (complete(change) / "bin/more").write_bytes(b"more"))
    assert ingesting().read(f"{NEXT}/bin/more") == b"more"
    assert ingesting().read(f"{NEXT}/bin/sh") == b"#!"


def test_nothing_is_published_of_a_stream_whose_block_raises(ingesting: Callable[[], Repository]) -> None:
    def fail(stream: TarStream) -> None:
        add_tree(stream)
        stream.hold()
        raise DeliberateError

    with pytest.raises(DeliberateError):
        ingest(ingesting(), fail)
    root = ingesting().root
    assert not os.path.lexists(root / NEXT)
    assert not os.path.lexists(root / MARK)
    publish(ingesting(), lambda change: make(change.tree(NEXT)))
    assert ingesting().exists(NEXT)


def test_nothing_is_published_before_the_block_ends(ingesting: Callable[[], Repository]) -> None:
    with ingesting().ingest(NEXT) as stream:
        add_tree(stream)
        stream.hold()
        assert not os.path.lexists(ingesting().root / NEXT)
    assert os.path.lexists(ingesting().root / NEXT)


def test_a_tree_that_was_not_completed_is_made_anew(ingesting: Callable[[], Repository]) -> None:
    ingest(ingesting())
    assert ingesting().largest_ingested(NEXT) is None, "the stream would be merged with what is there"
    publish(ingesting(), lambda change: make(change.tree(NEXT), b"anew"))
    reader = ingesting()
    assert reader.read(f"{NEXT}/bin/sh") == b"anew"
    assert not reader.exists(f"{NEXT}/large")
    assert not os.path.lexists(reader.root / MARK)


def test_a_transaction_that_fails_completes_nothing(ingesting: Callable[[], Repository]) -> None:
    ingest(ingesting())
    fail_after(ingesting(), complete)
    assert not ingesting().exists(NEXT)
    publish(ingesting(), complete)
    assert ingesting().exists(NEXT)


def test_a_completed_tree_can_be_removed_in_its_transaction(ingesting: Callable[[], Repository]) -> None:
    ingest(ingesting())
    publish(ingesting(), complete, lambda change: change.remove(NEXT))
    root = ingesting().root
    assert not os.path.lexists(root / NEXT)
    assert not os.path.lexists(root / MARK)


def test_a_transaction_cannot_use_the_path_of_a_tree_that_it_completes(ingesting: Callable[[], Repository]) -> None:
    ingest(ingesting())
    with ingesting().transaction() as transaction:
        complete(transaction)
        assert transaction.complete(NEXT) is None


def test_nothing_is_ingested_over_what_is_there_or_where_its_directory_is_not(ingesting: Callable[[], Repository]) -> None:
    assert ingesting().largest_ingested(ROCKY) is None
    assert ingesting().largest_ingested("nowhere/next") is None
    assert ingesting().largest_ingested("next") is None


@pytest.mark.parametrize("path", [ROCKY, "nowhere/next", "next"])
def test_a_caller_who_tries_it_nevertheless_is_refused(ingesting: Callable[[], Repository], path: str) -> None:
    with pytest.raises(RepositoryError, match="cannot be ingested"), ingesting().ingest(path):
        pass
    assert ingesting().exists(ROCKY)
    assert not os.path.lexists(ingesting().root / "nowhere")


def test_only_what_was_ingested_can_be_completed(repository: Repository) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        assert transaction.complete(ROCKY) is None
        assert transaction.complete(NEXT) is None
    assert repository.exists(ROCKY)
