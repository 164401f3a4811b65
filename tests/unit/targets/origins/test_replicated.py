"""Several origins: the first counts, the others follow."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.origins.replicated import OriginPlaces, ReplicatedOrigin, behind_of, warnings_of

if TYPE_CHECKING:
    from pathlib import Path

PLACES = OriginPlaces("sif", "manifest", "manifest/index.json")


class Failing(DirectoryOrigin):
    """An origin that takes nothing while ``is_down`` is set, and counts how often it was asked to."""

    is_down = True
    asked = 0

    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        self._fail()
        return super().put(name, source, sha256=sha256, size=size)

    def put_bytes(self, name: str, content: bytes) -> bool:
        self._fail()
        return super().put_bytes(name, content)

    def replace(self, name: str, content: bytes) -> None:
        self._fail()
        super().replace(name, content)

    def remove(self, name: str) -> None:
        self._fail()
        super().remove(name)

    def _fail(self) -> None:
        self.asked += 1
        if self.is_down:
            raise OriginError("it is down")


class World:
    def __init__(self, where: Path) -> None:
        self.where = where
        self.first = DirectoryOrigin(where / "first")
        self.second, self.third = Failing(where / "second"), DirectoryOrigin(where / "third")

    def origin(self) -> ReplicatedOrigin:
        """The origins as the next run opens them."""
        return ReplicatedOrigin(self.first, {"second": self.second, "third": self.third}, self.where)

    def put(self, origin: ReplicatedOrigin, name: str, content: bytes) -> None:
        source = self.where / "source"
        source.write_bytes(content)
        assert origin.put(name, source, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_failing_follower_fails_nothing_and_is_reported_and_left_alone(world: World) -> None:
    origin = world.origin()
    world.put(origin, "sif/ab/x.sif", b"content")
    origin.put_bytes("manifest/shards/1.json", b"{}")
    origin.replace("manifest/index.json", b"index")
    origin.remove("sif/ab/y.sif")
    assert list(origin.names()) == ["manifest/index.json", "manifest/shards/1.json", "sif/ab/x.sif"]
    assert list(world.third.names()) == list(world.first.names())
    assert list(world.second.names()) == []
    assert world.second.asked == 1, "its index would name what it lacks"
    assert origin.behind == behind_of(origin) == {"second": "it is down"}
    assert warnings_of(origin) == ["the origin second is behind: it is down"]


def test_a_failure_of_the_first_origin_is_one(world: World) -> None:
    origin = ReplicatedOrigin(world.second, {"third": world.third})
    with pytest.raises(OriginError, match="it is down"):
        origin.put_bytes("sif/ab/x.sif", b"content")
    assert list(world.third.names()) == []


def test_a_later_run_copies_what_is_lacking_with_the_index_last(world: World) -> None:
    origin = world.origin()
    for name in ("sif/ab/x.sif", "sif/cd/y.sif"):
        world.put(origin, name, name.encode())
    origin.put_bytes("manifest/shards/1.json", b"{}")
    origin.replace("manifest/index.json", b"index")
    world.second.is_down = False
    live = {"sif/ab/x.sif", "sif/cd/y.sif", "sif/ef/lost-by-the-first.sif"}
    assert world.origin().lacking(sorted(live)) == {"second": ["sif/ab/x.sif", "sif/cd/y.sif"], "third": []}
    some = world.origin().catch_up(live, PLACES, limit=1)
    assert some == ["copied sif/ab/x.sif to second", "copied manifest/shards/1.json to second"], (
        "no index that names what is lacking"
    )
    assert world.origin().catch_up(live, PLACES) == ["copied sif/cd/y.sif to second", "copied manifest/index.json to second"]
    assert list(world.second.names()) == list(world.first.names())
    assert world.second.read("sif/cd/y.sif") == b"sif/cd/y.sif"
    assert world.origin().catch_up(live, PLACES) == []


def test_what_a_follower_kept_is_removed_when_it_catches_up(world: World) -> None:
    world.second.is_down = False
    for name in ("sif/ab/x.sif", "sif/cd/y.sif"):
        world.put(world.origin(), name, b"1")
    world.second.is_down = True
    origin = world.origin()
    origin.remove("sif/ab/x.sif")
    assert (world.first.size("sif/ab/x.sif"), world.third.size("sif/ab/x.sif"), origin.behind) == (
        None,
        None,
        {"second": "it is down"},
    )
    world.second.is_down = False
    assert world.origin().catch_up({"sif/cd/y.sif"}, PLACES) == ["removed sif/ab/x.sif from second"]


def test_what_the_first_origin_has_lost_is_not_removed_from_the_others(world: World) -> None:
    world.second.is_down = False
    world.put(world.origin(), "sif/ab/x.sif", b"1")
    world.first.remove("sif/ab/x.sif")
    assert world.origin().catch_up({"sif/ab/x.sif"}, PLACES) == []
    assert world.second.size("sif/ab/x.sif") == 1


def test_a_damaged_object_is_found_and_copied_by_a_deep_look(world: World) -> None:
    world.second.is_down = False
    world.put(world.origin(), "sif/ab/x.sif", b"content")
    path = world.where / "third" / "sif/ab/x.sif"
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    assert world.origin().lacking(["sif/ab/x.sif"]) == {"second": [], "third": []}
    assert world.origin().lacking(["sif/ab/x.sif"], deep=True) == {"second": [], "third": ["sif/ab/x.sif"]}
    assert world.origin().catch_up({"sif/ab/x.sif"}, PLACES, deep=True) == ["copied sif/ab/x.sif to third"]
    assert path.read_bytes() == b"content"


def test_one_origin_has_no_followers(world: World) -> None:
    assert (behind_of(world.first), warnings_of(world.first)) == ({}, [])


def test_an_object_is_a_file_of_this_host_where_the_first_origin_has_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.second.is_down = False
    origin = world.origin()
    assert origin.local_path("sif/a") is None
    world.put(origin, "sif/a", b"1")
    assert origin.local_path("sif/a") == world.first.local_path("sif/a") == world.where / "first/sif/a"
