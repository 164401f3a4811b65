"""Attacker: a thief of the signing key, or a publisher that lies, who shows different manifests to different readers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.publish.manifest.witness import OriginWitness, Witness
from publisher.state import snapshot as snapshots
from publisher.state.publication_log import LogHead, entry_name
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import Place
from tests.support.publisher.published_log import problems

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.state.snapshot import Revision


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return OriginWitness(DirectoryOrigin(tmp_path / "witness"))


@pytest.fixture
def place(tmp_path: Path, witness: Witness) -> Place:
    """A publisher with a witness, and two publications."""
    made = Place(tmp_path)
    made.witness = witness
    for text in ("one", "two"):
        made.publish(made.publication(), (entry(f"a/{text}:1"), answer(text)))
    assert problems(made, witness) == []
    return made


def lay_down(place: Place, revision: Revision) -> None:
    """Write a revision into the repository, past the publisher and its witness."""
    files = {**revision.shards, entry_name(revision.snapshot.serial): revision.log, "index.json": revision.index}
    for name, content in files.items():
        path = place.repository.root / ".publisher" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_two_manifests_with_one_serial_are_proven_by_the_witness(place: Place, witness: Witness) -> None:
    """The second one is complete, with an honest log of its own, so that nothing about it alone is wrong."""
    first = place.repository.read(f".publisher/{entry_name(1)}")
    assert first is not None
    head = LogHead(hashlib.sha256(first).hexdigest(), 1)
    now = place.publication().open()[0]
    after_one = replace(now.without(["a/two:1"]), serial=1, log=head, replaced={})
    lay_down(place, snapshots.make_revision(after_one, place.signer, serial=2, now=place.now))
    assert problems(place) == [], "nobody can tell without the witness"
    (found,) = problems(place, witness)
    assert found.startswith("EQUIVOCATION: the witness's signed index indexes/2.json names the log entry")


def test_a_publication_that_was_taken_back_is_found(place: Place, witness: Witness, tmp_path: Path) -> None:
    old = {path: path.read_bytes() for path in (tmp_path / "cvmfs/.publisher").rglob("*.json")}
    place.publish(place.publication(), (entry("a/three:1"), answer("three")))
    for path, content in old.items():
        path.write_bytes(content)
    assert problems(place, witness) == ["the witness has serial 3, but serial 2 is published: indexes/3.json was taken back"]


def test_a_witness_cannot_accuse_the_publisher_without_its_signature(place: Place, witness: Witness, tmp_path: Path) -> None:
    thief = Place(tmp_path / "thief")
    forged = snapshots.make_revision(place.publication().open()[0], thief.signer, serial=9, now=place.now)
    witness.add({"indexes/9.json": forged.index})
    (found,) = problems(place, witness)
    assert found.startswith("the witness's indexes/9.json proves nothing: the published manifest is not signed")


def test_an_entry_cannot_be_taken_out_of_the_log(place: Place) -> None:
    (place.repository.root / ".publisher" / entry_name(1)).unlink()
    assert problems(place) == [f"{entry_name(1)} is missing"]
