"""The status page as a sync writes it: beside the manifest, in a directory, or not at all; and its failures never fail a sync."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.cli.assembly.page import SyncPage
from publisher.fileindex.format import FileIndexWriter
from publisher.images import reader
from publisher.settings.settings import PublisherSettings
from publisher.state import paths
from publisher.state.outcomes import Outcomes
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NAME, NOW, Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.state.snapshot import Snapshot

LIST = reader.parse(b"version: 1\nimages:\n  - image: htc/rocky:9\n    owner: htc\n", "images.yaml")
OUTCOMES = Outcomes(started=NOW, finished=NOW + 60)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "state").mkdir()
    return Place(tmp_path)


def publish(place: Place, *builds: str) -> Snapshot:
    snapshot = None
    for build in builds:
        place.now += 60
        snapshot = place.publish(place.publication(), (entry("htc/rocky:9"), answer(build))).snapshot
    assert snapshot is not None
    return snapshot


def make(place: Place, **more: object) -> SyncPage:
    values = {"repository": str(place.where / "cvmfs"), "origin": str(place.where / "osdf"), "state": str(place.where / "state")}
    return SyncPage(PublisherSettings.model_validate({**values, **more}), LIST, place.repository, place.origin)


def test_the_page_is_written_beside_the_manifest(place: Place) -> None:
    assert make(place).finish(publish(place, "rocky"), OUTCOMES, {}) == []
    shown = (place.where / "osdf/page/image/htc/rocky:9.html").read_text()
    assert f"/cvmfs/{NAME}/htc/rocky:9" in shown
    assert "<dt>Owner</dt><dd>htc</dd>" in shown
    assert "URL of the SIF" not in shown  # an origin that is a directory has none
    assert (place.where / "state/page.sqlite").exists()
    assert len(list((place.where / "state/templates").iterdir())) > 1  # which the next sync need not compile


def test_a_directory_or_nothing_can_be_set(place: Place) -> None:
    snapshot = publish(place, "rocky")
    make(place, page=str(place.where / "www")).finish(snapshot, OUTCOMES, {})
    assert (place.where / "www/index.html").exists()
    nothing = make(place, page="none")
    assert nothing.begin(["htc/rocky:9"]) == nothing.finish(snapshot, OUTCOMES, {}) == []
    assert not (place.where / "osdf/page").exists()


def test_an_origin_in_a_federation_gives_urls(place: Place) -> None:
    page = make(place, origin="osdf:///ospool/images")
    page.finish(publish(place, "rocky"), OUTCOMES, {})
    assert "osdf:///ospool/images/sif/" in (place.where / "osdf/page/image/htc/rocky:9.html").read_text()


def test_a_run_says_what_it_is_building(place: Place) -> None:
    page = make(place)
    assert page.begin(["htc/rocky:9"]) == []
    assert '"htc/rocky:9":"waiting"' in (place.where / "osdf/page/data/running.js").read_text()
    page.finish(publish(place, "rocky"), OUTCOMES, {})
    assert "waiting" not in (place.where / "osdf/page/data/running.js").read_text()


def test_labels_of_a_built_image_are_shown(place: Place) -> None:
    snapshot = publish(place, "rocky")
    digest = snapshot.records["htc/rocky:9"].platforms["amd64"][0].digest
    make(place).finish(snapshot, OUTCOMES, {digest: json.dumps({"config": {"Labels": {"vendor": "HTC"}}}).encode()})
    assert "vendor" in (place.where / "osdf/page/image/htc/rocky:9.html").read_text()


@pytest.mark.parametrize("table_is_lost", [False, True])
def test_what_the_sifs_of_the_last_two_builds_share_is_shown(place: Place, table_is_lost: bool) -> None:
    place.tables = True
    shown = compared(place, publish(place, "one", "two"), lost_tables=table_is_lost)
    assert ("that has the SIF before fetches 71 B of the 71 B of this one" in shown) is not table_is_lost
    assert "1 path added, 0 removed, 0 changed" in shown


@pytest.mark.parametrize("damaged", [False, True])
def test_the_last_two_builds_are_compared_by_their_file_indexes(place: Place, damaged: bool) -> None:
    shown = compared(place, publish(place, "one", "two"), damaged=damaged)
    assert ("1 path added, 0 removed, 0 changed; the files grew by 10 B" in shown) is not damaged
    assert "fetches" not in shown, "the SIFs have no chunk tables"


def compared(place: Place, snapshot: Snapshot, *, damaged: bool = False, lost_tables: bool = False) -> str:
    """The page of an image with two builds, one of which has a file more."""

    def index(*names: bytes) -> bytes:
        out = io.BytesIO()
        writer = FileIndexWriter(out)
        for name in names:
            writer.add(b"0", name, 0o644, 0, 0, 10, 0, bytes(32))
        writer.close()
        return out.getvalue()

    record = snapshot.records["htc/rocky:9"]
    contents = (index(b"a", b"new"), index(b"a"))
    versions = []
    for version, content in zip(record.platforms["amd64"], contents, strict=True):
        sha256 = hashlib.sha256(content).hexdigest()
        versions.append(type(version).from_json({**version.to_json(), "file_index": sha256}))
        path = place.repository.root / paths.file_index_path(version.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"damaged" if damaged else content)
    for name in [name for name in place.origin.names("sif") if lost_tables and name.endswith(".chunks")]:
        place.origin.remove(name)
    changed = type(record)(record.name, record.reference, record.digest, {"amd64": versions})
    make(place).finish(snapshot.with_records({record.name: changed}), OUTCOMES, {})
    return (place.where / "osdf/page/image/htc/rocky:9.html").read_text()


class Broken(DirectoryOrigin):
    def replace(self, name: str, content: bytes) -> None:
        if name.endswith("/htc/rocky:9.html") or "running" in name:
            super().replace("/unsafe", content)
        super().replace(name, content)


def test_a_failure_of_the_page_is_reported_and_not_raised(place: Place) -> None:
    place.origin = Broken(place.where / "osdf")
    page = make(place)
    (line,) = page.begin(["htc/rocky:9"])
    assert "the status page could not be written: unsafe name" in line
    (line,) = page.finish(publish(place, "rocky"), OUTCOMES, {})
    assert "the status page is not complete; the next sync goes on: unsafe name" in line


def test_a_bug_in_the_page_is_reported_and_not_raised(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    snapshot = publish(place, "rocky")
    broken = replace(snapshot, records={"htc/rocky:9": None})  # type: ignore[dict-item]
    (line,) = make(place).finish(broken, OUTCOMES, {})
    assert "because of a bug" in line
    assert caplog.records[-1].exc_info is not None


def test_files_that_have_to_wait_are_reported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", iter(range(0, 10**9, 1000)).__next__)
    (line,) = make(place).finish(publish(place, "rocky"), OUTCOMES, {})
    assert "of the status page wait for the next sync" in line
