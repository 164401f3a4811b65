"""Image manifests with one config have one content: mirrors, images that were pushed again, and layers converted to zstd."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.contract.records import ADOPTED, BLOCKED, CURRENT, SUPERSEDED, Record, Version
from publisher.errors import PublisherError, UsageError
from publisher.images.signer import RequiredSigner
from publisher.maintain import block, gc
from publisher.maintain.lost_sifs import select_share
from publisher.maintain.verify import select_builds
from publisher.plan.make import make_plan
from publisher.plan.model import Action
from publisher.plan.retention import RetentionLimits
from publisher.provenance.lookup import Provenance
from publisher.state import lineage, paths, transitions
from publisher.state.snapshot import Snapshot
from tests.support.publisher.built_values import AMD64, answer, built, carried_out, digest, entry
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.images.reader import Entry
    from publisher.plan.model import PlanItem, ResolvedReference

EMPTY = Snapshot("images.example.org")
ROCKY, MIRROR = entry("hub.example.org/htc/rocky:9"), entry("mirror.example.org/mirrored/rocky:9")
FIRST, AGAIN = answer("gzip", content="rocky"), answer("zstd", content="rocky")
CONFIG = digest("config of rocky linux/amd64")
ONE, TWO = digest("gzip linux/amd64"), digest("zstd linux/amd64")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def only(entry: Entry, said: ResolvedReference, snapshot: Snapshot) -> PlanItem:
    (item,) = make_plan([entry], {entry.name: said}, snapshot, whole=False).items
    return item


def after(snapshot: Snapshot, *wanted: tuple[Entry, ResolvedReference], now: int = 1000) -> Snapshot:
    for one, said in wanted:
        snapshot = carried_out(make_plan([one], {one.name: said}, snapshot, whole=False), snapshot, now)
    return snapshot


def states(snapshot: Snapshot, name: str) -> list[tuple[str, str]]:
    return [(version.digest, version.state) for version in snapshot.records[name].platforms["amd64"]]


@pytest.mark.parametrize(("name", "action"), [(ROCKY, Action.CHANGED), (MIRROR, Action.NEW)])
def test_another_manifest_of_a_published_content_needs_no_build(name: Entry, action: Action) -> None:
    item = only(name, AGAIN, after(EMPTY, (ROCKY, FIRST)))
    assert item.action is action
    assert [target.published is not None for target in item.targets] == [True]
    assert "whose content is published already" in item.reason


def test_the_record_names_both_digests_and_one_place_for_the_data(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (ROCKY, FIRST))
    snapshot = place.publish(publication, (ROCKY, AGAIN), (MIRROR, AGAIN)).snapshot
    versions = snapshot.records[ROCKY.name].platforms["amd64"]
    assert [(one.digest, one.config, one.state) for one in versions] == [(TWO, CONFIG, CURRENT), (ONE, CONFIG, SUPERSEDED)]
    assert {version.sandbox for version in versions} == {paths.sandbox_path(CONFIG)}
    assert place.repository.links().keys() == {ROCKY.name, MIRROR.name}
    assert len(list(place.origin.names("sif"))) == 1
    assert versions[0].file_index == versions[1].file_index is not None
    assert place.repository.exists(paths.file_index_path(CONFIG))


def test_two_manifests_of_one_content_share_a_sandbox_in_one_transaction(place: Place) -> None:
    unpacked: list[Path] = []
    place.watch = unpacked.append
    snapshot = place.publish(place.publication(), (ROCKY, FIRST), (MIRROR, AGAIN)).snapshot
    assert len(unpacked) == 1
    assert states(snapshot, MIRROR.name) == [(TWO, CURRENT)]


def test_the_data_stays_until_the_last_manifest_with_it_has_gone(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (ROCKY, FIRST))
    place.now += 1
    snapshot = place.publish(publication, (ROCKY, AGAIN)).snapshot
    place.now += 1000
    limits = RetentionLimits(grace=500, count=10, size=10**12)
    kept = gc.collect(publication, snapshot, place.now, limits)
    assert states(kept.snapshot, ROCKY.name) == [(TWO, CURRENT)]
    assert [place.repository.exists(path) for path in (paths.sandbox_path(CONFIG), paths.file_index_path(CONFIG))] == [True] * 2
    assert len(list(place.origin.names("sif"))) == 1
    place.publish(publication, (ROCKY, answer("other", content="other")))
    place.now += 1000
    snapshot, _ = publication.open()
    gone = gc.collect(publication, snapshot, place.now, limits)
    assert gone.error is None
    assert [place.repository.exists(path) for path in (paths.sandbox_path(CONFIG), paths.file_index_path(CONFIG))] == [False] * 2


@pytest.mark.parametrize("subject", [ROCKY.name, ONE, TWO, CONFIG])
def test_a_block_is_of_the_content_under_every_name_and_manifest(place: Place, subject: str) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (ROCKY, FIRST), (MIRROR, AGAIN)).snapshot
    blocked = block.apply(publication, snapshot, block.plan_block(snapshot, subject, place.now, "stolen")).snapshot
    assert states(blocked, ROCKY.name) == [(ONE, BLOCKED)]
    assert states(blocked, MIRROR.name) == [(TWO, BLOCKED)]
    assert place.repository.links() == {}
    assert not place.repository.exists(paths.sandbox_path(CONFIG))
    lifted = block.apply(publication, blocked, block.plan_unblock(blocked, MIRROR.name)).snapshot
    assert not lifted.blocked_digests()


def test_a_blocked_content_is_not_published_under_a_manifest_that_is_new(place: Place) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (ROCKY, FIRST)).snapshot
    blocked = block.apply(publication, snapshot, block.plan_block(snapshot, ONE, place.now, "stolen")).snapshot
    item = only(MIRROR, AGAIN, blocked)
    assert item.action is Action.FAILED
    assert isinstance(item.error, PublisherError)
    assert item.error.reason.endswith("is blocked: stolen")
    assert item.error.hint == f"to lift the block, run: publisher unblock {ONE}"


def test_a_block_of_another_branch_is_carried_to_the_same_content() -> None:
    there = after(EMPTY, (ROCKY, FIRST))
    other = there.with_records(block.plan_block(there, ROCKY.name, 2000, "stolen").changed)
    merged = lineage.carry_blocks(after(EMPTY, (MIRROR, AGAIN)), other)
    assert states(merged, MIRROR.name) == [(TWO, BLOCKED)]


def test_a_signature_of_one_manifest_is_none_of_another() -> None:
    signed = replace(
        FIRST, provenance={AMD64: Provenance(signer=RequiredSigner("release@example.org", "https://login.example.org"))}
    )
    before = after(EMPTY, (ROCKY, signed))
    current = before.records[ROCKY.name].current("amd64")
    assert current is not None
    assert current.signed is not None
    (version,) = after(before, (MIRROR, AGAIN)).records[MIRROR.name].platforms["amd64"]
    assert version.signed is None
    assert version.sif is not None


def test_a_form_that_the_content_lacks_is_built() -> None:
    before = after(EMPTY, (entry("hub.example.org/htc/rocky:9", formats=["sif"]), FIRST))
    assert only(MIRROR, AGAIN, before).targets[0].published is None


def test_the_sandbox_of_another_tool_is_nobody_elses_content() -> None:
    old = Version(ONE, sandbox=".images/ab/" + "c" * 62, sif=None, published=1, notes={ADOPTED: "by its layers"})
    adopted = transitions.add_sif(old, replace(built("one"), config=CONFIG), ("sandbox", "sif"), 1000)
    assert adopted.config == CONFIG
    record = Record(ROCKY.name, "hub.example.org/htc/rocky:9", ONE, {"amd64": [adopted]})
    before = EMPTY.with_records({ROCKY.name: record})
    assert only(MIRROR, AGAIN, before).targets[0].published is None
    blocked = before.with_records(block.plan_block(before, ONE, 2000, "stolen").changed)
    assert only(MIRROR, AGAIN, blocked).action is Action.FAILED, "but a block is of the image"


def test_a_rollback_does_not_stop_at_the_same_content() -> None:
    before = after(EMPTY, (ROCKY, answer("older", content="older")), (ROCKY, FIRST), (ROCKY, AGAIN))
    back = transitions.roll_back(before.records[ROCKY.name], 2000)
    assert back.platforms["amd64"][0].digest == digest("older linux/amd64")
    alone = after(EMPTY, (ROCKY, FIRST), (ROCKY, AGAIN))
    with pytest.raises(UsageError, match="no previous version"):
        transitions.roll_back(alone.records[ROCKY.name], 2000)


def test_one_content_is_verified_once_and_restored_from_its_newest_manifest() -> None:
    there = after(EMPTY, (ROCKY, FIRST), (ROCKY, AGAIN))
    assert [build.version.digest for build in select_builds(there, ())] == [TWO]
    assert [build.version.digest for build in select_share(there, "", 9)] == [TWO]


def test_what_was_published_before_configs_were_recorded_stays_where_it_is() -> None:
    before = after(EMPTY, (ROCKY, answer("gzip")))
    assert only(ROCKY, FIRST, before).action is Action.UNCHANGED
    more = only(entry("hub.example.org/htc/rocky:9", formats=["sandbox"]), FIRST, before)
    assert [(target.published is not None, target.content) for target in more.targets] == [(True, ONE)]
