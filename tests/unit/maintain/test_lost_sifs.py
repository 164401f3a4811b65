"""SIFs that the origin lost, with an intake and a builder that only make values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.errors import NotFoundError, SpaceError
from publisher.maintain import lost_sifs
from publisher.maintain.lost_sifs import SifRestorer
from tests.support.publisher.built_values import answer, built, entry
from tests.support.publisher.prepublished import Place
from tests.support.publisher.recorded_sync import Building, Intake, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.build.builder import BuildRequest
    from publisher.errors import PublisherError
    from publisher.maintain.verify import VerifiedBuild
    from publisher.state.built import BuiltImage

NAMES = ["a/b:1", "c/d:1", "e/f:1"]


class Rebuilding(Building):
    """A builder that makes the files of the same builds as before, or those of newer tools."""

    def __init__(self, where: Path, *, newer: bool = False) -> None:
        super().__init__({}, lambda _: None)
        self.where = where
        self.newer = newer

    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        super().build(request, progress)
        digest = request.image.manifest.digest
        made = built(f"newer {digest}" if self.newer else digest, self.where)
        return replace(made, tools={"mksquashfs": "4.7"}) if self.newer else made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.publish(place.publication(), *((entry(name), answer(name)) for name in NAMES))
    return place


def restorer(place: Place, *, newer: bool = False, failures: dict[str, PublisherError] | None = None) -> SifRestorer:
    publication = place.publication()
    snapshot, _ = publication.open()
    intake = Intake(failures or {})
    return SifRestorer(publication, snapshot, intake, Rebuilding(place.where, newer=newer), Quiet())  # type: ignore[arg-type]  # fetch


def lost_builds(place: Place, used: SifRestorer, *names: str) -> list[VerifiedBuild]:
    """Remove the SIFs of names from the origin, and return what an audit of everything finds."""
    share = lost_sifs.select_share(used.snapshot, "", 100)
    for build in share:
        if build.name in names and build.version.sif is not None:
            place.origin.remove(build.version.sif.path)
    return lost_sifs.find_lost(place.origin, share)


def test_shares_cover_every_sif_in_a_circle(place: Place) -> None:
    snapshot, _ = place.publication().open()
    seen, after = [], ""
    for _ in range(3):
        share = lost_sifs.select_share(snapshot, after, 2)
        assert len(share) == 2
        after = share[-1].version.sif.path  # type: ignore[union-attr]  # selected for it
        seen += [build.name for build in share]
    assert sorted(seen) == sorted(NAMES * 2)
    assert len(lost_sifs.select_share(snapshot, "no such path", 100)) == 3


def test_a_sif_that_is_missing_or_of_another_size_is_lost(place: Place) -> None:
    used = restorer(place)
    assert lost_builds(place, used) == []
    (found,) = lost_builds(place, used, NAMES[0])
    assert found.name == NAMES[0]
    truncated = place.origin.root / used.snapshot.records[NAMES[1]].platforms["amd64"][0].sif.path  # type: ignore[union-attr]
    truncated.write_bytes(truncated.read_bytes()[:-1])
    assert {build.name for build in lost_builds(place, used)} == set(NAMES[:2])


def test_a_restored_sif_has_its_old_bytes_and_the_manifest_stays(place: Place) -> None:
    used = restorer(place)
    before = place.index().serial
    lines, failed = lost_sifs.restore_all(used, lost_builds(place, used, *NAMES[:2]))
    assert (len(lines), failed) == (2, [])
    assert "htc" not in lines[0]
    assert "a/b:1 amd64: the origin had lost the SIF of sha256:" in "".join(lines)
    assert lost_builds(place, used) == []
    assert place.index().serial == before
    assert all(place.origin.sha256(one.version.sif.path) == one.version.sif.sha256 for one in share_of(used))  # type: ignore[union-attr]


def share_of(used: SifRestorer) -> list[VerifiedBuild]:
    return lost_sifs.select_share(used.snapshot, "", 100)


def test_a_sif_that_newer_tools_make_otherwise_replaces_the_lost_one_under_every_name(place: Place) -> None:
    place.publish(place.publication(), (entry("a/again:1"), answer(NAMES[0])))
    used = restorer(place, newer=True)
    lost = lost_builds(place, used, NAMES[0], "a/again:1")
    assert len(lost) == 1
    old = lost[0].version.sif
    assert lost_sifs.restore_all(used, lost)[1] == []
    snapshot, _ = place.publication().open()
    versions = [snapshot.records[name].platforms["amd64"][0] for name in (NAMES[0], "a/again:1")]
    assert {version.sif.path for version in versions} == {versions[0].sif.path} != {old.path}  # type: ignore[union-attr]
    assert {version.tools["mksquashfs"] for version in versions} == {"4.5.1"}, "of the sandboxes, which stay"
    assert lost_builds(place, used) == []
    place.in_both()


def test_what_cannot_be_restored_is_reported_with_advice_and_the_others_are(place: Place) -> None:
    used = restorer(place, failures={NAMES[0]: NotFoundError("gone")})
    lines, (error,) = lost_sifs.restore_all(used, lost_builds(place, used, *NAMES))
    assert len(lines) == 2
    assert str(error).startswith("a/b:1: the origin has lost its SIF (amd64), which cannot be restored: gone (restore it from")
    assert "publisher block sha256:" in str(error)


def test_a_full_disk_ends_the_restoration(place: Place) -> None:
    used = restorer(place, failures={name: SpaceError("no space left") for name in NAMES})
    lines, failed = lost_sifs.restore_all(used, lost_builds(place, used, *NAMES))
    assert (lines, len(failed)) == ([], 1)
