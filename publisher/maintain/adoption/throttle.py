"""How many adopted images get their SIF in one run, and whose turn it is. Pure.

An image that was taken over from the older tool (:mod:`publisher.maintain.adoption.judge`) has a sandbox; its SIF costs a build. A repository of
thousands of them is not built in one run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from publisher.plan.model import Action

if TYPE_CHECKING:
    from publisher.plan.model import Plan, PlanItem


@dataclass(frozen=True)
class BatchQuota:
    """How many adopted images get their SIF in one run, and whose turn it is.

    Attributes:
        limit: images.
        turn: grows from day to day: where the run begins among those that wait, so that failing ones hold up nobody for long.
    """

    limit: int
    turn: int


def paced(plan: Plan, pace: BatchQuota) -> Plan:
    """A plan that leaves those adopted images alone that get their SIF in a later run."""
    waiting = [item.entry.name for item in plan.items if _wants_sifs_alone(item)]
    first = pace.turn * pace.limit % max(1, len(waiting))
    later = set((waiting[first:] + waiting[:first])[pace.limit :])
    reason = "adopted; its SIF is made in a later run"
    return replace(
        plan,
        items=tuple(
            replace(item, action=Action.UNCHANGED, reason=reason, targets=()) if item.entry.name in later else item
            for item in plan.items
        ),
    )


def _wants_sifs_alone(item: PlanItem) -> bool:
    of_adopted = [target.adopted is not None and target.previous == target.digest for target in item.targets]
    return bool(of_adopted) and all(of_adopted) and not item.leaving
