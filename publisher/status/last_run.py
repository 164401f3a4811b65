"""What the last run said of itself, in a file of the state directory: for metrics, which are asked for between runs."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import HOST_NEEDS_ATTENTION

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.publish.report import RunReport
    from publisher.registry.client import RegistryUse

_log = logging.getLogger(__name__)
_NAME = "last-run.json"
_LAGS_KEPT, _MOST_LAGS = 30 * 86400, 5000


@dataclass(frozen=True)
class LastRun:
    """Facts of the last run.

    Attributes:
        finished: when it ended, seconds since the epoch; 0 if there was none.
        succeeded: when the last run ended that needed no operator; 0 if there was none.
        exit_code: its exit code.
        withheld: whether removals were withheld.
        results: result -> number of images.
        phases: phase -> seconds.
        bytes: direction (``fetched``, ``stored``, ``published``) -> bytes.
        transactions: seconds of each transaction of the repository.
        requests: registry or mirror -> number of requests.
        remaining: registry or mirror -> pulls that its limit still allowed at the end.
        behind: origin that follows another one -> why it lacks something.
        lags: end of the run, and seconds from the change of a tag to its publication, of all runs in the last 30 days.
    """

    finished: float = 0
    succeeded: float = 0
    exit_code: int = 0
    withheld: bool = False
    results: dict[str, int] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    transactions: list[float] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    remaining: dict[str, float] = field(default_factory=dict)
    lags: list[tuple[int, int]] = field(default_factory=list)
    behind: dict[str, str] = field(default_factory=dict)


def make_last_run(report: RunReport, use: RegistryUse, now: float, before: LastRun) -> LastRun:
    """Return the facts of a run.

    Args:
        report: its report.
        use: what it asked of registries.
        now: when it ended, seconds since the epoch.
        before: the facts of the run before it.
    """
    results: dict[str, int] = {}
    for outcome in report.outcomes.values():
        results[outcome.result.value] = results.get(outcome.result.value, 0) + 1
    recent = [(when, lag) for when, lag in before.lags if when > now - _LAGS_KEPT]
    return LastRun(
        finished=now,
        succeeded=before.succeeded if report.exit_code == HOST_NEEDS_ATTENTION else now,
        exit_code=report.exit_code,
        withheld=report.withheld is not None,
        results=results,
        phases=report.phases,
        bytes={"fetched": use.received, "stored": report.stored_size, "published": report.published_size},
        transactions=report.transactions,
        requests=dict(use.requests),
        remaining=dict(use.remaining),
        behind=report.behind,
        lags=[*recent, *((int(now), lag) for lag in report.lags)][-_MOST_LAGS:],
    )


def load_last_run(state: Path) -> LastRun:
    """Return the facts of the last run; those of none if the file is missing or damaged."""
    try:
        return LastRun(**json.loads((state / _NAME).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        _log.debug("nothing is known of the last run: %s", error)
        return LastRun()


def save_last_run(state: Path, last: LastRun) -> None:
    """Remember the facts of a run. Raises OSError."""
    files.replace(str(state / _NAME), json.dumps(asdict(last)).encode())
