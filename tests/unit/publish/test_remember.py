"""What a run remembers of the images of the list."""

from __future__ import annotations

from dataclasses import replace

from publisher.errors import BuildError, NotFoundError, OriginError, SpaceError, UnavailableError
from publisher.plan.make import make_plan
from publisher.plan.model import Plan, UnlistedPattern
from publisher.publish.remember import remember
from publisher.publish.report import ImageResult, RunReport
from publisher.state.outcomes import FAILING, GONE, WAITING, Outcomes
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.recorded_sync import EMPTY, World

NOTHING = Outcomes()


def plan_of(*names: str) -> Plan:
    return make_plan([entry(name) for name in names], {name: answer(name) for name in names}, EMPTY)


def failed(*names: str, error: Exception | None = None) -> RunReport:
    report = RunReport()
    for name in names:
        report.fail(name, error or BuildError("it has no shell"))  # type: ignore[arg-type]
    return report


def test_an_image_that_fails_is_remembered_with_its_reason_and_the_time_of_the_first_failure() -> None:
    plan = plan_of("a/a:1", "a/bad:1")
    first = remember(NOTHING, plan, failed("a/bad:1"), started=90, now=100)
    again = remember(first, plan, failed("a/bad:1", error=BuildError("too large")), started=190, now=200)
    assert first.images.keys() == {"a/bad:1"}
    last = again.images["a/bad:1"]
    assert (last.state, last.reason, last.since, last.tries, last.last_try) == (FAILING, "too large", 100, 2, 200)
    assert (again.started, again.finished, again.problem) == (190, 200, None)


def test_only_faults_of_the_image_delay_its_next_try() -> None:
    plan = plan_of("a/bad:1")
    for error, is_delayed in ((BuildError("no shell"), True), (UnavailableError("down"), False), (OriginError("down"), False)):
        once = remember(NOTHING, plan, failed("a/bad:1", error=error), started=0, now=100)
        twice = remember(once, plan, failed("a/bad:1", error=error), started=0, now=100)
        assert bool(twice.images["a/bad:1"].next_try) is is_delayed


def test_an_image_that_is_published_again_is_forgotten() -> None:
    plan = plan_of("a/bad:1")
    known = remember(NOTHING, plan, failed("a/bad:1"), started=0, now=100)
    report = RunReport()
    report.add("a/bad:1", ImageResult.PUBLISHED, "new")
    assert remember(known, plan, report, started=0, now=200).images == {}
    assert remember(known, plan, RunReport(), started=0, now=200).images == {}  # it waits in the transaction under way


def test_an_image_that_waits_for_its_next_try_keeps_its_outcome() -> None:
    world = World()
    world.building["a/bad:1"] = BuildError("it has no shell")
    known = remember(NOTHING, plan_of("a/bad:1"), failed("a/bad:1"), started=0, now=100)
    known = remember(known, plan_of("a/bad:1"), failed("a/bad:1"), started=0, now=100)
    report = world.run(entry("a/bad:1"), outcomes=known, now=200)
    assert report.outcomes["a/bad:1"].result is ImageResult.FAILED
    assert world.builder.kept == []
    assert world.outcomes.images == known.images


def test_names_that_left_the_list_are_forgotten_unless_their_pattern_could_not_be_listed() -> None:
    known = remember(NOTHING, plan_of("a/a:1", "b/b:1"), failed("a/a:1", "b/b:1"), started=0, now=100)
    known = replace(known, patterns={"b/b:*": ("b/b:1",), "c/c:*": ("c/c:1",)})
    down = UnlistedPattern("b/b:*", lambda name: name.startswith("b/b:"), UnavailableError("down"))
    plan = replace(plan_of("d/d:1"), unlisted=(down,), patterns={"d/d:*": ("d/d:1",)})
    after = remember(known, plan, RunReport(), started=0, now=200)
    assert after.images.keys() == {"b/b:1"}
    assert after.patterns == {"b/b:*": ("b/b:1",), "d/d:*": ("d/d:1",)}


def test_a_run_of_some_names_leaves_the_others_alone() -> None:
    known = replace(
        remember(NOTHING, plan_of("a/a:1", "b/b:1"), failed("a/a:1", "b/b:1"), started=0, now=100), problem="disk full"
    )
    after = remember(known, replace(plan_of("a/a:1"), whole=False), RunReport(), started=190, now=200)
    assert after.images.keys() == {"b/b:1"}
    assert (after.started, after.finished, after.problem) == (0, 100, "disk full")


def test_a_run_remembers_what_is_gone_what_it_did_not_reach_and_why_it_stopped() -> None:
    world = World()
    world.answers["a/gone:1"] = NotFoundError("no such tag")
    published = World()
    published.run(entry("a/gone:1"))
    snapshot = replace(EMPTY, records={"a/gone:1": published.record("a/gone:1")})
    world.fetching["a/full:1"] = SpaceError("the disk is full")
    world.free = 0  # so that one image is fetched at a time
    report = world.run(entry("a/gone:1"), entry("a/full:1"), entry("a/late:1"), snapshot=snapshot, allow_mass_removal=True)
    states = {name: outcome.state for name, outcome in world.outcomes.images.items()}
    assert states == {"a/gone:1": GONE, "a/full:1": WAITING, "a/late:1": WAITING}
    assert "the run stopped before it: the disk is full" in world.outcomes.images["a/late:1"].reason
    assert world.outcomes.problem == str(report.stopped)


def test_outcomes_are_published_with_the_last_transaction_and_only_if_they_say_something_new() -> None:
    world = World()
    world.building["a/bad:1"] = BuildError("it has no shell")
    world.run(entry("a/a:1"), entry("a/bad:1"))
    assert world.publication.transactions == [["a/a:1"]]
    assert world.publication.outcomes.images.keys() == {"a/bad:1"}

    again = World()
    again.building["a/bad:1"] = BuildError("it has no shell")
    again.run(entry("a/bad:1"), snapshot=replace(EMPTY, serial=1, outcomes=world.outcomes))
    assert again.publication.transactions == []

    mended = World()
    mended.run(snapshot=replace(EMPTY, serial=1, outcomes=world.outcomes))
    assert mended.publication.transactions == [[]]
    assert mended.publication.outcomes.images == {}
