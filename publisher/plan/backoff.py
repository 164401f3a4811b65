"""Holds back images that failed before, so that a failing build does not cost every run its time. Pure.

The delay grows exponentially with the number of tries (:meth:`publisher.state.outcomes.LastOutcome.again`). Another digest, or
another demand of the entry, is tried at once, and so is an image that the operator names.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.errors import BlobError, BuildError, LayerError, PublisherError, TestRunError
from publisher.plan.model import Action
from publisher.state.outcomes import FAILING

if TYPE_CHECKING:
    from collections.abc import Collection

    from publisher.plan.model import Plan, PlanItem
    from publisher.state.outcomes import Outcomes

FAULTS_OF_IMAGES = (BlobError, BuildError, LayerError, TestRunError)
"""Failures that the same image meets again; all others are of a registry or of the host, which the next run tries again."""


class BackoffError(PublisherError):
    """An image that failed before and is tried again later."""


def attempt(item: PlanItem) -> str:
    """Return what an item tries: the digest, and what the entry demands of the build."""
    entry = item.entry
    demands = [*map(str, entry.platforms), *sorted(entry.formats), str(entry.max_size or "")]
    return " ".join([item.digest, *demands]).rstrip()


def hold_back(plan: Plan, outcomes: Outcomes, now: int, named: Collection[str] = ()) -> Plan:
    """Return a plan in which images that failed before wait for their next try.

    Args:
        plan: the plan.
        outcomes: what became of the images in the last runs.
        now: seconds since the epoch.
        named: names that the operator asked for; they are tried at once.
    """
    waiting = {item.entry.name for item in plan.work if item.entry.name not in named and _waits(item, outcomes, now)}
    return replace(plan, items=tuple(_held(item, outcomes) if item.entry.name in waiting else item for item in plan.items))


def _waits(item: PlanItem, outcomes: Outcomes, now: int) -> bool:
    last = outcomes.images.get(item.entry.name)
    return last is not None and last.state == FAILING and now < last.next_try and last.attempt == attempt(item)


def _held(item: PlanItem, outcomes: Outcomes) -> PlanItem:
    last = outcomes.images[item.entry.name]
    when = datetime.fromtimestamp(last.next_try, UTC)
    reason = f"failed {last.tries} times and is tried again after {when:%Y-%m-%d %H:%M} UTC: {last.reason}"
    error = BackoffError(reason, hint=f"to try it now, run: publisher sync {item.entry.name}")
    return replace(item, action=Action.FAILED, reason=reason, targets=(), leaving=(), error=error)
