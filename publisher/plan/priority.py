"""The order in which a run works on images, so that most people wait for as short a time as possible. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.plan.model import Action
from publisher.state.outcomes import FAILING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.plan.model import Plan, PlanItem
    from publisher.state.outcomes import Outcomes


def by_priority(plan: Plan, outcomes: Outcomes, sizes: Mapping[str, int]) -> tuple[PlanItem, ...]:
    """Return the items of a plan that need work, those to begin with first.

    Images that failed in the last run come last. Before them, images that the operator or the list names come before those that
    a pattern found, new names before changed ones, small images before large ones, and otherwise the order of the list counts.

    Args:
        plan: the plan.
        outcomes: what became of the images in the last runs.
        sizes: CVMFS name -> bytes to fetch for it at most; missing where that is not known.
    """
    found = {name for names in plan.patterns.values() for name in names}

    def rank(item: PlanItem) -> tuple[bool, bool, bool, int]:
        name = item.entry.name
        last = outcomes.images.get(name)
        is_failing = last is not None and last.state == FAILING
        return is_failing, name in found, item.action is not Action.NEW, sizes.get(name, 0)

    return tuple(sorted(plan.work, key=rank))
