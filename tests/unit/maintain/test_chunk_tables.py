"""Chunk tables for SIFs that were published without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.chunks import cutter
from publisher.errors import OriginError, RepositoryError, SpaceError
from publisher.maintain import block, chunk_tables
from publisher.maintain.chunk_tables import add_tables, select_without
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.published_table import read_table
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.chunks.reader import ByteReader
    from publisher.contract.records import Sif, Version
    from publisher.maintain.chunk_tables import AddedTables

NAMES = ["a/b:1", "c/d:1", "e/f:1"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three images, of one of which there is an earlier version, and a second name of one of them."""
    place = Place(tmp_path)
    publication = place.publication()
    place.publish(publication, (entry("a/b:1"), answer("old")))
    place.now += 100
    place.publish(publication, *((entry(name), answer(name)) for name in NAMES), (entry("g/h:1"), answer("a/b:1")))
    return place


def add(place: Place, count: int = 100, origin: DirectoryOrigin | None = None) -> AddedTables:
    publication = place.publication(origin)
    return add_tables(publication, publication.open()[0], count)


def versions(place: Place) -> list[Version]:
    snapshot, _ = place.publication().open()
    return [version for record in snapshot.records.values() for _, version in record.versions()]


def sif_of(place: Place, name: str) -> Sif:
    _, version = next(place.publication().open()[0].records[name].versions())
    assert version.sif is not None
    return version.sif


def test_every_published_sif_gets_a_table_that_all_its_names_have(place: Place) -> None:
    result = add(place)
    assert (result.failures, result.lines) == ([], ["4 SIF(s) that were published before have a chunk table now"])
    for version in versions(place):
        assert version.sif is not None
        table = read_table(place.origin, version.sif)
        assert table is not None
        assert table.sif_sha256 == version.sif.sha256
    place.in_both()
    assert result.snapshot.serial == place.index().serial


def test_a_run_reads_only_so_many_and_the_records_remember_it(place: Place) -> None:
    assert add(place, 1).lines == ["1 SIF(s) that were published before have a chunk table now; 3 more follow in later runs"]
    assert len(select_without(place.publication().open()[0])) == 3
    assert add(place, 3).lines == ["3 SIF(s) that were published before have a chunk table now"]
    index = place.in_both()
    assert add(place, 1).lines == []
    assert place.in_both() == index, "nothing to add is nothing to publish"


def test_what_names_mean_now_comes_first(place: Place) -> None:
    waiting = select_without(place.publication().open()[0])
    superseded = next(version.sif for version in versions(place) if version.state == "superseded")
    assert superseded is not None
    assert waiting[-1].path == superseded.path


def test_blocked_and_very_large_sifs_get_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publication = place.publication()
    snapshot, _ = publication.open()
    after = block.apply(publication, snapshot, block.plan_block(snapshot, "c/d:1", place.now, "bad")).snapshot
    assert len(select_without(after)) == 3
    monkeypatch.setattr(chunk_tables, "LARGEST_SIF", 1)
    assert select_without(after) == []


def test_a_sif_that_turns_out_too_large_stays_without(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutter, "LARGEST_SIF", 1)
    result = add(place)
    assert (result.failures, result.lines) == ([], [])
    assert all(version.sif is not None and version.sif.chunks is None for version in versions(place))


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), lambda path: path.unlink()])
def test_a_damaged_sif_gets_no_table_and_stops_no_other(place: Place, damage: object) -> None:
    sif = sif_of(place, "c/d:1")
    damage(place.origin.root / sif.path)  # type: ignore[operator]  # one of the parameters
    result = add(place)
    (failure,) = result.failures
    assert sif.path in str(failure)
    assert "publisher verify --repair" in str(failure)
    assert len(select_without(result.snapshot)) == 1


def test_a_kill_between_table_and_record_costs_only_a_rerun(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr("publisher.publish.publication.Publication.change", kill)
        with pytest.raises(Killed):
            add(place)
    tables = {name for name in place.origin.names("sif") if name.endswith(".chunks")}
    assert len(tables) == 4
    assert all(version.sif is not None and version.sif.chunks is None for version in versions(place))
    assert len(add(place).lines) == 1
    assert {name for name in place.origin.names("sif") if name.endswith(".chunks")} == tables


def test_a_full_disk_and_a_closed_repository_are_reported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(DirectoryOrigin):
        def put_bytes(self, name: str, content: bytes) -> bool:
            if name.endswith(".chunks"):
                raise SpaceError("full")
            return super().put_bytes(name, content)

    assert [str(error) for error in add(place, origin=Full(place.origin.root)).failures] == ["full"]

    def refuse(*_: object, **__: object) -> None:
        raise RepositoryError("closed")

    monkeypatch.setattr("publisher.publish.publication.Publication.change", refuse)
    assert [str(error) for error in add(place).failures] == ["closed"]


def test_a_manifest_that_does_not_reach_the_origin_is_reported(place: Place) -> None:
    class Behind(DirectoryOrigin):
        def replace(self, name: str, content: bytes) -> None:
            raise OriginError(f"{name} is refused: {len(content)} bytes")

    result = add(place, origin=Behind(place.origin.root))
    assert "is refused" in str(result.failures[0])
    assert select_without(result.snapshot) == []


def test_a_sif_is_read_once_for_its_table(place: Place) -> None:
    read: list[str] = []

    class Counting(DirectoryOrigin):
        def sha256(self, name: str, reader: ByteReader | None = None) -> str | None:
            read.append(name)
            return super().sha256(name, reader)

    add(place, 1, Counting(place.origin.root))
    assert len(read) == 1


def test_a_table_made_anew_is_named_if_it_has_another_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library or the sizes of chunks have changed."""
    add(place)
    sif = sif_of(place, "c/d:1")
    assert sif.chunks is not None
    monkeypatch.setattr(cutter, "MAXIMUM", cutter.MAXIMUM + 1024)
    publication = place.publication()
    after = chunk_tables.replace_table(publication, publication.open()[0], sif)
    _, version = next(after.records["c/d:1"].versions())
    assert version.sif is not None
    assert version.sif.chunks is not None
    assert version.sif.chunks.sha256 != sif.chunks.sha256
    assert place.origin.size(sif.chunks.path) is None
    assert read_table(place.origin, version.sif) is not None
