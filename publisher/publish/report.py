"""The report of a run: what became of every image, as text for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from publisher.plan.model import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.errors import PublisherError
    from publisher.plan.model import Plan, PlanItem, Removal, UnlistedPattern


class ImageResult(Enum):
    """How it ended for an image."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    GONE = "gone"
    FAILED = "failed"
    SKIPPED = "not tried"


@dataclass(frozen=True)
class Outcome:
    """What became of one image; ``reason`` is one line."""

    name: str
    result: ImageResult
    reason: str


@dataclass
class RunReport:
    """What a run did.

    Attributes:
        outcomes: CVMFS name -> outcome, in the list's order once the run has ended.
        serial: of the manifest when the run ended.
        notes: lines about the run as a whole.
        stopped: why the run ended before its time, None where it did not.
        removals: published names that leave, each with the reason.
        withheld: why they do not leave in this run, None where they do.
        unlisted: wildcards whose tags could not be listed.
        cleared: lines about what was cleared away at the end.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    serial: int = 0
    notes: list[str] = field(default_factory=list)
    stopped: PublisherError | None = None
    removals: tuple[Removal, ...] = ()
    withheld: str | None = None
    unlisted: tuple[UnlistedPattern, ...] = ()
    cleared: list[str] = field(default_factory=list)

    def add(self, name: str, result: ImageResult, reason: str) -> None:
        """Record an outcome."""
        self.outcomes[name] = Outcome(name, result, reason)

    def count(self, result: ImageResult) -> int:
        """How many images ended so."""
        return sum(outcome.result is result for outcome in self.outcomes.values())

    @property
    def exit_code(self) -> int:
        """0 all well, 1 some image failed, the run was cut short, or removals were withheld, or tags not listed."""
        short = self.stopped is not None or self.withheld is not None or self.unlisted
        return 1 if short or self.count(ImageResult.FAILED) or self.count(ImageResult.SKIPPED) else 0

    def to_json(self) -> dict[str, object]:
        """For programs."""
        images = [{"name": one.name, "result": one.result.value, "reason": one.reason} for one in self.outcomes.values()]
        stopped = None if self.stopped is None else str(self.stopped)
        return {
            "serial": self.serial,
            "images": images,
            "notes": self.notes,
            "stopped": stopped,
            **_removals_json(self.removals, self.withheld),
            "unlisted": [{"wildcard": one.wildcard, "reason": str(one.error)} for one in self.unlisted],
            "cleared": self.cleared,
        }

    def lines(self) -> list[str]:
        """For people: what is not as it should be, then the totals."""
        bad = [one for one in self.outcomes.values() if one.result in {ImageResult.FAILED, ImageResult.SKIPPED}]
        found = self.notes + _unlisted_lines(self.unlisted) + [f"{one.result.value}: {one.name}: {one.reason}" for one in bad]
        if self.stopped is not None:
            found.append(f"stopped: {self.stopped}")
        found += [*_removal_lines(self.removals, self.withheld), *self.cleared]
        totals = ", ".join(f"{count} {result.value}" for result in ImageResult if (count := self.count(result)))
        nothing = not self.count(ImageResult.PUBLISHED) and not self.removals and not self.cleared and self.exit_code == 0
        return [*found, f"{'nothing to do: ' if nothing else ''}{totals or 'no images'}; manifest serial {self.serial}"]


def plan_lines(plan: Plan) -> list[str]:
    """A plan for people: a line for every image that something happens to, then the totals."""
    found = [
        f"{item.action.value}: {item.entry.name}: {_text(item)}" for item in plan.items if item.action is not Action.UNCHANGED
    ]
    found = [*plan.notes, *found, *_unlisted_lines(plan.unlisted)]
    found += [f"kept: {name}: {reason}" for name, reason in plan.kept]
    found += _removal_lines(plan.removals, plan.withheld)
    totals = ", ".join(f"{count} {action.value}" for action in Action if (count := plan.count(action)))
    idle = not (plan.work or plan.removals or plan.unlisted or plan.count(Action.FAILED))
    return [*found, f"{'nothing to do: ' if idle else ''}{totals or 'no images'}"]


def _unlisted_lines(unlisted: Sequence[UnlistedPattern]) -> list[str]:
    return [f"failed: {one.wildcard}: its tags cannot be listed: {one.error}" for one in unlisted]


def _removal_lines(removals: Sequence[Removal], withheld: str | None) -> list[str]:
    if withheld is not None:
        return [f"withheld: {withheld}", *(f"would leave: {one.name}: {one.reason}" for one in removals)]
    return [f"leaves: {one.name}: {one.reason}" for one in removals]


def _removals_json(removals: Sequence[Removal], withheld: str | None) -> dict[str, object]:
    return {"removals": [{"name": one.name, "reason": one.reason} for one in removals], "withheld": withheld}


def plan_json(plan: Plan) -> dict[str, object]:
    """A plan for programs."""
    return {
        "images": [
            {
                "name": item.entry.name,
                "reference": str(item.entry.reference),
                "action": item.action.value,
                "reason": _text(item),
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
            for item in plan.items
        ],
        "kept": [{"name": name, "reason": reason} for name, reason in plan.kept],
        **_removals_json(plan.removals, plan.withheld),
        "unlisted": [{"wildcard": one.wildcard, "reason": str(one.error)} for one in plan.unlisted],
        "notes": list(plan.notes),
    }


def _text(item: PlanItem) -> str:
    hint = item.error.hint if item.error is not None else None
    return item.reason if hint is None else f"{item.reason} ({hint})"
