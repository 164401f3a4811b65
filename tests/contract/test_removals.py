"""What every repository does with a tree that does not go: it stays whole, is told, and is in the way of nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher import takedown
from publisher.errors import RemovalError, RepositoryError
from publisher.layout import sandbox_path
from publisher.resolver.manifest import BLOCKED
from tests.support.changes import DEBIAN, INDEX, ROCKY, make, publish, publish_rocky
from tests.support.place import Place
from tests.support.published import answer, digest, entry
from tests.support.stubborn import SAID, stubborn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.repositories import Repository, Transaction

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

    with stubborn(repository, ROCKY, tmp_path, monkeypatch):
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
    catalog, _ = publication.open()
    found = takedown.take_down(catalog, NAME, place.now, "stolen data")
    with (
        stubborn(place.repository, sandbox_path(bad), tmp_path, monkeypatch),
        pytest.raises(RepositoryError, match=SAID),
    ):
        takedown.carry_out(publication, catalog, found)
    catalog, _ = place.publication().open()
    assert [(version.manifest, version.state) for version in catalog.records[NAME].platforms["amd64"]] == [(bad, BLOCKED)]
    assert repositories().links() == {}
    assert list(place.origin.names("sif")) == []
    assert repositories().exists(f"{sandbox_path(bad)}/content")
    left = [path for path in found.removals if repositories().exists(path)]
    assert left == [sandbox_path(bad)]
