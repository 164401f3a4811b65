from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from publisher.system.live_table import TableDisplay
from publisher.system.progress import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

GB = 10**9


class Screen:
    """A terminal of 80x24, and the table that is on it now."""

    def __init__(self) -> None:
        self.now = 0.0
        self.out = io.StringIO()
        self.console = Console(
            file=self.out, force_terminal=True, width=80, height=24, color_system=None, legacy_windows=False, _environ={}
        )
        self.display = TableDisplay(self.console, lambda: self.now)

    @property
    def lines(self) -> list[str]:
        other = Console(file=io.StringIO(), width=80, height=24, color_system=None, legacy_windows=False, _environ={})
        with other.capture() as captured:
            other.print(self.display._render())
        return captured.get().splitlines()


def test_each_image_in_flight_has_a_line_with_what_is_done_and_the_time_left() -> None:
    screen = Screen()
    screen.display.begin("publishing images", 5)
    screen.display.step("a/fetched:1", "fetch", 0, 4 * GB)
    screen.display.step("a/tested:1", "test", 0, 1)
    screen.now = 10
    screen.display.step("a/fetched:1", "fetch", GB, 4 * GB)
    totals, fetched, tested = screen.lines
    assert totals == "publishing images: 0 of 5 done, 2 in flight, 3 waiting, 1.0 GB fetched"
    assert fetched.split() == ["a/fetched:1", "fetch", "1.0", "GB", "of", "4.0", "GB,", "30", "s", "left"]
    assert tested.split() == ["a/tested:1", "test", "for", "10", "s"]


def test_a_step_that_reports_nothing_shows_its_time_and_never_0_percent() -> None:
    screen = Screen()
    screen.display.step("a/slow:1", "squash", 0, 4 * GB)
    screen.now = 90
    line = screen.lines[-1]
    assert line.split() == ["a/slow:1", "squash,", "begun", "90", "s", "ago"]


def test_no_active_image_is_hidden_and_the_table_fits_the_terminal() -> None:
    screen = Screen()
    screen.display.begin("publishing images", 37)
    for number in range(37):
        screen.display.step(f"a/image-{number:02}:1", "fetch", number, 100)
    lines = screen.lines
    assert len(lines) < 24
    assert all(len(line) <= 80 for line in lines)
    cells = [cell.split() for line in lines[1:] for cell in (line[:40], line[40:]) if cell.strip()]
    assert cells[0] == ["a/image-00:1", "fetch", "0", "s"]
    assert sorted(cells[1:]) == [[f"a/image-{number:02}:1", "fetch", str(number), "%"] for number in range(1, 37)]
    for number in range(30):
        screen.display.finish(f"a/image-{number:02}:1", "failed: no tar" if number else "published: new")
    screen.now = 60
    lines = screen.lines
    assert lines[0].startswith("publishing images: 30 of 37 done, 29 failed, 7 in flight, 0 waiting")
    assert [line for line in lines if "fetch 3" in line] == lines[-7:], "each of them has its line again"


def test_what_has_no_place_in_columns_either_is_counted_by_its_steps() -> None:
    screen = Screen()
    for number in range(60):
        screen.display.step(f"a/image-{number:02}:1", "squash" if number < 55 else "waiting", 0, 1)
    lines = screen.lines
    assert len(lines) < 24
    assert lines[-1] == "and 18 more: 13 squash, 5 waiting"
    assert sum(line.count("a/image-") for line in lines) == 42


def test_built_images_that_wait_for_their_transaction_are_counted_and_take_no_line() -> None:
    screen = Screen()
    screen.display.begin("publishing images", 37)
    for number in range(30):
        screen.display.step(f"a/image-{number}:1 arm64", "squash", 1, 2)
        screen.display.step(f"a/image-{number}:1 arm64", "built", 0, 1)
    screen.display.step("a/next:1", "squash", 1, 2)
    assert screen.lines[0] == "publishing images: 0 of 37 done, 30 built, 1 in flight, 6 waiting"
    assert len(screen.lines) == 2
    screen.display.finish("a/image-3:1", "published: new")
    assert "29 built" in screen.lines[0], "the lines of its platforms end with the image"


def test_the_time_left_of_the_run_follows_from_what_is_done() -> None:
    screen = Screen()
    screen.display.begin("asking registries about images", 100)
    for _ in range(20):
        screen.display.advance()
    screen.now = 60
    assert screen.lines == ["asking registries about images: 20 of 100 done, about 4 min left"]


def test_outcomes_stay_above_the_table_and_names_are_neither_markup_nor_control_sequences() -> None:
    screen = Screen()
    with screen.display as shown:
        shown.begin("publishing images", 1)
        shown.step("a/a:1", "fetch", 1, 2)
        shown.finish("a/a:1", "published: new [in brackets] \x1b[31m")
    assert "a/a:1: published: new [in brackets] \\x1b[31m" in screen.out.getvalue()


def test_a_long_name_is_cut_in_its_middle_so_that_its_tag_stays() -> None:
    screen = Screen()
    screen.display.step("project/" + "x" * 60 + ":the-tag", "test", 0, 1)
    assert ":the-tag test for 0 s" in " ".join(screen.lines[-1].split())


def test_durations_are_for_people() -> None:
    said: Callable[[float], str] = format_duration
    assert [said(8.4), said(119), said(700), said(11100)] == ["8 s", "119 s", "12 min", "3 h 05 min"]
