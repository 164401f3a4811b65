from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.contract.records import ADOPTED, EXPIRING, Record, Version
from publisher.errors import UsageError
from publisher.maintain import block, gc
from publisher.maintain.adoption import judge, undo
from publisher.plan.retention import RetentionLimits
from publisher.state import paths
from tests.support.publisher.built_values import AMD64, ARM64, answer, digest, entry
from tests.support.publisher.prepublished import NAME, Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.maintain.adoption.undo import AdoptionUndo
    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot

DAY = 86400
ROCKY = "htc/rocky:9"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def publication(place: Place) -> Publication:
    return place.publication()


def adopted(place: Place, publication: Publication, *names: str) -> dict[str, Path]:
    """Lay names out as the older tool does, adopt them, and return their sandboxes."""
    snapshot, _ = publication.open()
    where, records = {}, {}
    for name in names:
        content = digest(f"old {name}")[7:]
        path = f".images/{content[:2]}/{content[2:]}"
        where[name] = place.repository.root / path
        where[name].mkdir(parents=True)
        link = place.repository.root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/cvmfs/{NAME}/{path}")
        version = Version(f"sha256:{content}", sandbox=path, sif=None, published=int(place.now), notes={ADOPTED: "so"})
        records[name] = Record(name, f"docker.io/{name}", f"sha256:{content}", {"amd64": [version]})
    publication.change(snapshot, records, relink=False)
    return where


def undone(place: Place, publication: Publication) -> AdoptionUndo:
    found = planned(place, publication)
    published = undo.apply(publication, found)
    assert published.behind is None
    return found


def planned(place: Place, publication: Publication) -> AdoptionUndo:
    return undo.plan_undo(opened(publication), place.repository.links())


def opened(publication: Publication) -> Snapshot:
    return publication.open()[0]


def shows(place: Place, name: str, sandbox: Path) -> bool:
    """By its text: nothing is mounted at ``/cvmfs`` here."""
    text = os.readlink(place.repository.root / name)  # noqa: PTH115 - its text
    path = str(sandbox.relative_to(place.repository.root))
    return text in {f"/cvmfs/{NAME}/{path}", paths.link_target(name, path)}


def test_an_unused_adoption_is_undone_without_a_trace(place: Place, publication: Publication) -> None:
    place.publish(publication, (entry("htc/own:1"), answer("own")))
    before = place.repository.links()
    there = adopted(place, publication, ROCKY, "htc/debian:12")
    links = place.repository.links()
    found = undone(place, publication)
    assert sorted(found.names) == ["htc/debian:12", ROCKY]
    assert found.lines == ["2 adopted name(s); 1 other name(s) stay published"]
    assert place.repository.links() == links, "none was touched"
    assert links.keys() - before.keys() == there.keys()
    assert opened(publication).records.keys() == {"htc/own:1"}
    place.in_both()
    assert len(judge.find_old_links(links, NAME)) == 3, "and it can be done again"


def test_later_builds_of_adopted_names_stay_and_their_links_are_set_back(place: Place, publication: Publication) -> None:
    there = adopted(place, publication, ROCKY)
    place.publish(publication, (entry(ROCKY, [AMD64, ARM64]), answer("new", [AMD64, ARM64])))
    new = [digest(f"new linux/{platform}") for platform in ("amd64", "arm64")]
    found = undone(place, publication)
    assert list(found.links) == [ROCKY]
    assert shows(place, ROCKY, there[ROCKY])
    assert place.repository.links().keys() == {ROCKY}, "there was none for arm64"
    assert found.left == tuple(sorted(map(paths.sandbox_path, new)))
    for one in new:
        assert place.repository.exists(paths.sandbox_path(one)), "jobs are running there"
        assert not place.repository.exists(paths.file_index_path(one))
    assert opened(publication).records == {}
    assert [one.name for one in judge.find_old_links(place.repository.links(), NAME)] == [ROCKY]


def test_data_shared_with_another_name_stays(place: Place, publication: Publication) -> None:
    adopted(place, publication, ROCKY)
    place.publish(publication, (entry(ROCKY), answer("new")), (entry("htc/other:9"), answer("new")))
    found = undone(place, publication)
    assert (found.left, found.removals) == ((), ())
    assert place.repository.exists("htc/other:9")
    assert opened(publication).records.keys() == {"htc/other:9"}


def test_a_removed_link_is_set_back_while_its_data_exists(place: Place, publication: Publication) -> None:
    there = adopted(place, publication, ROCKY)
    snapshot = publication.publish(opened(publication), [], [ROCKY]).snapshot
    assert [version.state for _, version in snapshot.records[ROCKY].versions()] == [EXPIRING]
    place.now += 14 * DAY
    gc.collect(publication, snapshot, int(place.now), RetentionLimits(14 * DAY, 100, 10**12))
    assert place.repository.links() == {}
    undone(place, publication)
    assert shows(place, ROCKY, there[ROCKY])


def test_undo_is_refused_for_ever_after_the_first_removal(place: Place, publication: Publication) -> None:
    adopted(place, publication, ROCKY, "htc/debian:12")
    place.publish(publication, (entry(ROCKY), answer("new")))
    place.now += 14 * DAY
    gc.collect(publication, opened(publication), int(place.now), RetentionLimits(14 * DAY, 100, 10**12))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"a build of htc/rocky:9 was removed on 2027-01-29"):
            planned(place, publication)
        place.publish(place.publication(), (entry("htc/another:1"), answer("another")))
        publication.change(opened(publication), {})
        place.now += DAY


def test_blocking_an_adopted_image_counts_as_a_removal(place: Place, publication: Publication) -> None:
    adopted(place, publication, ROCKY)
    snapshot = opened(publication)
    block.apply(publication, snapshot, block.plan_block(snapshot, ROCKY, int(place.now), "stolen data"))
    with pytest.raises(UsageError, match="htc/rocky:9 was removed"):
        planned(place, publication)


def test_garbage_collection_of_other_names_does_not_prevent_undo(place: Place, publication: Publication) -> None:
    adopted(place, publication, ROCKY)
    for text in ("one", "two"):
        place.publish(publication, (entry("htc/own:1"), answer(text)))
    place.now += 14 * DAY
    gc.collect(publication, opened(publication), int(place.now), RetentionLimits(14 * DAY, 100, 10**12))
    assert planned(place, publication).names == (ROCKY,)


def test_a_name_with_a_blocked_build_keeps_its_record(place: Place, publication: Publication) -> None:
    adopted(place, publication, ROCKY, "htc/debian:12")
    place.publish(publication, (entry(ROCKY), answer("bad")))
    snapshot = opened(publication)
    block.apply(publication, snapshot, block.plan_block(snapshot, ROCKY, int(place.now), "stolen data"))
    found = undone(place, publication)
    assert found.names == ("htc/debian:12",)
    assert found.lines[0] == "htc/rocky:9 keeps its record: a build of it is blocked, and execution points must refuse it"
    assert opened(publication).records.keys() == {ROCKY}


def test_undo_is_refused_if_nothing_was_adopted(place: Place, publication: Publication) -> None:
    place.publish(publication, (entry("htc/own:1"), answer("own")))
    with pytest.raises(UsageError, match="no published image was adopted"):
        planned(place, publication)
