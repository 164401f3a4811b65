from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.cli.render.run import plan_json, plan_lines, report_json, report_lines
from publisher.errors import NotFoundError, SpaceError, UnavailableError
from publisher.plan.make import make_plan
from publisher.plan.model import Action, Plan, PlanItem, Removal
from publisher.publish.report import ImageResult, RunReport
from publisher.state.snapshot import Snapshot
from tests.support.publisher.built_values import AMD64, ARM64, answer, carried_out, digest, entry

if TYPE_CHECKING:
    from publisher.errors import PublisherError
    from publisher.plan.model import ResolvedReference

EMPTY = Snapshot("images.example.org")


def test_a_report_shows_what_is_not_as_it_should_be_and_the_totals() -> None:
    report = RunReport(serial=7, notes=["manifest published again"], removals=(Removal("a/old:1", "no longer in the list"),))
    report.add("a/a:1", ImageResult.PUBLISHED, "new")
    report.add("a/b:1", ImageResult.UNCHANGED, "current")
    report.add("a/c:1", ImageResult.FAILED, "not a tar archive")
    assert report_lines(report) == [
        "manifest published again",
        "published: a/a:1: new",
        "failed: a/c:1: not a tar archive",
        "leaves: a/old:1: no longer in the list",
        "1 published, 1 unchanged, 1 failed; manifest serial 7",
    ]
    assert report.exit_code == 1


def test_nothing_to_do_is_said() -> None:
    report = RunReport(serial=7)
    report.add("a/b:1", ImageResult.UNCHANGED, "current")
    assert report_lines(report) == ["nothing to do: 1 unchanged; manifest serial 7"]
    assert report.exit_code == 0


def test_what_was_cleared_away_is_said_and_is_not_nothing() -> None:
    report = RunReport(serial=8, cleared=["a/old:1 is gone: its removal grace is over"])
    report.add("a/b:1", ImageResult.UNCHANGED, "current")
    assert report_lines(report) == [*report.cleared, "1 unchanged; manifest serial 8"]
    assert report_json(report)["cleared"] == report.cleared
    assert report.exit_code == 0


def test_a_run_cut_short_says_why_and_is_no_success() -> None:
    report = RunReport(stopped=SpaceError("no room left", hint="free space"))
    report.add("a/a:1", ImageResult.SKIPPED, "the run stopped before it")
    assert "stopped: no room left (free space)" in report_lines(report)
    assert report.exit_code == 4
    assert report_json(report)["stopped"] == "no room left (free space)"


def test_a_plan_that_failed_is_not_nothing_to_do() -> None:
    plan = make_plan([entry("a/down:1")], {"a/down:1": UnavailableError("no answer")}, EMPTY)
    assert plan_lines(plan)[-1] == "1 failed"


def test_a_plan_for_people_leaves_out_what_does_not_change() -> None:
    same, new, gone = entry("a/same:1"), entry("a/new:1", [AMD64, ARM64]), entry("a/gone:1")
    before = carried_out(make_plan([same], {"a/same:1": answer("one")}, EMPTY), EMPTY, 1)
    answers: dict[str, ResolvedReference | PublisherError] = {
        "a/same:1": answer("one"),
        "a/new:1": answer("new", [AMD64, ARM64]),
        "a/gone:1": NotFoundError("404", hint="ask its owner"),
    }
    plan = make_plan([same, new, gone], answers, before)
    lines = plan_lines(plan)
    assert lines[-1] == "1 new, 1 unchanged, 1 failed"
    assert lines[0].startswith("new: a/new:1: linux/amd64: new, ")
    assert "ask its owner" in lines[1]
    assert len(lines) == 3
    shown = plan_json(plan)["images"]
    assert isinstance(shown, list)
    assert shown[1]["platforms"][1] == {
        "platform": "linux/arm64",
        "digest": digest("new linux/arm64"),
        "before": None,
        "build": True,
    }
    assert shown[2]["action"] == "failed"


def test_blocked_and_held_images_are_mentioned_in_plans_and_counted_by_themselves() -> None:
    items = (
        PlanItem(entry("a/bad:1"), Action.BLOCKED, "blocked by the operator: stolen data"),
        PlanItem(entry("a/held:1"), Action.HELD, "rolled back by the operator"),
        PlanItem(entry("a/same:1"), Action.UNCHANGED, "current"),
    )
    assert plan_lines(Plan(items)) == [
        "blocked: a/bad:1: blocked by the operator: stolen data",
        "held: a/held:1: rolled back by the operator",
        "nothing to do: 1 unchanged, 1 held, 1 blocked",
    ]
    report = RunReport(serial=7)
    report.add("a/bad:1", ImageResult.BLOCKED, "blocked by the operator: stolen data")
    assert "1 blocked" in report_lines(report)[-1]
    assert report.exit_code == 0


def test_the_last_line_says_how_much_was_published_and_how_long_it_took() -> None:
    report = RunReport(serial=8, published_size=3 * 10**9, seconds=700)
    for number in range(23):
        report.add(f"a/a:{number}", ImageResult.PUBLISHED, "new")
    lines = report_lines(report)
    assert lines[-1] == "23 published (3.0 GB of files), in 12 min; manifest serial 8"
    assert lines[-2] == "published: and 3 more: publisher list --only published"
    assert (report_json(report)["published_size"], report_json(report)["seconds"]) == (3 * 10**9, 700)
