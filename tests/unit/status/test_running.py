"""Other processes see what the run under way is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.status.running import RunningDisplay, is_running, running_steps
from tests.support.publisher.recorded_sync import Quiet

if TYPE_CHECKING:
    from pathlib import Path


def test_the_steps_of_images_that_are_not_finished_are_seen_until_the_run_ends(tmp_path: Path) -> None:
    shown = Quiet()
    with RunningDisplay(shown, tmp_path) as display:
        assert running_steps(tmp_path) == {}
        display.expect(["a/a:1", "a/b:1"])
        display.step("a/a:1", "squash", 1, 2)
        display.step("not/expected:1", "squash", 1, 2)
        assert running_steps(tmp_path) == {"a/a:1": "squash", "a/b:1": "waiting"}
        display.finish("a/a:1", "published")
        assert running_steps(tmp_path) == {"a/b:1": "waiting"}
    assert running_steps(tmp_path) == {}
    assert shown.lines == ["a/a:1: published"]


def test_a_run_is_under_way_until_it_ends(tmp_path: Path) -> None:
    with RunningDisplay(Quiet(), tmp_path):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
    assert not is_running(tmp_path / "missing")


def test_what_a_killed_run_wrote_is_not_under_way(tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text('{"a/a:1": "squash"}')
    assert running_steps(tmp_path) == {}


def test_a_run_goes_on_where_its_steps_cannot_be_written(tmp_path: Path) -> None:
    with RunningDisplay(Quiet(), tmp_path / "missing") as display:
        display.expect(["a/a:1"])
        display.step("a/a:1", "squash", 1, 2)
