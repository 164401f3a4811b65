"""How the manifest gets into the origin."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from publisher.errors import OriginError
from publisher.state import paths
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0
IMAGES = [(entry(f"htc/image-{number}:1"), answer(f"image {number}")) for number in range(9)]


def test_several_shards_are_stored_at_the_same_time_and_the_index_after_all_of_them(tmp_path: Path) -> None:
    class Slow(DirectoryOrigin):
        def put_bytes(self, name: str, content: bytes) -> bool:
            if len(asked) < both.parties:
                asked.append(name)
                both.wait(PATIENCE)  # a store that waits for the one before raises BrokenBarrierError here
            return super().put_bytes(name, content)

        def replace(self, name: str, content: bytes) -> None:
            stored.append(set(super().names("manifest/shards")))
            super().replace(name, content)

    both, asked, stored = threading.Barrier(2), list[str](), list[set[str]]()
    place = Place(tmp_path)
    published = place.publish(place.publication(Slow(place.origin.root)), *IMAGES)
    assert published.behind is None
    assert len(asked) == len(set(asked)) == both.parties
    assert stored == [{f"{paths.ORIGIN_MANIFEST}/{name}" for name in published.snapshot.files}]
    place.in_both()


def test_the_index_stays_as_it_is_if_one_of_many_shards_is_refused(tmp_path: Path) -> None:
    class Refusing(DirectoryOrigin):
        def put_bytes(self, name: str, content: bytes) -> bool:
            asked.append(name)
            if len(asked) == 3:
                raise OriginError(f"{name} is refused")
            return super().put_bytes(name, content)

    asked: list[str] = []
    place = Place(tmp_path)
    published = place.publish(place.publication(Refusing(place.origin.root)), *IMAGES)
    assert isinstance(published.behind, OriginError)
    assert place.origin.read(f"{paths.ORIGIN_MANIFEST}/index.json") is None
    place.publication().open()
    place.in_both()
