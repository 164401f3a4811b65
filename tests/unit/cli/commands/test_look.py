"""``publisher status`` and ``publisher list``: one answer by every spelling, an overview, filters, and exit codes for scripts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from publisher.cli.main import publisher
from publisher.cli.state_directory import save_outcomes
from publisher.errors import UsageError
from publisher.state.outcomes import FAILING, LastOutcome, Outcomes
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NAME, NOW, Place

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

LIST = """\
version: 1
groups:
  - title: All
    images:
      - image: htc/rocky:9
        owner: htc
      - image: htc/bad:1
"""
FAILED = Outcomes({"htc/bad:1": LastOutcome(FAILING, "it has no shell", NOW, 2, NOW, NOW + 900)}, {}, NOW, NOW + 60)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    publication = place.publication()
    snapshot = place.publish(publication, (entry("htc/rocky:9"), answer("rocky"))).snapshot
    publication.publish(replace(snapshot, outcomes=FAILED), [])
    (tmp_path / "images.yaml").write_text(LIST)
    (tmp_path / "state").mkdir(exist_ok=True)
    return place


def run(place: Place, *arguments: str) -> Result:
    where = place.where
    flags = [f"--images={where}/images.yaml", f"--repository={where}/cvmfs", f"--origin={where}/osdf", f"--state={where}/state"]
    return CliRunner().invoke(publisher, [*arguments, *flags, "--repository-name", NAME], catch_exceptions=False)


@pytest.mark.parametrize(
    "spelling",
    [
        "htc/rocky:9",
        f"/cvmfs/{NAME}/htc/rocky:9",
        f"/cvmfs/{NAME}/./htc//rocky:9",
        "docker://htc/rocky:9",
        "docker.io/htc/rocky:9",
    ],
)
def test_every_spelling_of_jobs_has_the_same_answer(place: Place, spelling: str) -> None:
    done = run(place, "status", spelling)
    assert done.exit_code == 0
    assert done.stdout.startswith("htc/rocky:9: published since ")


def test_a_path_outside_the_repository_is_wrong_usage(place: Place) -> None:
    for spelling in ("/cvmfs/other.example.org/htc/rocky:9", "/srv/x.sif"):
        with pytest.raises(UsageError, match="is not a path in"):
            run(place, "status", spelling)


def test_a_failing_image_ends_with_1_and_says_when_it_is_tried_again(place: Place) -> None:
    done = run(place, "status", "htc/bad:1", "htc/rocky:9")
    assert done.exit_code == 1
    assert "htc/bad:1: failing since 2027-01-15 08:00 UTC: it has no shell (tried 2 times)" in done.stdout
    assert "2, the last on 2027-01-15 08:00 UTC; again after 2027-01-15 08:15 UTC" in done.stdout
    found = json.loads(run(place, "status", "htc/bad:1", "--json").stdout)[0]
    assert (found["state"], found["usable"], found["tries"], found["next_try"]) == ("failing", False, 2, NOW + 900)


def test_what_this_host_remembers_is_newer_than_what_is_published(place: Place) -> None:
    save_outcomes(place.where / "state", Outcomes(started=NOW + 900, finished=NOW + 960))
    assert run(place, "status", "htc/bad:1").stdout.startswith("htc/bad:1: waiting")


def test_without_a_name_there_is_an_overview(place: Place) -> None:
    done = run(place, "status", "--sync-interval=900")
    assert done.exit_code == 1
    for words in (
        "1 published, 1 failing",
        "serial 2, signed",
        "2027-01-15 08:00 UTC, took 60 s",
        "  next sync  2027-01-15 08:15 UTC",
    ):
        assert words in done.stdout
    found = json.loads(run(place, "status", "--json").stdout)
    assert found["counts"] == {"published": 1, "failing": 1}
    assert found["attention"] == [{"name": "htc/bad:1", "state": "failing", "reason": "it has no shell (tried 2 times)"}]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["htc/bad:1", "htc/rocky:9"]),
        (["*/rocky:*"], ["htc/rocky:9"]),
        (["--only=failing", "--only=gone"], ["htc/bad:1"]),
        (["--owner=htc"], ["htc/rocky:9"]),
        (["--only=blocked"], []),
    ],
)
def test_a_list_is_filtered_by_name_state_and_owner(place: Place, arguments: list[str], names: list[str]) -> None:
    done = run(place, "list", *arguments)
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == names
    assert done.exit_code == (0 if names else 1)
    assert [one["name"] for one in json.loads(run(place, "list", "--json", *arguments).stdout)] == names


def test_owners_are_unknown_without_a_list(place: Place) -> None:
    (place.where / "images.yaml").unlink()
    assert run(place, "list").exit_code == 0
    with pytest.raises(UsageError, match="owners are unknown"):
        run(place, "list", "--owner=htc")


def test_a_list_that_is_not_valid_hides_nothing_that_is_published(place: Place) -> None:
    (place.where / "images.yaml").write_text("version: 1\nimages: 3\n")
    done = run(place, "status", "htc/rocky:9")
    assert (done.exit_code, done.stdout.startswith("htc/rocky:9: published")) == (0, True)
    assert "images.yaml is left out because 1 problem(s)" in done.stderr
