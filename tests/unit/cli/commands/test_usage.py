"""``publisher usage``, and where else the use of images shows."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from publisher.cli.commands import usage
from publisher.cli.main import publisher
from publisher.errors import UsageError
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NAME, Place

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

LIST = """\
version: 1
images:
  - htc/rocky:9
  - htc/used:1
"""
LONG_AGO = int(time.time()) - 400 * 86400


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.now = LONG_AGO
    listed = [(entry(name), answer(name)) for name in ("htc/rocky:9", "htc/used:1", "htc/left:1")]
    place.publish(place.publication(), *listed)
    (tmp_path / "images.yaml").write_text(LIST)
    (tmp_path / "state").mkdir(exist_ok=True)
    lines = [
        {"time": LONG_AGO, "host": "ep1", "code": 0, "name": "htc/used:1", "digest": None},
        {"time": LONG_AGO + 399 * 86400, "host": "ep1", "code": 0, "name": "htc/used:1", "digest": None},
        {"time": LONG_AGO + 399 * 86400, "code": 0, "name": None, "candidate": "docker://a/b:1"},
    ]
    (tmp_path / "trace").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return place


def run(place: Place, *arguments: str) -> Result:
    where = place.where
    flags = [f"--images={where}/images.yaml", f"--repository={where}/cvmfs", f"--origin={where}/osdf", f"--state={where}/state"]
    return CliRunner().invoke(publisher, [*arguments, *flags, "--repository-name", NAME], catch_exceptions=False)


def test_use_is_counted_and_shown_in_status(place: Place) -> None:
    assert "no use of an image is known" in run(place, "usage").stdout
    done = run(place, "usage", "--trace", f"{place.where}/trace")
    assert "htc/used:1: by 2 job(s) on 1 host(s) or more, last on " in done.stdout
    assert "3 job(s)" in done.stderr
    assert "used      by 2 job(s) on 1 host(s)" in run(place, "status", "htc/used:1").stdout
    (shown,) = json.loads(run(place, "status", "--json", "htc/used:1").stdout)
    assert (shown["usage"]["jobs"], shown["usage"]["versions"][0]["digest"]) == (2, None)
    (shown,) = json.loads(run(place, "status", "--json", "htc/rocky:9").stdout)
    assert "usage" not in shown


def test_unused_images_are_a_list_or_a_patch(place: Place) -> None:
    found = json.loads(run(place, "usage", "--trace", f"{place.where}/trace", "--unused", "12", "--patch", "--json").stdout)
    assert [one["name"] for one in found["unused"]] == ["htc/left:1", "htc/rocky:9"]
    assert "-  - htc/rocky:9" in found["patch"].splitlines()
    assert found["by_hand"] == ["htc/left:1"]
    done = run(place, "usage", "--unused", "12", "--patch")
    assert done.stdout == found["patch"]
    assert "htc/left:1 is not in the patch" in done.stderr
    assert "unused: htc/rocky:9: no known job has used it" in run(place, "usage", "--unused", "12").stdout
    assert (place.where / "images.yaml").read_text() == LIST


def test_images_of_jobs_are_proposed_for_the_list(place: Place) -> None:
    run(place, "usage", "--trace", f"{place.where}/trace")
    assert run(place, "usage", "--propose").stdout.startswith("- docker.io/a/b:1  # by 1 job(s) or more, last on ")
    (found,) = json.loads(run(place, "usage", "--propose", "--json").stdout)["proposed"]
    assert (found["reference"], found["jobs"]) == ("docker.io/a/b:1", 1)


def test_nothing_is_said_of_a_time_of_which_nothing_is_known(place: Place) -> None:
    for months, said in ((12, "no job is known"), (14, "the known jobs begin on ")):
        with pytest.raises(UsageError, match=said):
            run(place, "usage", "--unused", str(months))
        run(place, "usage", "--trace", f"{place.where}/trace")
    with pytest.raises(UsageError, match="--patch needs --unused"):
        run(place, "usage", "--patch")
    with pytest.raises(UsageError, match="missing cannot be read"):
        run(place, "usage", "--history", f"{place.where}/missing")
    (place.where / "state").rename(place.where / "elsewhere")
    with pytest.raises(UsageError, match="no state directory"):
        run(place, "usage")


def test_histories_come_from_a_file_and_from_the_program(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"GlobalJobId": "ap#1.0#1", "CompletionDate": LONG_AGO, "ChirpImageName": "htc/used:1"}
    (tmp_path / "history.json").write_text(json.dumps([job]))
    assert "1 job(s)" in run(place, "usage", "--history", f"{tmp_path}/history.json").stderr
    later = {**job, "GlobalJobId": "ap#2.0#1", "CompletionDate": LONG_AGO + 9}
    program = tmp_path / "condor_history"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho '{json.dumps([later])}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(usage, "PROGRAM", str(program))
    assert "1 job(s)" in run(place, "usage", "--schedd", "ap.example.org").stderr
    asked = (tmp_path / "asked").read_text().split()
    assert asked[-4:] == ["-completedsince", str(LONG_AGO), "-name", "ap.example.org"]
    assert "0 job(s)" in run(place, "usage", "--condor-history").stderr
