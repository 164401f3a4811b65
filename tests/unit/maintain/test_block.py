from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract.records import BLOCKED, CURRENT, SUPERSEDED, Record, Version
from publisher.errors import OriginError, RepositoryError, UsageError
from publisher.maintain import block
from publisher.plan.make import make_plan
from publisher.plan.model import Action
from publisher.state import transitions
from publisher.state.paths import file_index_path, sandbox_path
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import AMD64, ARM64, answer, digest, entry
from tests.support.publisher.prepublished import Place, Refusing

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot

ROCKY, LATEST = "htc/rocky:9", "htc/rocky:latest"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def block_subject(place: Place, publication: Publication, what: str, *, history: bool = False) -> Snapshot:
    snapshot, _ = publication.open()
    found = block.plan_block(snapshot, what, place.now, "stolen data", history=history)
    return block.apply(publication, snapshot, found).snapshot


def states(snapshot: Snapshot, name: str, platform: str = "amd64") -> list[tuple[str, str]]:
    return [(version.digest, version.state) for version in snapshot.records[name].platforms[platform]]


def test_all_data_of_a_blocked_image_goes_at_once_and_its_record_stays(place: Place) -> None:
    publication = place.publication()
    place.tables = True
    place.publish(publication, (entry(ROCKY, [AMD64, ARM64]), answer("one", [AMD64, ARM64])))
    assert len(list(place.origin.names("sif"))) == 4, "two SIFs and their chunk tables"
    snapshot = block_subject(place, publication, ROCKY)
    assert place.repository.links() == {}
    assert list(place.origin.names("sif")) == []
    for platform in ("amd64", "arm64"):
        bad = digest(f"one linux/{platform}")
        assert not place.repository.exists(sandbox_path(bad))
        assert not place.repository.exists(file_index_path(bad))
        (version,) = snapshot.records[ROCKY].platforms[platform]
        assert (version.state, version.reason, version.sandbox) == (BLOCKED, "stolen data", sandbox_path(bad))
    place.in_both()


def test_an_image_is_blocked_even_if_its_sandbox_cannot_be_removed(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")))
    path = sandbox_path(digest("one linux/amd64"))
    place.repository = Refusing(place.repository.root, path)
    with pytest.raises(RepositoryError, match=f"{path} belongs to another user"):
        block_subject(place, place.publication(), ROCKY)
    snapshot, _ = publication.open()
    assert states(snapshot, ROCKY) == [(digest("one linux/amd64"), BLOCKED)]
    assert list(place.origin.names("sif")) == []
    place.in_both()


def test_an_image_is_blocked_under_every_name_that_has_it(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")), (entry(LATEST), answer("one")), (entry("a/b:1"), answer("one")))
    place.publish(publication, (entry("a/b:1"), answer("two")))
    snapshot = block_subject(place, publication, ROCKY)
    assert states(snapshot, LATEST) == [(digest("one linux/amd64"), BLOCKED)]
    assert states(snapshot, "a/b:1") == [(digest("two linux/amd64"), CURRENT), (digest("one linux/amd64"), BLOCKED)]
    assert list(place.repository.links()) == ["a/b:1"]
    assert not place.repository.exists(sandbox_path(digest("one linux/amd64")))


def test_another_architecture_does_not_stand_in_for_a_blocked_one(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY, [AMD64, ARM64]), answer("one", [AMD64, ARM64])))
    block_subject(place, publication, digest("one linux/amd64"))
    assert list(place.repository.links()) == [".arch/arm64/htc/rocky:9"], "not the plain name, which amd64's users name"


def test_earlier_builds_are_blocked_only_with_history(place: Place) -> None:
    publication = place.publication()
    for text in ("one", "two"):
        place.publish(publication, (entry(ROCKY), answer(text)))
    assert states(block_subject(place, publication, ROCKY), ROCKY)[1] == (digest("one linux/amd64"), SUPERSEDED)
    assert states(block_subject(place, publication, ROCKY, history=True), ROCKY)[1] == (digest("one linux/amd64"), BLOCKED)
    with pytest.raises(UsageError, match="nothing to block"):
        block_subject(place, publication, ROCKY, history=True)


def test_a_plan_skips_a_blocked_name_whatever_its_registry_has(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")))
    snapshot = block_subject(place, publication, ROCKY)
    for text in ("one", "two"):
        (item,) = make_plan([entry(ROCKY)], {ROCKY: answer(text)}, snapshot).items
        assert (item.action, item.reason) == (Action.BLOCKED, "blocked by the operator: stolen data")
    assert make_plan([], {}, snapshot).removals == (), "or the block would go with the name"
    (other,) = make_plan([entry("a/b:1")], {"a/b:1": answer("one")}, snapshot).items
    assert other.action is Action.FAILED


def test_an_unblocked_image_is_published_again_by_the_next_run(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")), (entry(LATEST), answer("one")))
    snapshot = block_subject(place, publication, ROCKY)
    lifted = block.apply(publication, snapshot, block.plan_unblock(snapshot, LATEST)).snapshot
    assert lifted.records == {}
    again = place.publish(publication, (entry(ROCKY), answer("one"))).snapshot
    assert states(again, ROCKY) == [(digest("one linux/amd64"), CURRENT)]
    assert place.repository.exists(ROCKY)
    with pytest.raises(UsageError, match="not blocked"):
        block.plan_unblock(again, ROCKY)
    with pytest.raises(UsageError, match="nothing is published"):
        block.plan_block(again, "a/nobody:1", 1, "why")


def test_an_old_sandbox_that_another_image_shares_stays(place: Place) -> None:
    """The older tool made one directory of images that differ in their configuration alone."""
    publication = place.publication()
    snapshot = place.publish(publication, (entry(ROCKY), answer("one")), (entry("a/b:1"), answer("two"))).snapshot
    path = sandbox_path(digest("two linux/amd64"))
    value = {**snapshot.records[ROCKY].platforms["amd64"][0].to_json(), "sandbox": path}
    shared = Record(ROCKY, f"docker.io/{ROCKY}", digest("one"), {"amd64": [Version.from_json(value)]})
    publication.change(snapshot, {ROCKY: shared})
    block_subject(place, publication, ROCKY)
    assert list(place.repository.links()) == ["a/b:1"]
    assert place.repository.exists("a/b:1")


def test_the_sif_stays_if_the_origins_manifest_cannot_be_updated(place: Place) -> None:
    class Stuck(DirectoryOrigin):
        def replace(self, name: str, content: bytes) -> None:
            raise OriginError(f"{name} ({len(content)} bytes) is refused")

    place.publish(place.publication(), (entry(ROCKY), answer("one")))
    stuck = place.publication(Stuck(place.origin.root))
    snapshot, _ = stuck.open()
    published = block.apply(stuck, snapshot, block.plan_block(snapshot, ROCKY, place.now, "stolen data"))
    assert published.behind is not None
    assert len(list(place.origin.names("sif"))) == 1
    assert place.repository.links() == {}


# --- rolling back


def test_a_name_goes_back_version_by_version_and_forward_again_at_once(place: Place) -> None:
    publication = place.publication()
    for text in ("one", "two", "three"):
        place.publish(publication, (entry(ROCKY), answer(text)))
        place.now += 1
    snapshot, _ = publication.open()
    for text in ("two", "one"):
        snapshot = publication.change(snapshot, {ROCKY: transitions.roll_back(snapshot.records[ROCKY], place.now)}).snapshot
        assert (place.repository.root / ROCKY / "content").read_text() == digest(f"{text} linux/amd64")
        assert states(snapshot, ROCKY)[0] == (digest(f"{text} linux/amd64"), CURRENT)
        assert [state for _, state in states(snapshot, ROCKY)[1:]] == [SUPERSEDED] * 2
    with pytest.raises(UsageError, match="no previous version"):
        transitions.roll_back(snapshot.records[ROCKY], place.now)
    (item,) = make_plan([entry(ROCKY)], {ROCKY: answer("three")}, snapshot).items
    assert (item.action, item.reason) == (Action.HELD, "rolled back by the operator")
    assert "--undo" in make_plan([entry(ROCKY)], {ROCKY: answer("three")}, snapshot).notes[0]
    back = publication.change(snapshot, {ROCKY: transitions.undo_rollback(snapshot.records[ROCKY], place.now)}).snapshot
    assert states(back, ROCKY)[0] == (digest("three linux/amd64"), CURRENT)
    assert back.records[ROCKY].digest == digest("three")
    assert (place.repository.root / ROCKY / "content").read_text() == digest("three linux/amd64")
    (item,) = make_plan([entry(ROCKY)], {ROCKY: answer("three")}, publication.open()[0]).items
    assert (item.action, item.reason) == (Action.UNCHANGED, "current")
    with pytest.raises(UsageError, match="not rolled back"):
        transitions.undo_rollback(back.records[ROCKY], place.now)


def test_a_rollback_outlives_a_restart_and_the_removal_of_the_later_build(place: Place) -> None:
    publication = place.publication()
    for text in ("one", "two"):
        place.publish(publication, (entry(ROCKY), answer(text)))
    snapshot, _ = publication.open()
    publication.change(snapshot, {ROCKY: transitions.roll_back(snapshot.records[ROCKY], place.now)})
    snapshot, _ = place.publication().open()
    bare = transitions.drop_versions(snapshot.records[ROCKY], snapshot.records[ROCKY].platforms["amd64"][1:])
    restored = transitions.undo_rollback(bare, place.now)
    assert restored.rollback is None
    assert states(snapshot.with_records({ROCKY: restored}), ROCKY) == [(digest("one linux/amd64"), CURRENT)]
    (item,) = make_plan([entry(ROCKY)], {ROCKY: answer("two")}, snapshot.with_records({ROCKY: restored})).items
    assert item.action is Action.CHANGED, "the next run builds it anew"


@pytest.mark.parametrize("ended", [False, True])
def test_a_rolled_back_name_that_left_the_list_and_returns_stays_rolled_back(place: Place, ended: bool) -> None:
    publication = place.publication()
    for text in ("one", "two"):
        place.publish(publication, (entry(ROCKY), answer(text)))
    snapshot, _ = publication.open()
    held = publication.change(snapshot, {ROCKY: transitions.roll_back(snapshot.records[ROCKY], place.now)}).snapshot
    left = publication.publish(held, [], [ROCKY]).snapshot
    if ended:
        place.now += 14 * 86400
        left = publication.change(left, {ROCKY: transitions.supersede_expired(left.records[ROCKY], place.now)}).snapshot
        assert ROCKY not in place.repository.links()
    back = place.publish(publication, (entry(ROCKY), answer("three"))).snapshot
    assert states(back, ROCKY) == states(held, ROCKY)
    assert back.records[ROCKY].current("amd64").until is None  # type: ignore[union-attr]  # it is current
    assert (back.records[ROCKY].rollback, back.records[ROCKY].digest) == (
        held.records[ROCKY].rollback,
        held.records[ROCKY].digest,
    )
    assert (place.repository.root / ROCKY / "content").read_text() == digest("one linux/amd64")
    (item,) = make_plan([entry(ROCKY)], {ROCKY: answer("three")}, back).items
    assert (item.action, item.reason) == (Action.HELD, "rolled back by the operator")


def test_a_rolled_back_build_does_not_return_if_its_replacement_is_gone(place: Place) -> None:
    publication = place.publication()
    for text in ("one", "two"):
        place.publish(publication, (entry(ROCKY), answer(text)))
    snapshot, _ = publication.open()
    held = transitions.roll_back(snapshot.records[ROCKY], place.now)
    bare = snapshot.with_records({ROCKY: transitions.drop_versions(held, held.platforms["amd64"][:1])})
    (item,) = make_plan([entry(ROCKY)], {ROCKY: answer("two")}, bare).items
    assert item.action is Action.HELD


def test_the_other_platform_of_a_blocked_name_comes_back_with_its_entry(place: Place) -> None:
    publication = place.publication()
    both, said = entry(ROCKY, [AMD64, ARM64]), answer("one", [AMD64, ARM64])
    snapshot = place.publish(publication, (both, said)).snapshot
    blocked = block.plan_block(snapshot, digest("one linux/amd64"), place.now, "stolen data")
    snapshot = block.apply(publication, snapshot, blocked).snapshot
    publication.publish(snapshot, [], [ROCKY])
    for moved in (said, answer("two", [AMD64, ARM64])):
        (item,) = make_plan([both], {ROCKY: moved}, publication.open()[0]).items
        assert [target.digest for target in item.targets] == [digest("one linux/arm64")]
    back = place.publish(publication, (both, said)).snapshot.records[ROCKY]
    assert [(platform, version.state) for platform, version in back.versions()] == [("amd64", BLOCKED), ("arm64", CURRENT)]
    assert list(place.repository.links()) == [f".arch/arm64/{ROCKY}"]
