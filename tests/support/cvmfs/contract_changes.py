"""Changes to a repository, as the tests of its contract make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.targets.repositories.base import Repository, Transaction

ROCKY = ".images/0a/rocky"
DEBIAN = ".images/0b/debian"
INDEX = ".publisher/index.json"


class DeliberateError(Exception):
    """The caller's work fails in the middle of a transaction."""


def make(tree: Path, content: bytes = b"#!") -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/sh").write_bytes(content)
    (tree / "bin/bash").symlink_to("sh")


def publish(repository: Repository, *steps: Callable[[Transaction], object]) -> None:
    with repository.transaction() as transaction:
        for step in steps:
            step(transaction)


def announce(repository: Repository, content: bytes = b"1", *more: Callable[[Transaction], object]) -> None:
    """Publish an index, and further changes."""
    publish(repository, lambda change: change.write(INDEX, content), *more)


def publish_rocky(repository: Repository) -> None:
    """Publish a tree, a link to it and an index."""
    publish(
        repository,
        lambda change: make(change.tree(ROCKY)),
        lambda change: change.link("htc/rocky:9", f"../{ROCKY}"),
        lambda change: change.write(INDEX, b"1"),
    )


def fail_after(repository: Repository, *steps: Callable[[Transaction], object]) -> None:
    def fail(_change: Transaction) -> None:
        raise DeliberateError

    with pytest.raises(DeliberateError):
        publish(repository, *steps, fail)


def refused(repository: Repository, *steps: Callable[[Transaction], object]) -> None:
    """Check that the last step is refused, and no other."""
    with repository.transaction() as transaction:
        for step in steps[:-1]:
            step(transaction)
        with pytest.raises(RepositoryError):
            steps[-1](transaction)
