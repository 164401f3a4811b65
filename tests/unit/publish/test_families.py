"""Entries with variants through a run: what is published, and what block, rollback, retention and repair do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.cli.render.status import status_lines
from publisher.contract.records import BLOCKED, CURRENT, EXPIRING, SUPERSEDED, Record
from publisher.maintain import block, lost_sifs
from publisher.plan.make import make_plan
from publisher.plan.model import Action
from publisher.state import transitions
from publisher.state.paths import sandbox_path
from tests.support.publisher.built_values import answer, digest
from tests.support.publisher.lists import listed, parse
from tests.support.publisher.prepublished import NOW, Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.images.reader import Entry
    from publisher.state.snapshot import Snapshot

NAME, V3, CUDA = "a/b:1", "amd64,x86-64-v3", "amd64,x86-64-v3,cuda>=12.0"
PLAIN_BUILD, V3_BUILD, CUDA_BUILD = (digest(f"one {platform}") for platform in ("linux/amd64", f"linux/{V3}", f"linux/{CUDA}"))


def family(*variants: tuple[str, str]) -> Entry:
    lines = "".join(
        f"\n          - {{image: '{image}'{f', when: {when!r}' if when else ''}}}"
        for image, when in variants or (("a/b:cpu", ""), ("a/b:v3", "x86-64-v3"), ("c/cuda:1", "x86-64-v3,cuda>=12.0"))
    )
    (entry,) = parse(listed(f"image: a/b:1\n        variants:{lines}"))
    return entry


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.publish(place.publication(), (family(), answer("one", family().platforms)))
    return place


def snapshot_of(place: Place) -> Snapshot:
    return place.publication().open()[0]


def states(record: Record) -> dict[str, list[str]]:
    return {platform: [version.state for version in versions] for platform, versions in record.platforms.items()}


def test_each_variant_is_a_build_under_one_name(place: Place) -> None:
    record = snapshot_of(place).records[NAME]
    assert {platform: version.digest for platform, version in record.versions()} == {
        "amd64": PLAIN_BUILD,
        V3: V3_BUILD,
        CUDA: CUDA_BUILD,
    }
    assert {platform: version.reference for platform, version in record.versions()} == {
        "amd64": "docker.io/a/b:cpu",
        V3: "docker.io/a/b:v3",
        CUDA: "docker.io/c/cuda:1",
    }
    assert place.repository.links() == {
        NAME: f"../{sandbox_path(PLAIN_BUILD)}",
        f".arch/{V3}/{NAME}": f"../../../{sandbox_path(V3_BUILD)}",
        f".arch/{CUDA}/{NAME}": f"../../../{sandbox_path(CUDA_BUILD)}",
    }
    place.in_both()


def test_the_status_of_the_name_shows_each_variant(place: Place) -> None:
    said = "\n".join(status_lines(snapshot_of(place).records[NAME], "images.example.org"))
    for platform, build, reference in (
        ("amd64", PLAIN_BUILD, "a/b:cpu"),
        (V3, V3_BUILD, "a/b:v3"),
        (CUDA, CUDA_BUILD, "c/cuda:1"),
    ):
        assert f"  {platform}  current since" in said
        assert f"    reference docker.io/{reference}\n    digest    {build}\n" in said


def test_a_family_that_is_current_is_left_alone_and_only_what_changed_is_built(place: Place) -> None:
    before, entry = snapshot_of(place), family()
    said = answer("one", entry.platforms)
    (item,) = make_plan([entry], {NAME: said}, before).items
    assert item.action is Action.UNCHANGED
    moved = {**said.digests, entry.platforms[1]: digest("newer")}
    said = type(said)(digest("two"), moved, said.offered)
    (item,) = make_plan([entry], {NAME: said}, before).items
    assert [(str(target.platform), target.digest) for target in item.targets] == [(f"linux/{V3}", digest("newer"))]
    assert item.reason.startswith(f"linux/{V3}: changed from")


def test_without_a_variant_for_all_hosts_the_plain_name_leads_nowhere(tmp_path: Path) -> None:
    place, entry = Place(tmp_path), family(("a/b:v3", "x86-64-v3"), ("a/b:arm", "arm64,gpu"))
    place.publish(place.publication(), (entry, answer("one", entry.platforms)))
    assert set(place.repository.links()) == {f".arch/{V3}/{NAME}", f".arch/arm64,gpu/{NAME}"}


def test_a_variant_that_left_the_list_can_be_used_for_the_grace(place: Place) -> None:
    entry = family(("a/b:cpu", ""), ("a/b:v3", "x86-64-v3"))
    said = answer("one", entry.platforms)
    (item,) = make_plan([entry], {NAME: said}, snapshot_of(place)).items
    assert (item.action, item.leaving) == (Action.CHANGED, (CUDA,))
    place.publish(place.publication(), (entry, said))
    record = snapshot_of(place).records[NAME]
    assert states(record) == {"amd64": [CURRENT], V3: [CURRENT], CUDA: [EXPIRING]}
    later = transitions.supersede_expired(record, NOW + 15 * 86400)
    assert later.current(CUDA) is None
    assert later.current(V3) is not None


def test_block_takes_one_variant_or_all_of_them(place: Place) -> None:
    publication = place.publication()
    snapshot, _ = publication.open()
    snapshot = block.apply(publication, snapshot, block.plan_block(snapshot, CUDA_BUILD, NOW, "malware")).snapshot
    assert states(snapshot.records[NAME]) == {"amd64": [CURRENT], V3: [CURRENT], CUDA: [BLOCKED]}
    assert not place.repository.exists(sandbox_path(CUDA_BUILD))
    assert set(place.repository.links()) == {NAME, f".arch/{V3}/{NAME}"}
    snapshot = block.apply(publication, snapshot, block.plan_block(snapshot, NAME, NOW, "malware")).snapshot
    assert states(snapshot.records[NAME]) == {"amd64": [BLOCKED], V3: [BLOCKED], CUDA: [BLOCKED]}


def test_a_rollback_takes_all_variants_back(place: Place) -> None:
    place.publish(place.publication(), (family(), answer("two", family().platforms)))
    record = snapshot_of(place).records[NAME]
    assert states(record)[V3] == [CURRENT, SUPERSEDED]
    back = transitions.roll_back(record, NOW)
    assert {platform: versions[0].digest for platform, versions in back.platforms.items()} == {
        "amd64": PLAIN_BUILD,
        V3: V3_BUILD,
        CUDA: CUDA_BUILD,
    }


def test_a_lost_sif_of_a_variant_is_fetched_from_the_variants_own_repository(place: Place) -> None:
    snapshot = snapshot_of(place)
    (build,) = [one for one in lost_sifs.select_share(snapshot, "", 100) if one.platform == CUDA]
    item = lost_sifs._item(build, build.version.reference or "")
    assert str(item.entry.reference) == "docker.io/c/cuda:1"
    assert str(item.targets[0].platform) == "linux/amd64"


def test_one_image_may_be_two_variants() -> None:
    entry = family(("a/b:gpu", "nvidia-gpu"), ("a/b:gpu", "amd-gpu"))
    (part,) = entry.parts()
    assert len(part.platforms) == 1
