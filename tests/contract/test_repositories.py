"""The contract of every implementation of a repository: transactions and names."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from publisher.errors import AnotherRunError, RepositoryError
from tests.support.cvmfs.contract_changes import DEBIAN, INDEX, ROCKY, fail_after, make, publish, publish_rocky, refused
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.repositories.base import Repository

UNSAFE = [
    *("", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "a/./b", "a//b", "a/"),
    *("a\nb", "a\0b", "a\x7f", "\x1b[31m", "\udc80", "x" * 256, "a/" + "é" * 128),
]


def test_it_has_a_name(repository: Repository) -> None:
    assert repository.name


def test_a_new_repository_holds_nothing(repository: Repository) -> None:
    assert repository.recover() == []
    assert repository.links() == {}
    assert repository.read(INDEX) is None
    assert not repository.exists(ROCKY)


def test_a_transaction_is_visible_when_its_block_has_ended_and_not_before(repositories: Callable[[], Repository]) -> None:
    reader = repositories()
    with repositories().transaction() as transaction:
        make(transaction.tree(ROCKY))
        transaction.link("htc/rocky:9", f"../{ROCKY}")
        transaction.write(INDEX, b"1")
        assert not reader.exists(ROCKY)
        assert reader.links() == {}
        assert reader.read(INDEX) is None
    assert reader.read(f"{ROCKY}/bin/sh") == b"#!"
    assert reader.read("htc/rocky:9/bin/bash") == b"#!"
    assert reader.links() == {"htc/rocky:9": f"../{ROCKY}"}
    assert reader.read(INDEX) == b"1"


def test_nothing_of_a_block_that_raises_becomes_visible(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    fail_after(
        repositories(),
        lambda change: make(change.tree(DEBIAN)),
        lambda change: change.link("htc/rocky:9", f"../{DEBIAN}"),
        lambda change: change.write(INDEX, b"2"),
        lambda change: change.remove(ROCKY),
    )
    reader = repositories()
    assert not reader.exists(DEBIAN)
    assert reader.links() == {"htc/rocky:9": f"../{ROCKY}"}
    assert reader.read(INDEX) == b"1"
    assert reader.exists(f"{ROCKY}/bin/sh")


def test_what_a_failed_transaction_wanted_can_be_asked_for_again(repository: Repository) -> None:
    fail_after(repository, lambda change: make(change.tree(ROCKY), b"half"))
    publish_rocky(repository)
    assert repository.read(f"{ROCKY}/bin/sh") == b"#!"


def test_a_transaction_without_changes_changes_nothing(repository: Repository) -> None:
    publish_rocky(repository)
    publish(repository)
    assert repository.read(INDEX) == b"1"
    assert repository.exists("htc/rocky:9")


def test_many_trees_go_into_one_transaction(repository: Repository) -> None:
    trees = [f".images/{number % 7:02x}/{number:04x}" for number in range(100)]
    with repository.transaction() as transaction:
        for tree in trees:
            make(transaction.tree(tree), tree.encode())
            transaction.link(f"many/image:{tree[-4:]}", f"../{tree}")
    assert [repository.read(f"many/image:{tree[-4:]}/bin/sh") for tree in trees] == [tree.encode() for tree in trees]


def test_a_second_transaction_is_refused_and_the_first_unharmed(repositories: Callable[[], Repository]) -> None:
    first = repositories()
    with first.transaction() as transaction:
        make(transaction.tree(ROCKY))
        for second in (repositories(), first):
            with pytest.raises(RepositoryError, match="transaction"), second.transaction():
                pytest.fail("a second transaction was opened")
        transaction.link("htc/rocky:9", f"../{ROCKY}")
    assert repositories().exists("htc/rocky:9/bin/sh")


def test_one_publisher_runs_at_a_time_and_transactions_are_its_own(repositories: Callable[[], Repository]) -> None:
    first, second = repositories(), repositories()
    with first.hold():
        with pytest.raises(AnotherRunError, match=f"another publisher is at work in .*process {os.getpid()}"), second.hold():
            pass
        with first.transaction() as transaction:
            transaction.write("file", b"1")
        assert second.recover() == []
        with pytest.raises(AnotherRunError), second.hold():
            pass
    with second.hold():
        assert second.read("file") == b"1"


def test_recovering_leaves_an_open_transaction_alone(repositories: Callable[[], Repository]) -> None:
    with repositories().transaction() as transaction:
        make(transaction.tree(ROCKY))
        assert repositories().recover() == []
    assert repositories().exists(f"{ROCKY}/bin/sh")


def test_recovering_changes_nothing_when_there_is_nothing_to_recover(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    fail_after(repositories(), lambda change: make(change.tree(DEBIAN)))
    assert [repositories().recover() for _ in range(2)] == [[], []]
    assert repositories().read(f"{ROCKY}/bin/sh") == b"#!"


def test_a_reader_never_finds_an_index_that_names_what_is_not_there(repositories: Callable[[], Repository]) -> None:
    """The index names a shard and an image; a child process publishes new ones while we read."""

    def publish_all() -> None:
        repository = repositories()
        for serial in range(20):
            with repository.transaction() as transaction:  # in the order that would be wrong
                transaction.write(INDEX, json.dumps([f".publisher/shards/{serial}.json", f"htc/rocky:{serial}/bin/sh"]).encode())
                transaction.write(f".publisher/shards/{serial}.json", b"{}")
                transaction.link(f"htc/rocky:{serial}", f"../.images/0a/{serial}")
                make(transaction.tree(f".images/0a/{serial}"))

    reader = repositories()
    child = child_process.start(publish_all)
    named = [""]
    while "htc/rocky:19/bin/sh" not in named and child_process.running(child):
        named = json.loads(reader.read(INDEX) or b"[]")
        assert [path for path in named if not reader.exists(path)] == []
    assert child_process.end(child) == 0
    assert all(reader.exists(path) for path in json.loads(reader.read(INDEX) or b""))


@pytest.mark.parametrize("path", UNSAFE, ids=ascii)
def test_an_unsafe_path_is_refused_everywhere(repository: Repository, path: str) -> None:
    with repository.transaction() as transaction:
        for change in (
            lambda: transaction.tree(path),
            lambda: transaction.link(path, "x"),
            lambda: transaction.write(path, b""),
            lambda: transaction.remove(path),
        ):
            with pytest.raises(RepositoryError):
                change()
    for look in (repository.read, repository.exists):
        with pytest.raises(RepositoryError):
            look(path)


@pytest.mark.parametrize("path", ["htc/rocky:9/etc/passwd", "htc/rocky:9/bin", f"{ROCKY}/bin/bash/x"])
def test_no_path_for_a_change_goes_through_a_link(repository: Repository, path: str) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        for change in (
            lambda: transaction.tree(path),
            lambda: transaction.link(path, "x"),
            lambda: transaction.write(path, b""),
            lambda: transaction.remove(path),
        ):
            with pytest.raises(RepositoryError):
                change()
    assert repository.exists(f"{ROCKY}/bin/sh")


def test_nothing_goes_below_a_file(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: change.write(f"{INDEX}/x", b""))
    refused(repository, lambda change: change.tree(f"{INDEX}/x"))
    assert repository.read(f"{INDEX}/x") is None
    assert not repository.exists(f"{INDEX}/x")
