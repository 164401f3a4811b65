"""How long changes of tags took to be published. Pure.

Registries do not say when a tag changed. It changed after the last run that saw it unchanged, or when the image began to wait or
fail, and not before its image was built. So a lag is the longest that it can have been. Times are seconds since the epoch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from publisher.plan.model import Action
from publisher.publish.report import ImageResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.plan.model import Plan, PlanItem
    from publisher.publish.report import RunReport
    from publisher.state.outcomes import Outcomes


def lag_of(published: int, unchanged: int, created: int) -> int:
    """Return the seconds that a change took at most.

    Args:
        published: when it was published.
        unchanged: when the tag was last seen unchanged, or the image began to wait or fail.
        created: when the image was built, 0 if that is not known; a time after ``published`` is not believed.
    """
    return max(0, published - max(unchanged, 0 if created > published else created))


def run_lags(plan: Plan, report: RunReport, before: Outcomes, created: Callable[[PlanItem], int], now: int) -> list[int]:
    """Return the lags of the images that a run has published because their tags are new or have changed.

    Args:
        plan: the plan of the run.
        report: its report.
        before: what was known of the images before the run; without an earlier run nothing is known of any lag.
        created: returns when the image of an item was built, 0 if that is not known.
        now: when the run ended.
    """
    if not before.started:
        return []
    changed = [item for item in plan.items if item.action in {Action.NEW, Action.CHANGED}]
    results = {name for name, outcome in report.outcomes.items() if outcome.result is ImageResult.PUBLISHED}
    return [
        lag_of(now, last.since if (last := before.images.get(item.entry.name)) is not None else before.started, created(item))
        for item in changed
        if item.entry.name in results
    ]


def percentile(values: Sequence[int], share: float) -> int:
    """Return the smallest value that is not below a share of the values (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
