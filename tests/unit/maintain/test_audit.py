"""The audit of an origin against the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.maintain import audit
from publisher.maintain.audit import StrayObject
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NOW, Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.maintain.audit import OriginAudit


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def audited(place: Place) -> OriginAudit:
    snapshot, _ = place.publication().open()
    return audit.audit_origin(place.origin, snapshot, place.repository.read)


def sif(place: Place) -> str:
    (name,) = place.origin.names("sif")
    return name


def test_an_empty_origin_misses_nothing_if_nothing_is_published(place: Place) -> None:
    assert audited(place).lines() == ["0 SIF(s) (0 B) and 0 manifest shard(s) are in place"]
    assert audited(place).missing == ()


def test_named_objects_are_counted_and_earlier_revisions_are_not_stray(place: Place) -> None:
    place.publish(place.publication(), (entry("a/x:1"), answer("one")))
    place.publish(place.publication(), (entry("a/y:1"), answer("two")))
    found = audited(place)
    assert (found.sifs, found.missing, found.strays) == (2, (), ())
    assert found.size == sum(place.origin.size(name) or 0 for name in place.origin.names("sif"))
    assert found.shards == len(list(place.origin.names("manifest/shards")))


def test_chunk_tables_are_needed_and_not_stray(place: Place) -> None:
    place.tables = True
    place.publish(place.publication(), (entry("a/x:1"), answer("one")))
    found = audited(place)
    assert (found.sifs, found.missing, found.strays) == (1, (), ())
    (table,) = (name for name in place.origin.names("sif") if name.endswith(".chunks"))
    place.origin.remove(table)
    assert audited(place).missing == (table,)


def test_missing_objects_are_listed(place: Place) -> None:
    place.publish(place.publication(), (entry("a/x:1"), answer("one")))
    gone = [sif(place), "manifest/index.json"]
    for name in gone:
        place.origin.remove(name)
    snapshot, _ = place.publication().open()
    place.origin.remove("manifest/index.json")  # opening has mended it
    found = audit.audit_origin(place.origin, snapshot, place.repository.read)
    assert list(found.missing) == sorted(gone)
    assert (found.sifs, found.size) == (0, 0)
    assert f"missing: {gone[0]}" in found.lines()


def test_stray_objects_are_listed_with_size_and_age(place: Place) -> None:
    place.publish(place.publication(), (entry("a/x:1"), answer("one")))
    place.origin.put_bytes("sif/00/stray.sif", b"12345")
    found = audited(place)
    assert found.strays == (StrayObject("sif/00/stray.sif", 5, found.strays[0].stored),)
    assert found.strays[0].stored == pytest.approx(NOW)
    assert "not named: sif/00/stray.sif (5 B, stored 2027-01-15 08:00 UTC)" in found.lines()
    assert found.to_json()["not_named"] == [{"name": "sif/00/stray.sif", "size": 5, "stored": found.strays[0].stored}]
