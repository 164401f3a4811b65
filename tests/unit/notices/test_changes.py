"""When an image's change of state is told, and that it is told once."""

from __future__ import annotations

from dataclasses import replace

from publisher.notices.changes import StateChange, ToldState, find_changes
from publisher.state.outcomes import FAILING, LastOutcome, Outcomes
from publisher.status.answer import Known
from tests.support.page.world import NOW, TODAY, PageWorld, record

QUIET = 6 * 3600
FAILS = LastOutcome(FAILING, "it has no shell", NOW - 60)


class Told:
    """What a series of runs tells."""

    def __init__(self) -> None:
        self.world = PageWorld()
        self.told: dict[str, ToldState] | None = None
        self.now = NOW
        self.run()

    def run(self, later: float = 0, **outcomes: LastOutcome) -> list[StateChange]:
        self.now += int(later)
        images = {name.replace("_", "/") + ":1": last for name, last in outcomes.items()}
        kept = {name: last for name, last in self.world.snapshot.outcomes.images.items() if name not in images}
        self.world.snapshot = replace(self.world.snapshot, outcomes=Outcomes({**kept, **images}))
        changes, self.told = find_changes(Known(self.world.snapshot, self.world.image_list, TODAY), self.told, self.now, QUIET)
        return changes


def test_the_first_run_notes_the_states_and_tells_nobody() -> None:
    told = Told()
    assert told.told is not None
    assert told.told["htc/failing:1"] == ToldState("failing", 0, "htc")
    assert told.run() == []


def test_a_change_is_told_once_with_the_state_before_and_the_owner() -> None:
    told = Told()
    changes = told.run(900, htc_new=FAILS)
    assert changes == [StateChange("htc/new:1", "failing", "waiting", "it has no shell", NOW - 60, "")]
    told.world.rebuild("htc/rocky:9")
    assert told.run(900, htc_new=replace(FAILS, tries=2)) == []


def test_an_image_that_comes_and_goes_is_quiet_until_the_period_is_over() -> None:
    told = Told()
    fails = Outcomes({"htc/rocky:9": replace(FAILS, since=NOW)}, started=NOW)
    works = Outcomes(started=NOW)

    def run(outcomes: Outcomes, later: int) -> list[str]:
        told.world.snapshot = replace(told.world.snapshot, outcomes=outcomes)
        return [f"{change.before} {change.state}" for change in told.run(later) if change.name == "htc/rocky:9"]

    assert run(fails, 60) == ["published failing"]
    assert run(works, 900) == []
    assert run(fails, 900) == []
    assert run(works, 900) == []
    assert run(works, QUIET) == ["failing published"]


def test_a_registry_that_is_down_for_an_hour_is_no_news() -> None:
    told = Told()
    down = replace(FAILS, since=NOW, passing=True)
    assert told.run(900, htc_new=down) == []
    assert [change.name for change in told.run(QUIET, htc_new=down)] == ["htc/new:1"]


def test_what_left_the_list_is_told_to_the_owner_it_had() -> None:
    told = Told()
    listed = tuple(entry for entry in told.world.image_list.entries if entry.name != "htc/failing:1")
    told.world.image_list = replace(told.world.image_list, entries=listed)
    told.world.snapshot = replace(told.world.snapshot, outcomes=Outcomes())
    (change,) = [change for change in told.run(900) if change.name == "htc/failing:1"]
    assert (change.state, change.before, change.owner) == ("not listed", "failing", "htc")
    assert told.run(900) == []


def test_a_new_image_is_told_when_it_is_published_and_not_while_it_waits() -> None:
    told = Told()
    text = "version: 1\nimages:\n  - {image: docker.io/htc/later:1, owner: ann@example.org}\n"
    told.world.image_list = PageWorld(text=text).image_list
    assert "htc/later:1" not in [change.name for change in told.run(900)]
    told.world.snapshot = told.world.snapshot.with_records({"htc/later:1": record("htc/later:1")})
    (change,) = [change for change in told.run(900) if change.name == "htc/later:1"]
    assert (change.state, change.before, change.owner) == ("published", "", "ann@example.org")
