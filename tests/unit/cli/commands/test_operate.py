"""What else a change between two syncs brings: the status page says it at once."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from publisher.cli.assembly import page
from publisher.cli.main import publisher
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NAME, Place

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

ROCKY = "htc/rocky:9"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(page, "_compare", lambda *_: None)  # what is published here has no real file indexes
    place = Place(tmp_path)
    place.now = int(time.time()) - 60
    publication = place.publication()
    for text in ("one", "two"):
        place.publish(publication, (entry(ROCKY), answer(text)))
    (tmp_path / "images.yaml").write_text(f"version: 1\nimages: [{ROCKY}]\n")
    return place


def run(place: Place, *arguments: str) -> Result:
    where = place.where
    flags = [f"--images={where}/images.yaml", f"--repository={where}/cvmfs", f"--origin={where}/osdf", f"--state={where}/state"]
    flags += [f"--key={where}/key", f"--page={where}/page", f"--repository-name={NAME}"]
    return CliRunner().invoke(publisher, [*arguments, *flags], catch_exceptions=False)


def state_on_page(place: Place) -> str:
    (row,) = json.loads((place.where / "page/images.json").read_bytes())["images"]
    return str(row["state"])


def test_the_page_says_at_once_what_the_operator_did(place: Place) -> None:
    for command, state in (
        (["rollback", ROCKY], "held"),
        (["rollback", "--undo", ROCKY], "published"),
        (["block", ROCKY, "--reason", "it has a stolen token"], "blocked"),
    ):
        done = run(place, *command)
        assert (done.exit_code, state_on_page(place)) == (0, state), done.output
    assert "it has a stolen token" in (place.where / f"page/image/{ROCKY}.html").read_text()


@pytest.mark.parametrize(("content", "said"), [(None, ""), ("version: 7\n", "images.yaml is left out")])
def test_without_a_list_the_page_waits_for_the_next_sync(place: Place, content: str | None, said: str) -> None:
    (place.where / "images.yaml").unlink()
    if content is not None:
        (place.where / "images.yaml").write_text(content)
    done = run(place, "rollback", ROCKY)
    assert done.exit_code == 0
    assert said in done.output
    assert not (place.where / "page").exists()


def test_a_list_that_cannot_be_read_does_not_fail_what_was_done(place: Place) -> None:
    (place.where / "images.yaml").unlink()
    (place.where / "images.yaml").mkdir()
    done = run(place, "rollback", ROCKY)
    assert done.exit_code == 0
    assert "the status page changes with the next sync" in done.output
