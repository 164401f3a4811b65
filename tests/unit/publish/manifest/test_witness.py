"""Witnesses of the publication log: a git repository and another origin."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError, WitnessError
from publisher.publish.manifest.witness import GitWitness, OriginWitness
from publisher.state.publication_log import entry_name
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import Place
from tests.support.publisher.published_log import problems

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.publish.manifest.witness import Witness


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    made = tmp_path / "witness.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", made], check=True)
    return made


@pytest.fixture(params=["git", "origin"])
def witness(request: pytest.FixtureRequest, bare: Path, tmp_path: Path) -> Witness:
    if request.param == "origin":
        return OriginWitness(DirectoryOrigin(tmp_path / "witness"))
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


@pytest.mark.parametrize("earlier", [[], ["log/0/0.json"]], ids=["the first", "a later one"])
def test_what_a_failed_addition_left_in_the_clone_is_not_shown(bare: Path, tmp_path: Path, earlier: list[str]) -> None:
    witness = GitWitness(str(bare), tmp_path / "clone")
    for name in earlier:
        witness.add({name: b"earlier"})
    (bare / "hooks/pre-receive").write_text("#!/bin/sh\nexit 1\n")
    (bare / "hooks/pre-receive").chmod(0o755)
    with pytest.raises(WitnessError, match="git failed") as refused:
        witness.add({"log/0/1.json": b"first"})
    assert "the next run sends what is missing" in str(refused.value.hint)
    (tmp_path / "clone/log/0/2.json").write_text("half of a fi")
    assert [witness.read(name) for name in ("log/0/1.json", "log/0/2.json")] == [None, None]


@pytest.mark.parametrize("damaged", ["HEAD", "config", "index.lock"])
def test_a_clone_that_a_failure_has_damaged_is_made_anew(bare: Path, tmp_path: Path, damaged: str) -> None:
    GitWitness(str(bare), tmp_path / "clone").add({"log/0/1.json": b"first"})
    (tmp_path / "clone/.git" / damaged).write_text("")
    again = GitWitness(str(bare), tmp_path / "clone")
    again.add({"log/0/2.json": b"second"})
    assert [again.read(f"log/0/{serial}.json") for serial in (1, 2)] == [b"first", b"second"]


def test_a_clone_that_cannot_be_written_is_an_error_that_says_what_to_do(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WitnessError, match=r"the clone of the witness in .* cannot be used") as refused:
        GitWitness(str(bare), tmp_path / "file/clone").read("log/0/1.json")
    assert refused.value.hint == "look at that disk; the next run sends what is missing"


def test_an_index_is_sent_after_the_entries_of_the_log_that_lead_to_it(place: Place, tmp_path: Path) -> None:
    """Whoever finds the index in a witness looks for no entry that an interrupted addition left out."""
    publish(place, "one", "two")
    sent: list[str] = []

    class Recording(DirectoryOrigin):
        def put_bytes(self, name: str, content: bytes) -> bool:
            sent.append(name)
            return super().put_bytes(name, content)

    place.witness = OriginWitness(Recording(tmp_path / "other"))
    place.publication().open()
    assert sent == [entry_name(1), entry_name(2), "indexes/2.json"]


def test_a_second_publisher_adds_to_the_same_git_repository(place: Place, bare: Path, tmp_path: Path) -> None:
    """As after a move to another host, whose clone is new."""
    for clone in ("one", "two"):
        place.witness = GitWitness(str(bare), tmp_path / clone)
        publish(place, clone)
    assert problems(place, GitWitness(str(bare), tmp_path / "reader")) == []
