"""Renders plans and run reports, as text for people and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.plan.model import Action
from publisher.publish.report import ImageResult
from publisher.system.progress import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.plan.model import Plan, PlanItem, Removal, UnlistedPattern
    from publisher.publish.report import RunReport


_SHOWN = 20
"""Published images that a report names."""


def plan_lines(plan: Plan) -> list[str]:
    """Return a plan for people: a line for every image that something happens to, then the totals."""
    changes = [
        f"{item.action.value}: {item.entry.name}: {item.explanation}"
        for item in plan.items
        if item.action is not Action.UNCHANGED
    ]
    lines = [*plan.notes, *changes, *_unlisted_lines(plan.unlisted)]
    lines += [f"kept: {name}: {reason}" for name, reason in plan.kept]
    lines += _removal_lines(plan.removals, plan.withheld)
    totals = ", ".join(f"{count} {action.value}" for action in Action if (count := plan.count(action)))
    is_idle = not (plan.work or plan.removals or plan.unlisted or plan.count(Action.FAILED))
    return [*lines, f"{'nothing to do: ' if is_idle else ''}{totals or 'no images'}"]


def plan_json(plan: Plan) -> dict[str, object]:
    """Return a plan for programs."""
    return {
        "images": [_item_json(item) for item in plan.items],
        "kept": [{"name": name, "reason": reason} for name, reason in plan.kept],
        **_removals_json(plan.removals, plan.withheld),
        "unlisted": _unlisted_json(plan.unlisted),
        "notes": list(plan.notes),
    }


def report_lines(report: RunReport) -> list[str]:
    """Return a report for people: what was published, what needs attention, and the totals as the last line."""
    published = [outcome for outcome in report.outcomes.values() if outcome.result is ImageResult.PUBLISHED]
    failures = [outcome for outcome in report.outcomes.values() if outcome.result in {ImageResult.FAILED, ImageResult.SKIPPED}]
    lines = [*report.notes, *(f"published: {outcome.name}: {outcome.reason}" for outcome in published[:_SHOWN])]
    if len(published) > _SHOWN:
        lines.append(f"published: and {len(published) - _SHOWN} more: publisher list --only published")
    lines += _unlisted_lines(report.unlisted)
    lines += [f"{outcome.result.value}: {outcome.name}: {outcome.reason}" for outcome in failures]
    lines += [*report.restored, *(f"failed: {error}" for error in report.lost)]
    if report.stopped is not None:
        lines.append(f"stopped: {report.stopped}")
    lines += [*_removal_lines(report.removals, report.withheld), *report.cleared]
    totals = ", ".join(f"{count} {result.value}" for result in ImageResult if (count := report.count(result)))
    is_idle = not (
        report.count(ImageResult.PUBLISHED) or report.removals or report.cleared or report.restored or report.exit_code
    )
    size = f" ({format_size(report.published_size)} of files)" if report.published_size else ""
    took = f", in {format_duration(report.seconds)}" if report.seconds else ""
    return [*lines, f"{'nothing to do: ' if is_idle else ''}{totals or 'no images'}{size}{took}; manifest serial {report.serial}"]


def report_json(report: RunReport) -> dict[str, object]:
    """Return a report for programs."""
    return {
        "serial": report.serial,
        "images": [
            {"name": outcome.name, "result": outcome.result.value, "reason": outcome.reason}
            for outcome in report.outcomes.values()
        ],
        "notes": report.notes,
        "stopped": None if report.stopped is None else str(report.stopped),
        **_removals_json(report.removals, report.withheld),
        "unlisted": _unlisted_json(report.unlisted),
        "cleared": report.cleared,
        "restored": report.restored,
        "lost": list(map(str, report.lost)),
        "published_size": report.published_size,
        "seconds": round(report.seconds, 1),
    }


def _item_json(item: PlanItem) -> dict[str, object]:
    return {
        "name": item.entry.name,
        "reference": str(item.entry.reference),
        "action": item.action.value,
        "reason": item.explanation,
        "digest": item.digest or None,
        "platforms": [
            {
                "platform": str(target.platform),
                "digest": target.digest,
                "before": target.previous,
                "build": target.published is None,
            }
            for target in item.targets
        ],
    }


def _unlisted_lines(unlisted: Sequence[UnlistedPattern]) -> list[str]:
    return [f"failed: {pattern.text}: its tags cannot be listed: {pattern.error}" for pattern in unlisted]


def _unlisted_json(unlisted: Sequence[UnlistedPattern]) -> list[dict[str, str]]:
    return [{"pattern": pattern.text, "reason": str(pattern.error)} for pattern in unlisted]


def _removal_lines(removals: Sequence[Removal], withheld: str | None) -> list[str]:
    if withheld is not None:
        return [f"withheld: {withheld}", *(f"would leave: {removal.name}: {removal.reason}" for removal in removals)]
    return [f"leaves: {removal.name}: {removal.reason}" for removal in removals]


def _removals_json(removals: Sequence[Removal], withheld: str | None) -> dict[str, object]:
    return {
        "removals": [{"name": removal.name, "reason": removal.reason} for removal in removals],
        "withheld": withheld,
    }
