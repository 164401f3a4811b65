from __future__ import annotations

import pytest

from publisher.plan.backoff import BackoffError, attempt, hold_back
from publisher.plan.make import make_plan
from publisher.plan.model import Action, Plan
from publisher.state.outcomes import FAILING, WAITING, LastOutcome, Outcomes
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.recorded_sync import EMPTY


def plan_of(*names: str, **entry_fields: object) -> Plan:
    return make_plan([entry(name, **entry_fields) for name in names], {name: answer(name) for name in names}, EMPTY)  # type: ignore[arg-type]


def failed(plan: Plan, *, next_try: int = 2000, state: str = FAILING) -> Outcomes:
    last = LastOutcome(state, "it has no shell", 1000, 3, 1500, next_try, attempt(plan.items[0]))
    return Outcomes({plan.items[0].entry.name: last})


def test_an_image_that_failed_waits_for_its_next_try_and_says_so() -> None:
    plan = plan_of("a/bad:1", "a/good:1")
    held = hold_back(plan, failed(plan), 1999)
    assert [item.entry.name for item in held.work] == ["a/good:1"]
    bad = held.items[0]
    assert (bad.action, bad.targets) == (Action.FAILED, ())
    assert isinstance(bad.error, BackoffError)
    assert "failed 3 times and is tried again after 1970-01-01 00:33 UTC: it has no shell" in bad.explanation
    assert "publisher sync a/bad:1" in bad.explanation


@pytest.mark.parametrize(
    ("now", "state", "named"),
    [(2000, FAILING, ()), (1999, WAITING, ()), (1999, FAILING, ("a/bad:1",))],
    ids=["due", "waiting", "named"],
)
def test_an_image_is_tried_when_it_is_due_or_named(now: int, state: str, named: tuple[str, ...]) -> None:
    plan = plan_of("a/bad:1")
    assert hold_back(plan, failed(plan, state=state), now, named).work == plan.work


def test_another_demand_of_the_entry_is_tried_at_once() -> None:
    before, after = plan_of("a/bad:1", max_size=10), plan_of("a/bad:1", max_size=20)
    assert hold_back(after, failed(before), 1999).work == after.work


def test_another_digest_is_tried_at_once() -> None:
    before = plan_of("a/bad:1")
    after = make_plan([entry("a/bad:1")], {"a/bad:1": answer("a/other:1")}, EMPTY)
    assert hold_back(after, failed(before), 1999).work == after.work
