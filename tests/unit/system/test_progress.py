from __future__ import annotations

import io

from publisher.cli.console import display_for
from publisher.system.live_table import TableDisplay
from publisher.system.progress import LineDisplay


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_there_are_plain_lines() -> None:
    out = io.StringIO()
    with display_for(out) as shown:
        assert isinstance(shown, LineDisplay)
        shown.begin("publishing", 3)
        shown.step("a/a:1", "fetch", 50, 200)
        shown.finish("a/a:1", "published: new")
        shown.advance()
        shown.finish("a/b:1", "failed: no tar")
        shown.say("one line more")
    assert out.getvalue().splitlines() == [
        "publishing: 3",
        "a/a:1: fetch 25 %",
        "[1/3] a/a:1: published: new",
        "[3/3] a/b:1: failed: no tar",
        "one line more",
    ]


def test_a_step_that_lasts_is_told_again_every_half_a_minute() -> None:
    out, now = io.StringIO(), [0.0]
    shown = LineDisplay(out, lambda: now[0])
    for second in range(95):
        now[0] = float(second)
        shown.step("a/a:1", "squash", second, 100)
    assert out.getvalue().splitlines() == [f"a/a:1: squash {second} %" for second in (0, 30, 60, 90)]


def test_two_steps_of_an_image_are_two_lines() -> None:
    out = io.StringIO()
    shown = LineDisplay(out, lambda: 0.0)
    shown.step("a/a:1", "plan", 0, 1)
    shown.step("a/a:1", "test", 0, 1)
    assert out.getvalue().splitlines() == ["a/a:1: plan", "a/a:1: test"]


def test_on_a_terminal_there_is_a_live_table() -> None:
    assert isinstance(display_for(Terminal()), TableDisplay)
