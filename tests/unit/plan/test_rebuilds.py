"""A manifest that is built a second time, for another form, by newer tools: what stands and what is said of it stay one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.publish.staged import StagedEntry
from publisher.state import paths as layout
from publisher.targets import published_index
from tests.support.publisher.built_values import AMD64, ARM64, answer, digest, entry
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from publisher.contract.records import Version
    from publisher.publish.publication import Publication
    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot

ROCKY, LATEST = "htc/rocky:9", "htc/rocky:latest"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def by_newer_tools(made: BuiltImage, where: Path) -> BuiltImage:
    paths = [where / f"newer.{made.sha256}.{kind}" for kind in ("sif", "files")]
    for path in paths:
        path.write_text("newer")
    return replace(made, sif=paths[0], file_index=paths[1], unpacked_size=12, files=34, tools={"mksquashfs": "4.7"})


def rebuild(place: Place, publication: Publication, name: str, formats: Collection[str], said: str = "one") -> Snapshot:
    snapshot, _ = publication.open()
    staged = place.stage(entry(name, formats=formats), answer(said), snapshot)
    builds = {manifest: by_newer_tools(build, place.where) for manifest, build in staged.builds.items()}
    assert builds, "or it is no rebuild"
    published = publication.publish(snapshot, [StagedEntry(staged.item, builds)])
    assert not published.failed
    return published.snapshot


def versions(place: Place, snapshot: Snapshot) -> list[Version]:
    """All that are listed; the file index that each names is the published one."""
    found = [version for record in snapshot.records.values() for _, version in record.versions()]
    for version in found:
        published_index.check(place.repository, version)
    return found


@pytest.mark.parametrize("formats", [("sandbox", "sif"), ("sif",)])
def test_a_published_sandbox_keeps_its_file_index_and_sizes(place: Place, formats: tuple[str, ...]) -> None:
    publication = place.publication()
    place.publish(publication, (entry(ROCKY, formats=["sandbox"]), answer("one")))
    found = versions(place, rebuild(place, publication, ROCKY, formats))
    assert found[0].sif is not None
    assert {(one.unpacked_size, one.files) for one in found} == {(710, 3)}
    assert {one.tools["mksquashfs"] for one in found if one.sandbox is not None} == {"4.5.1"}
    assert (place.repository.root / layout.sandbox_path(digest("one linux/amd64")) / "content").read_text() != "newer"


def test_a_new_sandbox_gives_every_version_the_file_index_of_its_own_build(place: Place) -> None:
    publication = place.publication()
    sif = ["sif"]
    place.publish(publication, (entry(ROCKY, formats=sif), answer("one")), (entry(LATEST, formats=sif), answer("one")))
    snapshot = rebuild(place, publication, ROCKY, ("sandbox",))
    assert (place.repository.root / ROCKY / "content").read_text() == "newer"
    found = versions(place, snapshot)
    assert [len(record.platforms["amd64"]) for record in snapshot.records.values()] == [2, 1]
    assert {(one.unpacked_size, one.files) for one in found} == {(12, 34)}
    assert [one.tools["mksquashfs"] for one in found] == ["4.7", "4.5.1", "4.5.1"], "of what made the sandbox, and the SIFs"
    place.in_both()


def test_a_file_index_stays_if_the_new_sandbox_cannot_be_made(place: Place) -> None:
    publication = place.publication()
    both, said = [AMD64, ARM64], answer("one", [AMD64, ARM64])
    before = place.publish(publication, (entry(ROCKY, both, ["sif"]), said)).snapshot
    staged = place.stage(entry(ROCKY, both), said, before)
    builds = {manifest: by_newer_tools(build, place.where) for manifest, build in staged.builds.items()}
    _, second = builds.values()
    place.broken = {"broken"}
    second.sif.write_text("broken")
    other = place.stage(entry("htc/other:1"), answer("other"), before)
    published = publication.publish(before, [StagedEntry(staged.item, builds), other])
    assert list(published.failed) == [ROCKY]
    versions(place, published.snapshot)
