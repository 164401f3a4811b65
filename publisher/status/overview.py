"""The state of the whole publication in one value: counts by state, the last run, and what needs attention. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.state.snapshot import due_for_signing
from publisher.status.answer import ImageState, answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from publisher.status.answer import ImageAnswer, Known

_NEEDS_ATTENTION = (ImageState.FAILING, ImageState.GONE)


@dataclass(frozen=True)
class Overview:
    """The state of the whole publication.

    Attributes:
        repository: the repository's name.
        serial, signed, expires: of the published manifest; times are seconds since the epoch.
        started, finished: the last run of the whole list, 0 if there was none.
        next_run: when the next one is expected, None if that is not known.
        counts: state -> number of names, without states that no name has.
        running: number of images that the run under way has not finished.
        attention: images that fail or that their registries no longer have.
        problems: lines about the publication as a whole that an operator has to see to.
    """

    repository: str
    serial: int
    signed: int
    expires: int
    started: int
    finished: int
    next_run: int | None
    counts: dict[ImageState, int]
    running: int
    attention: tuple[ImageAnswer, ...]
    problems: tuple[str, ...]


def make_overview(known: Known, now: int, interval: float | None, behind: Mapping[str, str] | None = None) -> Overview:
    """Return the overview.

    Args:
        known: all that is known.
        now: seconds since the epoch.
        interval: seconds between two runs as the operator has scheduled them, None if that is not known.
        behind: origin that follows another one -> why it lacked something after the last run.
    """
    snapshot, outcomes = known.snapshot, known.snapshot.outcomes
    answers = [answer(known, [name]) for name in known.names]
    counts = Counter(found.state for found in answers)
    return Overview(
        repository=snapshot.repository,
        serial=snapshot.serial,
        signed=snapshot.generated,
        expires=snapshot.expires,
        started=outcomes.started,
        finished=outcomes.finished,
        next_run=None if interval is None or not outcomes.started else outcomes.started + int(interval),
        counts={state: counts[state] for state in ImageState if counts[state]},
        running=len(known.running),
        attention=tuple(found for found in answers if found.state in _NEEDS_ATTENTION),
        problems=(*_problems(known, now, interval), *(_is_behind(name, reason) for name, reason in (behind or {}).items())),
    )


def _problems(known: Known, now: int, interval: float | None) -> Iterable[str]:
    snapshot, outcomes = known.snapshot, known.snapshot.outcomes
    if not snapshot.serial:
        yield "nothing is published yet; run: publisher sync"
        return
    if now > snapshot.expires:
        yield "the manifest has expired, so execution points refuse it where they find no newer one; run: publisher sync"
    elif due_for_signing(snapshot, now) is not None:
        yield "half of the manifest's lifetime is over and no run has signed it again; check that syncs run"
    if outcomes.problem is not None:
        yield f"the last sync ended early: {outcomes.problem}"
    if interval is not None and outcomes.started and now > outcomes.started + 3 * interval and not known.running:
        yield "three syncs in a row did not run to their end; check the timer or cron job, and its log"


def _is_behind(origin: str, reason: str) -> str:
    return f"the origin {origin} is behind: {reason}; later syncs copy what it lacks, publisher verify --repair all of it at once"
