"""A tree that cannot be removed: in every repository it stays complete, is reported, and blocks no other change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract.records import BLOCKED
from publisher.errors import RemovalError, RepositoryError
from publisher.maintain import block
from publisher.state.paths import sandbox_path
from tests.support.cvmfs.contract_changes import DEBIAN, INDEX, ROCKY, make, publish, publish_rocky
from tests.support.cvmfs.undeletable_tree import SAID, undeletable
from tests.support.publisher.built_values import answer, digest, entry
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.targets.repositories.base import Repository, Transaction

NAME = "htc/rocky:9"


def test_a_tree_that_does_not_go_is_told_and_stays_whole(
    repositories: Callable[[], Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = repositories()
    publish_rocky(repository)
    publish(repository, lambda change: make(change.tree(DEBIAN)))

    def change_all(change: Transaction) -> None:
        change.remove("htc/rocky:9")
        change.remove(DEBIAN)
        change.write(INDEX, b"2")

    with undeletable(repository, ROCKY, tmp_path, monkeypatch):
        with pytest.raises(RemovalError, match=SAID) as told:
            publish(repository, change_all, lambda change: change.remove(ROCKY))
        assert list(told.value.stuck) == [ROCKY]
        if not told.value.published:
            assert (repository.read(INDEX), repository.exists(DEBIAN)) == (b"1", True)
            publish(repository, change_all)
    reader = repositories()
    assert reader.recover() == []
    assert (reader.read(INDEX), reader.links(), reader.exists(DEBIAN)) == (b"2", {}, False)
    assert reader.read(f"{ROCKY}/bin/sh") == b"#!"
    publish(reader, lambda change: change.remove(ROCKY))
    assert not reader.exists(ROCKY)


def test_an_image_whose_sandbox_does_not_go_is_taken_down_all_the_same(
    repositories: Callable[[], Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "place").mkdir()
    place = Place(tmp_path / "place")
    place.repository = repositories()  # type: ignore[assignment]  # any of them
    publication = place.publication()
    place.publish(publication, (entry(NAME), answer("one")))
    bad = digest("one linux/amd64")
    snapshot, _ = publication.open()
    found = block.plan_block(snapshot, NAME, place.now, "stolen data")
    with (
        undeletable(place.repository, sandbox_path(bad), tmp_path, monkeypatch),
        pytest.raises(RepositoryError, match=SAID),
    ):
        block.apply(publication, snapshot, found)
    snapshot, _ = place.publication().open()
    assert [(version.digest, version.state) for version in snapshot.records[NAME].platforms["amd64"]] == [(bad, BLOCKED)]
    assert repositories().links() == {}
    assert list(place.origin.names("sif")) == []
    assert repositories().exists(f"{sandbox_path(bad)}/content")
    left = [path for path in found.removals if repositories().exists(path)]
    assert left == [sandbox_path(bad)]
