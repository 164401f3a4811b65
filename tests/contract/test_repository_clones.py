"""The contract of every implementation of a repository: clones of published trees, even if it cannot clone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cvmfs.contract_changes import INDEX, ROCKY, fail_after, make, publish, publish_rocky, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.repositories.base import Repository, Transaction


def cloned_or_made(change: Transaction, path: str) -> bool:
    """Publish a tree like ROCKY's at ``path``, as a clone if possible; return whether it was cloned."""
    tree = change.clone(ROCKY, path)
    if tree is None:
        make(change.tree(path))
    return tree is not None


def test_a_clone_is_the_published_tree_and_can_be_changed(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    with repositories().transaction() as transaction:
        tree = transaction.clone(ROCKY, ".images/0a/next")
        if tree is None:
            tree = transaction.tree(".images/0a/next")
            make(tree)
        assert (tree / "bin/sh").read_bytes() == b"#!"
        assert not repositories().exists(".images/0a/next")
        assert repositories().read(".images/0a/next/bin/sh") is None
        (tree / "bin/sh").write_bytes(b"changed")
        (tree / "bin/bash").unlink()
        transaction.link("htc/rocky:9", "../.images/0a/next")
    reader = repositories()
    assert reader.read("htc/rocky:9/bin/sh") == b"changed"
    assert not reader.exists("htc/rocky:9/bin/bash")
    assert reader.read(f"{ROCKY}/bin/bash") == b"#!"


def test_a_clone_alone_is_published(repository: Repository) -> None:
    publish_rocky(repository)
    publish(repository, lambda change: cloned_or_made(change, ".images/0a/next"))
    assert repository.read(".images/0a/next/bin/bash") == b"#!"


def test_a_repository_that_clones_does(repository: Repository) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        assert cloned_or_made(transaction, ".images/0a/next") == repository.can_clone


def test_nothing_of_a_clone_is_left_by_a_block_that_raises(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    fail_after(repositories(), lambda change: cloned_or_made(change, ".images/0a/next"))
    assert not repositories().exists(".images/0a/next")
    publish(repositories(), lambda change: make(change.tree(".images/0a/next"), b"made"))
    assert repositories().read(".images/0a/next/bin/sh") == b"made"


def test_a_cancelled_clone_makes_way_for_a_tree(repository: Repository) -> None:
    publish_rocky(repository)
    publish(
        repository,
        lambda change: cloned_or_made(change, ".images/0a/next"),
        lambda change: change.remove(".images/0a/next"),
        lambda change: make(change.tree(".images/0a/next"), b"made"),
        lambda change: change.write(INDEX, b"2"),
    )
    assert repository.read(".images/0a/next/bin/sh") == b"made"
    assert repository.read(INDEX) == b"2"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (".images/0a/missing", ".images/0a/next"),
        (INDEX, ".images/0a/next"),
        ("htc/rocky:9", ".images/0a/next"),
        (ROCKY, ".images/ff/next"),
    ],
)
def test_what_cannot_be_cloned_is_made_as_a_tree(repository: Repository, source: str, path: str) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        assert transaction.clone(source, path) is None
        make(transaction.tree(path), b"made")
    assert repository.read(f"{path}/bin/sh") == b"made"


def test_a_clone_comes_first_and_is_one(repository: Repository) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        cloned_or_made(transaction, ".images/0a/first")
        assert transaction.clone(ROCKY, ".images/0a/second") is None
    with repository.transaction() as transaction:
        transaction.write(INDEX, b"2")
        assert transaction.clone(ROCKY, ".images/0a/third") is None
    assert repository.exists(".images/0a/first/bin/sh")
    assert not repository.exists(".images/0a/second")
    assert repository.read(INDEX) == b"2"


def test_nothing_is_put_above_or_below_a_clone(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: cloned_or_made(change, ".images/0a/next"), lambda change: change.tree(".images/0a/next/x"))
    refused(repository, lambda change: cloned_or_made(change, ".images/0a/more"), lambda change: change.link(".images/0a", "x"))
    refused(repository, lambda change: cloned_or_made(change, ".images/0a/same"), lambda change: change.tree(".images/0a/same"))
    assert repository.read(".images/0a/next/bin/sh") == b"#!"
