"""Witnesses of the publication log: a git repository and another origin."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError, WitnessError
from publisher.publish.witness import GitWitness, OriginWitness
from publisher.state.publication_log import entry_name
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import Place
from tests.support.publisher.published_log import problems

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.publish.witness import Witness


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(params=["git", "origin"])
def witness(request: pytest.FixtureRequest, tmp_path: Path) -> Witness:
    if request.param == "origin":
        return OriginWitness(DirectoryOrigin(tmp_path / "witness"))
    bare = tmp_path / "witness.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", bare], check=True)
    return GitWitness(str(bare), tmp_path / "clone")


def publish(place: Place, *texts: str) -> None:
    for text in texts:
        place.publish(place.publication(), (entry(f"a/{text}:1"), answer(text)))


def test_a_witness_gets_each_index_and_the_log(place: Place, witness: Witness) -> None:
    place.witness = witness
    publish(place, "one", "two")
    assert [name for name, _ in witness.indexes()] == ["indexes/1.json", "indexes/2.json"]
    for serial in (1, 2):
        assert witness.read(entry_name(serial)) == (place.repository.root / ".publisher" / entry_name(serial)).read_bytes()
    assert problems(place, witness) == []


def test_a_witness_that_could_not_be_reached_gets_the_rest_later(place: Place, witness: Witness) -> None:
    publish(place, "one", "two")
    assert problems(place, witness)[-1] == "the witness lacks serial 2; the next run sends it"
    place.witness = witness
    place.publication().open()
    assert witness.read(entry_name(1)) is not None
    assert problems(place, witness) == []


def test_what_a_witness_has_is_never_replaced(witness: Witness) -> None:
    witness.add({"log/0/1.json": b"first"})
    with pytest.raises((WitnessError, OriginError)):
        witness.add({"log/0/1.json": b"other"})
    assert witness.read("log/0/1.json") == b"first"


def test_a_witness_that_fails_does_not_stop_a_publication(place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place.witness = GitWitness(str(tmp_path / "absent.git"), tmp_path / "clone")
    publish(place, "one")
    assert place.index().serial == 1
    assert "the witness was not informed" in caplog.text


def test_a_second_publisher_adds_to_the_same_git_repository(place: Place, tmp_path: Path) -> None:
    """As after a move to another host, whose clone is new."""
    bare = tmp_path / "witness.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", bare], check=True)
    for clone in ("one", "two"):
        place.witness = GitWitness(str(bare), tmp_path / clone)
        publish(place, clone)
    assert problems(place, GitWitness(str(bare), tmp_path / "reader")) == []
