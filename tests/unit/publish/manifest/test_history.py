from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.errors import PublishedManifestError
from publisher.publish.manifest import history
from publisher.state import paths
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NOW, Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three revisions, made at NOW, NOW + 10 and NOW + 20."""
    place = Place(tmp_path)
    for text in ("one", "two", "three"):
        place.publish(place.publication(), (entry("htc/rocky:9"), answer(text)))
        place.now += 10
    return place


def test_every_revision_names_the_one_before_it_and_when_that_was_superseded(place: Place) -> None:
    assert [(one.serial, one.superseded) for one in history.superseded_revisions(place.repository.read)] == [
        (11, NOW + 20),
        (1, NOW + 10),
    ]


def test_revisions_past_their_grace_and_shards_that_only_they_name_are_removable(place: Place) -> None:
    read = place.repository.read
    assert history.removable(read, NOW + 9) == []
    second, first = history.superseded_revisions(read)
    assert history.removable(read, NOW + 10) == [
        paths.revision_path(1),
        *(
            f".publisher/{manifest.shard_name(sha256)}"
            for sha256 in sorted(first.shards - second.shards - history.current_shards(read))
        ),
    ]
    assert history.removable(read, NOW + 20)[:2] == [paths.revision_path(11), paths.revision_path(1)]
    assert not {f".publisher/{manifest.shard_name(one)}" for one in history.current_shards(read)} & set(
        history.removable(read, NOW + 10**9)
    )


def test_a_damaged_revision_stops_no_publication_and_removes_nothing(place: Place) -> None:
    path = place.repository.root / paths.revision_path(1)
    path.write_bytes(b"no envelope")
    assert history.removable(place.repository.read, NOW + 10**9) == []
    with pytest.raises(PublishedManifestError, match=r"revisions/1\.json is damaged"):
        history.all_shards(place.repository.read)
    place.publish(place.publication(), (entry("htc/rocky:9"), answer("four")))
    place.in_both()


def test_where_nothing_is_published_there_are_no_revisions(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert history.all_shards(place.repository.read) == set()
    assert history.removable(place.repository.read, NOW) == []
