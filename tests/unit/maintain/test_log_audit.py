"""The publication log of real publications, what it says, and what its verification finds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.maintain import block, gc
from publisher.plan.retention import RetentionLimits
from publisher.publish.manifest.witness import OriginWitness
from publisher.state import snapshot as snapshots
from publisher.state import transitions
from publisher.state.publication_log import LogEntry, entry_name
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import AMD64, ARM64, answer, digest, entry
from tests.support.publisher.prepublished import NAME, NOW, Place
from tests.support.publisher.published_log import problems, read_log

if TYPE_CHECKING:
    from pathlib import Path

ROCKY = "htc/rocky:9"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def said(place: Place) -> list[tuple[str, str]]:
    """Return name and word of each change of the last entry; assert that the log is as the manifest is."""
    assert problems(place) == []
    return [(change.name, change.why) for change in read_log(place).entries[-1].changes]


def test_the_log_says_what_was_done_when_by_whom_and_why(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")), (entry("a/x:1"), answer("x")))
    assert said(place) == [("a/x:1", "new"), (ROCKY, "new")]
    place.now += 100
    place.publish(publication, (entry(ROCKY, [AMD64, ARM64]), answer("two", [AMD64, ARM64])))
    assert said(place) == [(ROCKY, "changed"), (ROCKY, "new")]
    last = read_log(place).entries[-1]
    assert (last.serial, last.time, last.who, last.repository) == (101, NOW + 100, "tester@host", NAME)
    assert last.changes[0].digest == digest("two linux/amd64")

    snapshot = publication.open()[0]
    back = transitions.roll_back(snapshot.records[ROCKY], place.now)
    snapshot = publication.change(snapshot, {ROCKY: back}).snapshot
    assert said(place) == [(ROCKY, "rollback")]
    snapshot = publication.change(snapshot, {ROCKY: transitions.undo_rollback(back, place.now)}).snapshot
    assert said(place) == [(ROCKY, "rollback undone")]

    snapshot = block.apply(publication, snapshot, block.plan_block(snapshot, "a/x:1", place.now, "stolen data")).snapshot
    assert said(place) == [("a/x:1", "block")]
    assert read_log(place).entries[-1].changes[0].reason == "stolen data"
    snapshot = block.apply(publication, snapshot, block.plan_unblock(snapshot, "a/x:1")).snapshot
    assert said(place) == [("a/x:1", "unblock")]

    snapshot = publication.publish(snapshot, [], [ROCKY]).snapshot
    assert set(said(place)) == {(ROCKY, "leaving")}
    for _ in range(3):
        place.now += 20 * 86400
        snapshot = gc.collect(publication, snapshot, place.now, RetentionLimits(86400.0, 100, 10**12), dry_run=False).snapshot
        assert problems(place) == []
    words = {change.why for entry in read_log(place).entries for change in entry.changes if change.name == ROCKY}
    assert {"ended", "removed"} <= words
    assert ROCKY not in snapshot.records


def test_signing_again_is_an_entry_without_changes(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")))
    publication.publish(publication.open()[0], [])
    assert said(place) == []
    assert len(read_log(place).entries) == 2


def test_a_log_begins_with_what_was_published_before_it(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")), (entry("a/x:1"), answer("x")))
    snapshot = replace(publication.open()[0], log=None)
    publication.publish(snapshot, [], ["a/x:1"])
    assert said(place) == [("a/x:1", "existing"), (ROCKY, "existing"), ("a/x:1", "leaving")]
    assert len(read_log(place).entries) == 1


def test_the_origin_has_the_log_too_and_gets_what_it_lacks(place: Place) -> None:
    publication = place.publication()
    for number in range(3):
        place.publish(publication, (entry(f"a/x:{number}"), answer(str(number))))
    names = [f"manifest/{entry_name(serial)}" for serial in (1, 2, 3)]
    assert list(place.origin.names("manifest/log")) == names
    for name in names[1:]:
        place.origin.remove(name)
    place.origin.remove("manifest/index.json")
    place.publication().open()
    assert list(place.origin.names("manifest/log")) == names


def test_entries_that_the_repository_lost_come_back_from_the_origin(place: Place) -> None:
    publication = place.publication()
    for number in range(3):
        place.publish(publication, (entry(f"a/x:{number}"), answer(str(number))))
    for serial in (2, 3):
        (place.repository.root / ".publisher" / entry_name(serial)).unlink()
    assert problems(place) == [f"{entry_name(3)} is missing"]
    place.publish(publication, (entry("a/y:1"), answer("y")))
    assert problems(place) == []


@pytest.mark.parametrize(
    ("serial", "problem"),
    [(2, f"{entry_name(2)} was changed"), (3, f"{entry_name(3)} was changed")],
)
def test_an_entry_that_was_changed_is_found(place: Place, serial: int, problem: str) -> None:
    publication = place.publication()
    for number in range(3):
        place.publish(publication, (entry(f"a/x:{number}"), answer(str(number))))
    path = place.repository.root / ".publisher" / entry_name(serial)
    path.write_bytes(path.read_bytes().replace(b"tester", b"nobody"))
    (found,) = problems(place)
    assert found.startswith(problem)


def test_a_manifest_that_says_something_else_than_its_log_is_found(place: Place) -> None:
    """As somebody makes who writes a manifest past the publisher, and passes the log on as it is."""
    publication = place.publication()
    place.publish(publication, (entry(ROCKY), answer("one")), (entry("a/x:1"), answer("x")))
    snapshot = publication.open()[0]
    quiet = replace(snapshot.without(["a/x:1"]), replaced={})
    with place.repository.transaction() as transaction:
        made = snapshots.make_revision(quiet, place.signer, serial=2, now=place.now)
        for name, content in {**made.shards, entry_name(2): made.log, "index.json": made.index}.items():
            transaction.write(f".publisher/{name}", content)
    assert problems(place) == [f"a/x:1 amd64 is not published, but {digest('x linux/amd64')} according to the log"]


def test_an_entry_of_other_content_or_another_place_is_refused(place: Place) -> None:
    place.publish(place.publication(), (entry(ROCKY), answer("one")))
    content = (place.repository.root / ".publisher" / entry_name(1)).read_bytes()
    assert LogEntry.parse(content).content() == content
    for wrong in (b"{}", b"[]", content.replace(b'"why":"new"', b'"why":"odd"'), content.replace(b"sha256:", b"sha512:")):
        with pytest.raises(ManifestError):
            LogEntry.parse(wrong)


def test_a_manifest_without_a_log_is_reported(place: Place) -> None:
    place.publish(place.publication(), (entry(ROCKY), answer("one")))
    index = place.index()
    index.log = ""
    path = place.repository.root / ".publisher/index.json"
    payload = index.payload()
    path.write_bytes(manifest.seal(payload, place.signer.sign(payload)))
    assert problems(place) == ["the manifest names no log; the next publication begins one"]


def test_a_witness_that_has_everything_has_nothing_to_say(place: Place, tmp_path: Path) -> None:
    place.witness = OriginWitness(DirectoryOrigin(tmp_path / "witness"))
    for number in range(3):
        place.publish(place.publication(), (entry(f"a/x:{number}"), answer(str(number))))
    assert problems(place, place.witness) == []
    assert len(list(place.witness.indexes())) == 3
