"""The state of the whole publication: counts, the last run, and what needs attention."""

from __future__ import annotations

from dataclasses import replace

import pytest

from publisher.state.outcomes import FAILING, LastOutcome, Outcomes
from publisher.state.snapshot import Snapshot
from publisher.status.answer import ImageState, Known
from publisher.status.overview import Overview, make_overview
from tests.unit.status.test_answer import NOW, OTHER, TODAY, published, with_outcomes

SIGNED = replace(published("htc/rocky:9", "htc/new:1", "htc/last:1"), serial=3, generated=NOW, expires=NOW + 14 * 86400)


def look(snapshot: Snapshot, now: int = NOW, interval: float | None = 900, running: dict[str, str] | None = None) -> Overview:
    return make_overview(Known(snapshot, OTHER, TODAY, running or {}), now, interval)


def test_counts_times_and_the_next_run_are_shown() -> None:
    found = look(with_outcomes(SIGNED))
    assert found.counts == {ImageState.PUBLISHED: 3, ImageState.WAITING: 2, ImageState.EXPIRED: 1}
    assert (found.serial, found.finished, found.next_run) == (3, NOW, NOW + 900)
    assert (found.problems, found.attention) == ((), ())


def test_failing_images_need_attention() -> None:
    found = look(with_outcomes(SIGNED, htc_new=LastOutcome(FAILING, "no shell", NOW)))
    assert [one.name for one in found.attention] == ["htc/new:1"]


@pytest.mark.parametrize(
    ("snapshot", "after", "words"),
    [
        (Snapshot("images.example.org"), 0, "nothing is published yet"),
        (SIGNED, 8 * 86400, "half of the manifest's lifetime"),
        (SIGNED, 15 * 86400, "the manifest has expired"),
        (replace(SIGNED, outcomes=Outcomes(started=NOW, finished=NOW, problem="the disk is full")), 0, "the disk is full"),
        (replace(SIGNED, outcomes=Outcomes(started=NOW, finished=NOW)), 2701, "three syncs in a row"),
    ],
)
def test_what_an_operator_has_to_see_to_is_said(snapshot: Snapshot, after: int, words: str) -> None:
    found = look(snapshot, NOW + after)
    assert any(words in problem for problem in found.problems)


def test_a_late_run_is_no_problem_where_its_interval_is_unknown_or_a_run_is_under_way() -> None:
    late = replace(SIGNED, outcomes=Outcomes(started=NOW, finished=NOW))
    assert look(late, NOW + 2701, interval=None).problems == ()
    assert look(late, NOW + 2701, running={"htc/new:1": "fetch"}).problems == ()
    assert look(late, NOW + 2700).problems == ()


def test_an_origin_that_is_behind_is_a_problem() -> None:
    found = make_overview(Known(SIGNED, OTHER, TODAY, {}), NOW, 900, {"osdf:///second": "no space left"})
    assert len(found.problems) == 1
    assert found.problems[0].startswith("the origin osdf:///second is behind: no space left; later syncs copy what it lacks")
