"""Turns the report of a run into the outcomes that are remembered and published (:mod:`publisher.state.outcomes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import CommandError, OriginError, RepositoryError, SpaceError, UnavailableError
from publisher.plan.backoff import FAULTS_OF_IMAGES, BackoffError, attempt
from publisher.publish.report import ImageResult
from publisher.state.outcomes import FAILING, GONE, WAITING, LastOutcome, Outcomes

if TYPE_CHECKING:
    from publisher.plan.model import Plan, PlanItem
    from publisher.publish.report import Outcome, RunReport

_PASSING = (CommandError, OriginError, RepositoryError, SpaceError, UnavailableError)
"""Failures of a registry or of the publisher's host."""
_STATES = {ImageResult.FAILED: FAILING, ImageResult.GONE: GONE, ImageResult.SKIPPED: WAITING}


def remember(previous: Outcomes, plan: Plan, report: RunReport, *, started: int, now: int) -> Outcomes:
    """Return what is known of the images after a run.

    An image without a result in the report counts as published. A run of some names leaves what is known of the others.

    Args:
        previous: what was known before the run.
        plan: the plan of the run.
        report: what has become of it.
        started: when the run began, seconds since the epoch.
        now: when it ended.
    """
    unlisted = [pattern.covers for pattern in plan.unlisted]
    planned = {item.entry.name for item in plan.items}
    images = {
        name: last
        for name, last in previous.images.items()
        if name not in planned and (not plan.whole or any(covers(name) for covers in unlisted))
    }
    for item in plan.items:
        result = report.outcomes.get(item.entry.name)
        if result is not None and result.result in _STATES:
            images[item.entry.name] = _after(previous.images.get(item.entry.name), item, result, now)
    if not plan.whole:
        return Outcomes(images, previous.patterns, previous.started, previous.finished, previous.problem)
    texts = {pattern.text for pattern in plan.unlisted}
    patterns = {text: names for text, names in previous.patterns.items() if text in texts} | dict(plan.patterns)
    return Outcomes(images, patterns, started, now, None if report.stopped is None else str(report.stopped))


def _after(last: LastOutcome | None, item: PlanItem, result: Outcome, now: int) -> LastOutcome:
    """Return the outcome of an image that is not, or not newly, published."""
    state = _STATES[result.result]
    if last is None or last.state != state:
        last = LastOutcome(state, result.reason, now)
    elif isinstance(item.error, BackoffError):
        return last
    return last.again(
        result.reason,
        now,
        attempt(item),
        backs_off=isinstance(result.error, FAULTS_OF_IMAGES),
        passing=state == WAITING or isinstance(result.error, _PASSING),
    )
