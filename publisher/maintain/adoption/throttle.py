"""The batch quota of an adoption: how many adopted images get their SIF in one run, and which ones. Pure.

An image adopted from the older tool (:mod:`publisher.maintain.adoption.judge`) has a sandbox, but each SIF has to be built. The
quota spreads the builds of a repository with thousands of images over many runs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from publisher.plan.model import Action

if TYPE_CHECKING:
    from publisher.plan.model import Plan, PlanItem

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchQuota:
    """The number of adopted images that get their SIF in one run, and where the run begins.

    Attributes:
        limit: number of images.
        day: number of the day. Each day begins at other images, so that images that always fail do not hold up the others.
    """

    limit: int
    day: int


def throttle_adopted(plan: Plan, quota: BatchQuota) -> Plan:
    """Return a plan without the adopted images that exceed the quota: they stay unchanged and get their SIF in a later run."""
    waiting = [item.entry.name for item in plan.items if _needs_only_sifs(item)]
    first = quota.day * quota.limit % max(1, len(waiting))
    later = set((waiting[first:] + waiting[:first])[quota.limit :])
    if later:
        _log.info("%d adopted image(s) get their SIF in a later run (adopt_sifs_per_run is %d)", len(later), quota.limit)
    reason = "adopted; its SIF is made in a later run"
    return replace(
        plan,
        items=tuple(
            replace(item, action=Action.UNCHANGED, reason=reason, targets=()) if item.entry.name in later else item
            for item in plan.items
        ),
    )


def _needs_only_sifs(item: PlanItem) -> bool:
    """Return whether all that the item publishes are SIFs of adopted versions."""
    needs_sif = [target.adopted is not None and target.previous == target.digest for target in item.targets]
    return bool(needs_sif) and all(needs_sif) and not item.leaving
