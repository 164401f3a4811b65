from __future__ import annotations

from dataclasses import replace

from publisher.plan.make import make_plan
from publisher.plan.priority import by_priority
from publisher.state.outcomes import FAILING, WAITING, LastOutcome, Outcomes
from tests.support.publisher.built_values import answer, carried_out, entry
from tests.support.publisher.recorded_sync import EMPTY


def test_named_before_found_new_before_changed_small_before_large_and_failing_last() -> None:
    published = carried_out(make_plan([entry("a/changed:1")], {"a/changed:1": answer("before")}, EMPTY), EMPTY, 1)
    names = ["a/failing:1", "a/found:1", "a/changed:1", "a/large:1", "a/small:1", "a/small:2", "a/waiting:1"]
    plan = make_plan([entry(name) for name in names], {name: answer(name) for name in names}, published)
    plan = replace(plan, patterns={"docker.io/a/found:*": ("a/found:1",)})
    outcomes = Outcomes(
        {
            "a/failing:1": LastOutcome(FAILING, "no shell", 1),
            "a/waiting:1": LastOutcome(WAITING, "the run stopped before it", 1),
        }
    )
    sizes = dict.fromkeys(names, 5) | {"a/large:1": 9, "a/found:1": 1, "a/failing:1": 1, "a/changed:1": 1}
    order = [item.entry.name for item in by_priority(plan, outcomes, sizes)]
    assert order == ["a/small:1", "a/small:2", "a/waiting:1", "a/large:1", "a/changed:1", "a/found:1", "a/failing:1"]
