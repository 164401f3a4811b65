from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.plan.make import make_plan
from publisher.publish.report import ImageResult, RunReport
from publisher.state.outcomes import FAILING, LastOutcome, Outcomes
from publisher.status.lag import lag_of, percentile, run_lags
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.recorded_sync import EMPTY

if TYPE_CHECKING:
    from publisher.plan.model import Plan

FAILED_SINCE = LastOutcome(FAILING, "no tar", 400)


@pytest.mark.parametrize(
    ("created", "lag"),
    [(0, 100), (850, 100), (950, 50), (1001, 100)],
    ids=["unknown", "built before", "built since", "built in the future"],
)
def test_a_change_took_no_longer_than_since_the_last_look_and_since_the_image_was_built(created: int, lag: int) -> None:
    assert lag_of(1000, 900, created) == lag


def plan(*names: str) -> Plan:
    return make_plan([entry(name) for name in names], {name: answer(name) for name in names}, EMPTY)


def test_only_what_a_run_published_counts_and_failures_before_count_from_the_first() -> None:
    report = RunReport()
    report.add("a/a:1", ImageResult.PUBLISHED, "new")
    report.add("a/b:1", ImageResult.PUBLISHED, "new")
    report.add("a/c:1", ImageResult.FAILED, "no tar")
    made = plan("a/a:1", "a/b:1", "a/c:1")
    before = Outcomes({"a/b:1": FAILED_SINCE}, started=900)
    assert run_lags(made, report, before, lambda _: 0, 1000) == [100, 600]
    assert run_lags(made, report, Outcomes(), lambda _: 0, 1000) == []


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([30, 10, 20], share) for share in (0, 0.5, 0.9)] == [10, 20, 30]
