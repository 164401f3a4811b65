from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.errors import OriginError, RepositoryError
from publisher.maintain import block, gc
from publisher.plan.retention import RetentionLimits, sif_objects
from publisher.state import paths
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import AMD64, ARM64, answer, digest, entry
from tests.support.publisher.prepublished import INDEX, NOW, Place, Refusing

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.maintain.gc import GcResult
    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot

DAY = 86400
LIMITS = RetentionLimits(grace=14 * DAY, count=100, size=10**12)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def publish(place: Place, publication: Publication, name: str, text: str) -> Snapshot:
    return place.publish(publication, (entry(name), answer(text))).snapshot


def collect(place: Place, publication: Publication, limits: RetentionLimits = LIMITS) -> GcResult:
    snapshot, _ = publication.open()
    return gc.collect(publication, snapshot, place.now, limits)


def sandbox(text: str) -> str:
    return paths.sandbox_path(digest(f"{text} linux/amd64"))


def test_a_superseded_build_leaves_the_manifest_the_repository_and_the_origin_together(place: Place) -> None:
    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    publish(place, publication, "htc/rocky:9", "two")
    sifs = set(place.origin.names("sif"))
    assert collect(place, publication).lines == []
    place.now += 14 * DAY
    result = collect(place, publication)
    assert result.error is None
    assert not place.repository.exists(sandbox("one"))
    assert not place.repository.exists(paths.file_index_path(digest("one linux/amd64")))
    assert place.repository.exists(sandbox("two"))
    (left,) = place.origin.names("sif")
    assert left in sifs
    assert digest("one linux/amd64") in result.lines[0]
    place.in_both()
    before = place.repository.read(INDEX)
    assert collect(place, publication).lines == []
    assert place.repository.read(INDEX) == before, "nothing to remove is nothing to publish"


def test_a_chunk_table_leaves_the_origin_with_its_sif_and_stays_as_long(place: Place) -> None:
    place.tables = True
    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    publish(place, publication, "htc/rocky:9", "two")
    objects = set(place.origin.names("sif"))
    assert len(objects) == 4
    assert collect(place, publication).lines == []
    assert set(place.origin.names("sif")) == objects
    place.now += 14 * DAY
    result = collect(place, publication)
    left = [version.sif for _, version in result.snapshot.records["htc/rocky:9"].versions()]
    assert [set(place.origin.names("sif"))] == [sif_objects(sif) for sif in left if sif is not None]
    assert len([line for line in result.lines if "from the origin" in line]) == 1, "a table is part of its SIF"


def test_a_chunk_table_that_no_record_names_goes_after_the_grace(place: Place) -> None:
    """A run was killed between table and record, and the next one has made another."""
    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    place.origin.put_bytes("sif/ab/stray.chunks", b"a table")
    collect(place, publication)
    assert place.origin.size("sif/ab/stray.chunks") is not None
    place.now += 14 * DAY
    collect(place, publication)
    assert place.origin.size("sif/ab/stray.chunks") is None


def test_a_name_ends_after_its_grace_and_its_data_goes_after_another_grace(place: Place) -> None:
    publication = place.publication()
    snapshot = publish(place, publication, "htc/rocky:9", "one")
    publication.publish(snapshot, [], ["htc/rocky:9"])
    place.now += 14 * DAY
    assert "htc/rocky:9 was removed" in collect(place, publication).lines[0]
    assert place.repository.links() == {}
    assert not (place.repository.root / "htc").exists()
    assert place.repository.exists(sandbox("one")), "jobs that run were given this path"
    assert "htc/rocky:9" in publication.open()[0].records, "and look it up"
    place.now += 14 * DAY
    collect(place, publication)
    assert not place.repository.exists(sandbox("one"))
    assert list(place.origin.names("sif")) == []
    assert publication.open()[0].records == {}


def test_a_delisted_format_and_platform_go_with_all_their_data(place: Place) -> None:
    publication = place.publication()
    said = answer("one", [AMD64, ARM64])
    place.publish(publication, (entry("htc/rocky:9", [AMD64, ARM64]), said))
    place.publish(publication, (entry("htc/rocky:9", [AMD64], ["sif"]), said))
    place.now += 14 * DAY
    collect(place, publication)
    assert place.repository.links() == {}
    assert not place.repository.exists(sandbox("one"))
    assert place.repository.exists(paths.sandbox_path(digest("one linux/arm64"))), "of the platform, from now on superseded"
    assert place.repository.exists(paths.file_index_path(digest("one linux/amd64"))), "of the SIF that stays"
    place.now += 14 * DAY
    collect(place, publication)
    assert list((place.repository.root / paths.IMAGES).iterdir()) == [place.repository.root / ".images/.cvmfscatalog"]
    assert len(list(place.origin.names("sif"))) == 1
    record = publication.open()[0].records["htc/rocky:9"]
    assert [(platform, version.sandbox) for platform, version in record.versions()] == [("amd64", None)]


def test_a_shard_that_the_origin_lost_is_stored_again_without_a_new_manifest(place: Place) -> None:
    publication = place.publication()
    for text in ("one", "two"):
        publish(place, publication, f"htc/{text}:1", text)
    before = place.repository.read(INDEX)
    shard, *_ = place.origin.names("manifest/shards")
    snapshot, _ = publication.open()
    place.origin.remove(shard)
    said = ["the origin has lost 1 shard(s) of the manifest, which were stored again"]
    would = [line.replace("were stored", "would be stored") for line in said]
    assert gc.collect(publication, snapshot, place.now, LIMITS, dry_run=True).lines == would
    assert place.origin.read(shard) is None
    result = collect(place, publication)
    assert (result.lines, result.error) == (said, None)
    assert place.in_both() == before
    assert collect(place, publication).lines == []


def test_the_next_run_removes_what_a_kill_left_in_the_origin(place: Place) -> None:
    class Refusing(DirectoryOrigin):
        def remove(self, name: str) -> None:
            raise OriginError(f"{name} stays")

    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    publish(place, publication, "htc/rocky:9", "two")
    place.now += 14 * DAY
    refusing = place.publication(Refusing(place.origin.root))
    cut_short = collect(place, refusing)
    assert cut_short.error is not None
    assert len(list(place.origin.names("sif"))) == 2
    collect(place, publication)
    assert len(list(place.origin.names("sif"))) == 1


def test_a_sandbox_that_cannot_be_removed_does_not_hold_up_others(place: Place) -> None:
    publication = place.publication()
    for text in ("one", "two", "three"):
        publish(place, publication, "htc/rocky:9", text)
        place.now += DAY
    place.now += 14 * DAY
    place.repository = Refusing(place.repository.root, sandbox("one"))
    for left, stuck in ((2, True), (1, False)):
        result = collect(place, place.publication(), RetentionLimits(14 * DAY, 1, 10**12))
        assert len(result.snapshot.records["htc/rocky:9"].platforms["amd64"]) == left
        assert isinstance(result.error, RepositoryError) is stuck
        assert any("belongs to another user" in line and sandbox("one") in line for line in result.lines) is stuck
    assert place.repository.exists(sandbox("one"))
    assert not place.repository.exists(sandbox("two"))
    place.in_both()


def test_an_object_that_cannot_be_removed_does_not_hold_up_others(place: Place) -> None:
    class Stuck(DirectoryOrigin):
        def remove(self, name: str) -> None:
            if name == names[0]:
                raise OriginError(f"{name} stays")
            super().remove(name)

    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    names = [paths.sif_path(digit * 64) for digit in "abc"]
    for age, name in zip((40, 30, 20), names, strict=True):
        place.origin.put_bytes(name, b"left")
        os.utime(place.origin.root / name, (NOW - age * DAY, NOW - age * DAY))
    for left in ([names[0], names[2]], [names[0]], [names[0]]):
        result = collect(place, place.publication(Stuck(place.origin.root)), RetentionLimits(14 * DAY, 1, 10**12))
        assert str(result.error) == f"{names[0]} stays"
        assert [name for name in names if name in place.origin.names("sif")] == left


def test_nothing_is_removed_from_an_origin_with_an_older_manifest(place: Place) -> None:
    """Its own manifest still names what the repository's does not."""

    class Stuck(DirectoryOrigin):
        def replace(self, name: str, content: bytes) -> None:
            raise OriginError(f"{name} ({len(content)} bytes) is refused")

    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    publish(place, publication, "htc/rocky:9", "two")
    place.now += 14 * DAY
    stuck = collect(place, place.publication(Stuck(place.origin.root)))
    assert isinstance(stuck.error, OriginError)
    assert not place.repository.exists(sandbox("one"))
    assert len(list(place.origin.names("sif"))) == 2
    collect(place, publication)
    assert len(list(place.origin.names("sif"))) == 1


def test_an_unnamed_sif_is_removed_only_when_it_is_old(place: Place) -> None:
    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    for age in (13, 15):
        name = paths.sif_path(f"{age}" * 32)
        place.origin.put_bytes(name, f"left {age}".encode())
        os.utime(place.origin.root / name, (NOW - age * DAY, NOW - age * DAY))
    collect(place, publication)
    assert paths.sif_path("13" * 32) in place.origin.names("sif")
    assert paths.sif_path("15" * 32) not in place.origin.names("sif")


def test_nothing_is_removed_from_an_origin_with_a_newer_manifest(place: Place) -> None:
    """As with a wrong --repository, or one that was restored from a backup: what the origin's manifest names stays."""
    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    old = place.repository.read(INDEX)
    assert old is not None
    publish(place, publication, "htc/rocky:9", "two")
    (place.repository.root / INDEX).write_bytes(old)
    place.now += 13 * DAY
    assert collect(place, place.publication()).lines == []
    assert len(list(place.origin.names("sif"))) == 2
    place.now += 40 * DAY
    assert "the build" in collect(place, place.publication()).lines[0], "of the superseded one"
    (sif,) = place.origin.names("sif")
    record = place.publication().open()[0].records["htc/rocky:9"]
    assert [version.sif.path for _, version in record.versions() if version.sif is not None] == [sif]


def test_a_dry_run_says_what_would_go_and_removes_nothing(place: Place) -> None:
    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    publish(place, publication, "htc/rocky:9", "two")
    place.now += 14 * DAY
    snapshot, _ = publication.open()
    before = place.repository.read(INDEX)
    said = gc.collect(publication, snapshot, place.now, LIMITS, dry_run=True).lines
    assert len(said) == 2
    assert place.repository.read(INDEX) == before
    assert place.repository.exists(sandbox("one"))
    assert len(list(place.origin.names("sif"))) == 2
    assert all("would be removed" in line for line in said)
    done = [line.replace("would be removed", "was removed") for line in said]
    assert collect(place, publication).lines == done, "the dry run reports exactly what is done"


def test_shards_of_old_revisions_go_after_the_grace_unless_still_named(place: Place) -> None:
    publication = place.publication()
    for number, text in enumerate(("one", "two", "three")):
        place.now += number
        publish(place, publication, "htc/rocky:9", text)
    revisions = place.repository.root / ".publisher/revisions"
    shards = place.repository.root / ".publisher/shards"
    assert sorted(path.name for path in revisions.iterdir()) == ["1.json", "2.json"]
    last = place.index().serial
    before = {path.name for path in shards.iterdir()}
    place.now += 14 * DAY
    publish(place, publication, "htc/debian:12", "other")
    assert [path.name for path in revisions.iterdir()] == [f"{last}.json"], "superseded just now"
    named = {manifest.shard_name(sha256).rpartition("/")[2] for sha256 in place.index().shards if sha256 is not None}
    left = {path.name for path in shards.iterdir()}
    assert named <= left
    assert before - left, "those of the first two revisions"
    place.now += DAY
    collect(place, publication)
    there = {name.rpartition("/")[2] for name in place.origin.names("manifest/shards")}
    assert there == {path.name for path in shards.iterdir()}, "the same in the origin"
    assert not (before - left) & there
    place.in_both()


def test_old_revisions_are_removed_at_intervals_only(place: Place) -> None:
    place.sweep_interval = 56 * DAY
    place.now -= place.now % (56 * DAY) - 1
    publication = place.publication()
    revisions = place.repository.root / ".publisher/revisions"
    counts = []
    for number in range(8):
        publish(place, publication, "htc/rocky:9", str(number))
        place.now += 14 * DAY
        counts.append(len(list(revisions.iterdir())) if revisions.exists() else 0)
    assert counts == [0, 1, 2, 3, 1, 2, 3, 4], "at the first run of an interval all go but the one that it replaces"
    place.in_both()


def test_what_an_interrupted_block_left_is_removed_whatever_its_age(place: Place) -> None:
    class Refusing(DirectoryOrigin):
        def remove(self, name: str) -> None:
            raise OriginError(f"{name} stays")

    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    refusing = place.publication(Refusing(place.origin.root))
    snapshot, _ = refusing.open()
    with pytest.raises(OriginError):
        block.apply(refusing, snapshot, block.plan_block(snapshot, "htc/rocky:9", place.now, "stolen data"))
    (place.repository.root / sandbox("one")).mkdir(parents=True)
    assert len(list(place.origin.names("sif"))) == 1
    collect(place, publication)
    assert list(place.origin.names("sif")) == []
    assert not place.repository.exists(sandbox("one"))
    assert "htc/rocky:9" in publication.open()[0].records
    before = place.repository.read(INDEX)
    collect(place, publication)
    assert place.repository.read(INDEX) == before


def test_the_limits_of_a_run_apply_to_the_origin_too_oldest_first(place: Place) -> None:
    publication = place.publication()
    publish(place, publication, "htc/rocky:9", "one")
    names = [paths.sif_path(digit * 64) for digit in "abc"]
    for age, name in zip((20, 40, 30), names, strict=True):
        place.origin.put_bytes(name, b"left")
        os.utime(place.origin.root / name, (NOW - age * DAY, NOW - age * DAY))
    for left in ([names[0], names[2]], [names[0]], []):
        collect(place, publication, RetentionLimits(14 * DAY, 1, 10**12))
        assert [name for name in names if name in place.origin.names("sif")] == left
