"""A backup that brings back what was taken down: restores of each part alone and together, and losses."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.records import BLOCKED, CURRENT, SUPERSEDED
from publisher.errors import ClockError, PublishedManifestError, PublisherError
from publisher.maintain import block
from publisher.plan.make import make_plan
from publisher.publish.manifest.manifest_store import REPOSITORY, STATE
from publisher.publish.publication import Publication
from publisher.state import paths
from publisher.state.lineage import carry_blocks
from publisher.state.signing import Signer, new_key
from publisher.state.snapshot import Snapshot, make_revision
from tests.support.ep.execution_point import record, version
from tests.support.images.printing_image import push
from tests.support.publisher.built_values import answer, digest, entry
from tests.support.publisher.prepublished import INDEX, NAME, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from publisher.contract.manifest import Index
    from publisher.contract.records import Record
    from tests.support.publisher.host import Host
    from tests.support.registries.registry import RegistryServer

BAD, GOOD, LATER = "htc/bad:1", "htc/good:1", "htc/later:1"
PARTS = {"repository": "cvmfs", "records": "cvmfs/.publisher", "origin": "osdf", "state": "state"}
"""What an operator restores: the whole repository, only its ``.publisher``, the origin, the state directory."""
RESTORES = [parts for count in range(1, 5) for parts in itertools.combinations(PARTS, count)]
KNOWS_NOTHING = {("repository", "origin", "state"), ("records", "origin", "state"), ("repository", "records", "origin", "state")}
"""Restores after which no place on the publisher's side remembers what was done later."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A backup of everything after serial 1; since then one image was blocked and another one published."""
    place = Place(tmp_path)
    publish(place, BAD, GOOD)
    for name in ("cvmfs", "osdf", "state"):
        shutil.copytree(tmp_path / name, tmp_path / "backup" / name, symlinks=True)
    place.now += 100
    publication = place.publication()
    snapshot, _ = publication.open()
    block.apply(publication, snapshot, block.plan_block(snapshot, BAD, place.now, "it steals tokens"))
    place.now += 100
    publish(place, LATER)
    place.now += 100
    return place


def publish(place: Place, *names: str) -> None:
    place.publish(place.publication(), *((entry(name), answer(name)) for name in names))


def restore(place: Place, parts: Iterable[str]) -> None:
    for part in parts:
        lose(place, part)
        shutil.copytree(place.where / "backup" / PARTS[part], place.where / PARTS[part], symlinks=True)


def lose(place: Place, part: str) -> None:
    shutil.rmtree(place.where / PARTS[part])


def run(place: Place, *, start_from: str | None = None) -> tuple[Snapshot, list[str]]:
    """Do what a sync does about a published state that was restored; return the state, and what the report says."""
    publication = Publication(
        place.repository,
        place.origin,
        place.signer,
        clock=lambda: place.now,
        copy=place.copy,
        unpack=place.unpack,
        start_from=start_from,
    )
    snapshot, opened = publication.open()
    snapshot, missing = publication.drop_missing(snapshot, allowed=False)
    snapshot, restored = publication.restore(snapshot)
    entries = [entry(name) for name in (BAD, GOOD, LATER)]
    plan = make_plan(entries, {one.name: answer(one.name) for one in entries}, snapshot)
    staged = [place.stage(item.entry, answer(item.entry.name), snapshot) for item in plan.work]
    for one in staged:
        for build in one.builds.values():
            publication.store_sif(build)
    if staged or publication.due(snapshot) is not None:
        result = publication.publish(snapshot, staged)
        assert not result.failed
        snapshot = result.snapshot
    assert publication.due(snapshot) is None
    return snapshot, opened + missing + restored


def state_of(snapshot: Snapshot, name: str) -> str:
    return snapshot.records[name].platforms["amd64"][0].state


def check_that_nothing_is_missing(place: Place, snapshot: Snapshot) -> None:
    """Check that everything that is named is there, in all three places, and nothing of a blocked image."""
    assert place.copy.read(manifest.INDEX_NAME) == place.in_both(), "which the next restore may be compared with"
    assert {path.stem for path in (place.where / "state/published/shards").iterdir()} == {*filter(None, place.index().shards)}
    for name, published in snapshot.records.items():
        for _, build in published.versions():
            assert build.sandbox is not None
            assert build.sif is not None
            is_live = build.state != BLOCKED
            assert place.repository.exists(build.sandbox) is is_live, name
            if is_live:
                assert place.origin.size(build.sif.path) == build.sif.size, name
        assert (name in place.repository.links()) is (published.platforms["amd64"][0].state == CURRENT), name


@pytest.mark.parametrize("parts", RESTORES, ids="+".join)
def test_a_restore_brings_nothing_back_and_reuses_no_serial(place: Place, parts: tuple[str, ...]) -> None:
    before = place.index().serial
    restore(place, parts)
    snapshot, report = run(place)
    assert snapshot.serial >= before, "every serial that was given out stays below the next one"
    assert (snapshot.serial == before) is (parts == ("state",)), "which nothing else depends on"
    if parts not in KNOWS_NOTHING:
        assert state_of(snapshot, BAD) == BLOCKED
    assert state_of(snapshot, GOOD) == CURRENT
    assert state_of(snapshot, LATER) == CURRENT
    check_that_nothing_is_missing(place, snapshot)
    assert place.repository.read(paths.revision_path(place.index().previous)), "which clients may still read"
    if {"repository", "records"} & set(parts) and parts not in KNOWS_NOTHING:
        assert "this run continues from serial" in report[0]
    again, report = run(place)
    assert again.serial == snapshot.serial, "and the next run finds nothing to do"
    lost = ["the file index of 1 version(s) is missing: publisher verify names them"]
    assert report == (lost if parts in {("records",), ("records", "state")} else []), "else its image was built again"


def test_a_link_that_a_restore_sets_back_is_set_again(place: Place) -> None:
    before = place.repository.links()
    restore(place, ("repository",))
    link = place.repository.root / GOOD
    link.unlink()
    link.symlink_to("../.images/00/of-an-earlier-version")
    _, report = run(place)
    assert place.repository.links() == before
    assert f"{GOOD}: the link is set again" in report


@pytest.mark.parametrize("parts", [("repository",), ("records",), ("origin",), ("state",), ("records", "state")], ids="+".join)
def test_a_loss_brings_nothing_back(place: Place, parts: tuple[str, ...]) -> None:
    before = place.index().serial
    for part in parts:
        lose(place, part)
    snapshot, _ = run(place)
    assert snapshot.serial >= before
    assert [state_of(snapshot, name) for name in (BAD, GOOD, LATER)] == [BLOCKED, CURRENT, CURRENT]
    check_that_nothing_is_missing(place, snapshot)


def test_a_lost_state_directory_is_reported_because_blocks_may_be_lost_with_it(place: Place) -> None:
    restore(place, ("repository", "origin"))
    lose(place, "state")
    before = place.index().serial
    snapshot, report = run(place)
    assert any("blocks made after 2027-01-15 are not in it" in line for line in report)
    assert snapshot.serial >= before + 300, "above what was given out in the 300 seconds since the backup"
    assert run(place)[1] == []


def test_what_is_missing_is_built_again_and_what_cannot_be_is_reported(place: Place) -> None:
    publish(place, "htc/old:1")  # which the list has no more, so that nothing builds it again
    for name in (GOOD, "htc/old:1"):
        shutil.rmtree(place.repository.root / paths.sandbox_path(digest(f"{name} linux/amd64")))
    lose(place, "origin")
    snapshot, report = run(place)
    assert sorted(line.partition(":")[0] for line in report if "is missing" in line) == ["htc/good", "htc/later", "htc/old"]
    assert "htc/old:1" not in snapshot.records, "no manifest names what does not exist"
    check_that_nothing_is_missing(place, snapshot)


def test_a_manifest_stops_naming_what_is_missing_even_if_nothing_is_built_again(place: Place) -> None:
    publish(place, "htc/old:1")
    lost = digest("htc/old:1 linux/amd64")
    shutil.rmtree(place.repository.root / paths.sandbox_path(lost))
    (place.repository.root / paths.file_index_path(lost)).unlink()
    run(place)
    (version,) = place.publication().open()[0].records["htc/old:1"].platforms["amd64"]
    assert (version.sandbox, version.file_index) == (None, None)
    assert version.sif is not None


def test_a_disk_that_is_not_mounted_stops_the_run(place: Place) -> None:
    publish(place, *(f"htc/image-{number}:1" for number in range(9)))
    before = place.in_both()
    shutil.rmtree(place.repository.root / ".images")
    with pytest.raises(PublisherError, match=r"the data of 11 of 12 published names is missing") as stopped:
        run(place)
    assert "--rebuild-missing" in str(stopped.value.hint)
    assert place.in_both() == before


def test_no_run_loses_a_block_silently(place: Place) -> None:
    publication = place.publication()
    snapshot, _ = publication.open()
    with pytest.raises(AssertionError, match=r"the blocks of sha256:[0-9a-f]{64} would be lost"):
        publication.change(snapshot.without([BAD]), {})
    snapshot, _ = publication.open()
    unblocked = block.apply(publication, snapshot, block.plan_unblock(snapshot, BAD)).snapshot
    assert BAD not in unblocked.records
    blocked = block.apply(publication, unblocked, block.plan_block(unblocked, GOOD, place.now, "made in this run")).snapshot
    with pytest.raises(AssertionError, match="would be lost"):
        publication.change(blocked.without([GOOD]), {})


def forked(place: Place, records: Snapshot, serial: int) -> bytes:
    """Return the index of a revision that nobody's revision led to, and store its shards in the origin."""
    revision = make_revision(Snapshot(NAME).with_records(records.records), place.signer, serial=serial, now=place.now)
    for name, content in revision.shards.items():
        place.origin.put_bytes(f"{paths.ORIGIN_MANIFEST}/{name}", content)
    return revision.index


def test_a_fork_keeps_the_blocks_of_both_branches(place: Place) -> None:
    """Such as after two publishers with state directories of their own went on from one backup."""
    ours = place.index().serial
    other = place.publication().open()[0]
    (good,) = other.records[GOOD].platforms["amd64"]
    theirs = other.with_records(block.plan_block(other, good.digest, place.now, "their reason").changed).without([LATER])
    place.origin.replace(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}", forked(place, theirs, ours + 7))
    snapshot, report = run(place)
    assert snapshot.serial > ours + 7
    assert [state_of(snapshot, name) for name in (BAD, GOOD, LATER)] == [BLOCKED, BLOCKED, CURRENT]
    assert snapshot.records[GOOD].platforms["amd64"][0].reason == "their reason"
    assert any("does not continue" in line and "its blocks are kept (htc/good:1)" in line for line in report)


@pytest.mark.parametrize("start_from", [None, REPOSITORY])
def test_a_fork_whose_blocks_cannot_be_read_stops_the_run_whatever_the_operator_says(
    place: Place, start_from: str | None
) -> None:
    other = place.publication().open()[0]
    (good,) = other.records[GOOD].platforms["amd64"]
    theirs = other.with_records(block.plan_block(other, good.digest, place.now, "their reason").changed)
    content = forked(place, theirs, place.index().serial + 7)
    place.origin.replace(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}", content)
    new = set(manifest.Index.parse(manifest.unseal(content)[0]).shards) - set(place.index().shards)
    (place.origin.root / "manifest" / manifest.shard_name(str(new.pop()))).unlink()
    with pytest.raises(PublishedManifestError, match="is not complete in any place") as stopped:
        run(place, start_from=start_from)
    assert "repeat them" in str(stopped.value.hint)


def states(snapshot: Snapshot, name: str) -> list[str]:
    return [version.state for version in snapshot.records[name].platforms["amd64"]]


def blocked(name: str) -> Record:
    return record(name, amd64=[version(name, state=BLOCKED, reason="it steals tokens")])


def branch(*records: Record) -> Snapshot:
    return Snapshot(NAME).with_records({one.name: one for one in records})


def test_a_block_of_another_branch_counts_under_every_name_and_for_an_image_that_this_one_lacks() -> None:
    ours = branch(record(GOOD), record("htc/same:1", amd64=[version(GOOD)]))
    merged = carry_blocks(ours, branch(blocked(GOOD), blocked(LATER)))
    assert [states(merged, name) for name in (GOOD, "htc/same:1", LATER)] == [[BLOCKED]] * 3


def test_a_name_that_another_branch_blocks_is_blocked_also_if_this_one_has_a_newer_version_of_it() -> None:
    newer = record(GOOD, amd64=[version("newer")])
    assert states(carry_blocks(branch(newer), branch(blocked(GOOD))), GOOD) == [BLOCKED, SUPERSEDED]
    blocked_before = record(GOOD, amd64=[version("newer"), version(GOOD, state=BLOCKED)])
    assert states(carry_blocks(branch(newer), branch(blocked_before)), GOOD) == [CURRENT, BLOCKED]


def test_where_no_branch_is_known_to_be_ours_the_operator_decides(place: Place) -> None:
    before = place.index().serial
    place.origin.replace(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}", forked(place, Snapshot(NAME), before + 7))
    lose(place, "state")
    with pytest.raises(
        PublishedManifestError, match=r"have forked: the repository has serial .*, the origin has serial"
    ) as stopped:
        run(place)
    assert "--start-from" in str(stopped.value.hint)
    with pytest.raises(PublishedManifestError, match="the state directory has no manifest to start from"):
        run(place, start_from=STATE)
    snapshot, _ = run(place, start_from=REPOSITORY)
    assert snapshot.serial > before + 7
    assert [state_of(snapshot, name) for name in (BAD, GOOD, LATER)] == [BLOCKED, CURRENT, CURRENT]


def test_the_clock_is_compared_with_the_newest_manifest_of_all_places(place: Place) -> None:
    place.now += 10 * 86400
    publish(place, "htc/newest:1")
    restore(place, ("repository",))
    place.now -= 5 * 86400
    with pytest.raises(ClockError, match="the newest manifest was signed later"):
        run(place, start_from=REPOSITORY)


def test_a_manifest_that_is_not_complete_anywhere_stops_the_run(place: Place) -> None:
    lose(place, "state")
    lost = next(sha256 for sha256 in place.index().shards if sha256 is not None)
    for where in (place.repository.root / ".publisher", place.origin.root / "manifest"):
        (where / manifest.shard_name(lost)).unlink()
    with pytest.raises(PublishedManifestError, match=rf"is not complete in any place: .* lacks its shard {lost}"):
        run(place)


def test_a_shard_that_one_place_lacks_or_has_damaged_is_read_from_another(place: Place) -> None:
    first, second, third = [sha256 for sha256 in place.index().shards if sha256 is not None][:3]
    for where in (place.repository.root / ".publisher", place.where / "state/published"):
        (where / manifest.shard_name(first)).write_bytes(b"{}")
    for where in (place.repository.root / ".publisher", place.origin.root / "manifest"):
        (where / manifest.shard_name(second)).unlink()
    (place.where / "state/published" / manifest.shard_name(third)).unlink()
    snapshot, report = run(place)
    assert state_of(snapshot, BAD) == BLOCKED
    assert "of which shards are missing or damaged" in report[0]
    check_that_nothing_is_missing(place, snapshot)


def test_a_copy_that_somebody_else_signed_does_not_count(place: Place, tmp_path: Path) -> None:
    new_key(tmp_path / "thief")
    index = make_revision(Snapshot(NAME), Signer(tmp_path / "thief"), serial=10**6, now=place.now).index
    (place.where / "state/published/index.json").write_bytes(index)
    before = place.index().serial
    assert run(place)[0].serial == before


def test_a_serial_that_a_killed_run_has_chosen_is_not_given_to_another_index(place: Place) -> None:
    publication = place.publication()
    snapshot, _ = publication.open()
    with place.repository.transaction() as transaction:
        chosen = publication._manifests.write(transaction, snapshot).snapshot.serial
        for path in (INDEX, paths.revision_path(snapshot.serial)):
            transaction.remove(path)
    place.now -= 100  # the serial must not depend on the clock alone
    again = place.publication()
    assert again.publish(again.open()[0], []).snapshot.serial > chosen


def test_each_publication_of_a_run_has_a_serial_of_its_own(place: Place) -> None:
    publication = place.publication()
    first = publication.publish(publication.open()[0], []).snapshot
    assert publication.publish(first, []).snapshot.serial > first.serial


def test_each_index_names_its_predecessors(place: Place) -> None:
    def former(serial: str) -> Index:
        content = place.repository.read(paths.revision_path(int(serial)))
        assert content is not None
        assert place.index().predecessors == {**(place.index().predecessors or {}), serial: manifest.payload_sha256(content)}
        return manifest.Index.parse(manifest.unseal(content)[0])

    newest = place.index()
    serials = [str(newest.previous)]
    while former(serials[-1]).previous:
        serials.append(str(former(serials[-1]).previous))
    assert sorted(newest.predecessors or {}) == sorted(serials)
    assert len(serials) == 2


# --- with the real program


def names(host: Host) -> Sequence[str]:
    return sorted(path.name for path in (host.repository / "backup").glob("*"))


@pytest.mark.system
@pytest.mark.parametrize("what", ["the repository", ".publisher", "nothing, it is lost"])
def test_the_program_continues_from_the_highest_revision(host: Host, registry: RegistryServer, what: str) -> None:
    for image in ("bad", "good"):
        push(registry, f"backup/{image}:1", image)
    host.images("backup/bad:1", "backup/good:1")
    host.sync()
    saved = host.where / "saved"
    shutil.copytree(host.repository, saved, symlinks=True)
    host.run("block", "backup/bad:1", "--reason=it steals tokens", check=True)
    blocked = host.index()
    assert blocked is not None
    damaged = host.repository if what == "the repository" else host.repository / ".publisher"
    shutil.rmtree(damaged)
    if what != "nothing, it is lost":
        shutil.copytree(saved if what == "the repository" else saved / ".publisher", damaged, symlinks=True)

    report = host.sync()
    assert report.results == {"backup/bad:1": "blocked", "backup/good:1": "unchanged"}
    assert report.said["serial"] > blocked.serial
    assert any(f"this run continues from serial {blocked.serial}" in note for note in report.said["notes"])
    assert names(host) == ["good:1"]
    assert [version.state for _, version in host.record("backup/bad:1").versions()] == [BLOCKED]
    verified = host.run("verify").stdout
    assert verified == "" or "file index" in verified
    assert host.index(origin=True) is not None
    assert host.sync().said["serial"] == report.said["serial"]


@pytest.mark.system
def test_a_command_after_a_restore_continues_from_the_highest_revision_too(host: Host, registry: RegistryServer) -> None:
    for image in ("bad", "good"):
        push(registry, f"backup/{image}:1", image)
    host.images("backup/bad:1", "backup/good:1")
    host.sync()
    saved = host.where / "saved"
    shutil.copytree(host.repository, saved, symlinks=True)
    host.run("block", "backup/bad:1", "--reason=it steals tokens", check=True)
    shutil.rmtree(host.repository)
    shutil.copytree(saved, host.repository, symlinks=True)
    host.run("block", "backup/good:1", "--reason=this one too", check=True)
    assert names(host) == []
    for name in ("backup/bad:1", "backup/good:1"):
        assert [version.state for _, version in host.record(name).versions()] == [BLOCKED]
