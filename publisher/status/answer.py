"""Is an image there, since when, and if not, why? One answer for each name, from all that is known. Pure.

What is published comes from the manifest, what failed from the outcomes of the last runs, what is wanted from the list, and what
is under way from the run itself.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, CURRENT, EXPIRING
from publisher.state import outcomes as remembered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from publisher.contract.records import Record, Version
    from publisher.images.reader import Entry, ImageList, Pattern
    from publisher.state.outcomes import LastOutcome
    from publisher.state.snapshot import Snapshot


class ImageState(Enum):
    """What a name means now."""

    PUBLISHED = "published"
    HELD = "held"
    WAITING = "waiting"
    BUILDING = "building"
    FAILING = "failing"
    GONE = "gone"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    BLOCKED = "blocked"
    DROPPED = "dropped"
    UNLISTED = "not listed"


@dataclass(frozen=True)
class Known:
    """All that an answer is made from.

    Attributes:
        snapshot: the published state, with the outcomes of the last runs.
        image_list: the list, None if this host has none.
        today: the day that decides which entries have expired.
        running: name -> step, of the images that the run under way has not finished.
    """

    snapshot: Snapshot
    image_list: ImageList | None
    today: date
    running: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def records_by_key(self) -> dict[str, Record]:
        """Return the records by all keys that they have in the manifest; a name comes before other keys."""
        records = self.snapshot.records
        return {alias: record for record in records.values() for alias in record.aliases()} | dict(records)

    @cached_property
    def entries_by_key(self) -> dict[str, Entry]:
        """Return the entries of the list by name and by reference."""
        entries = () if self.image_list is None else self.image_list.entries
        images = [entry for entry in entries if not entry.reference.scheme]
        return {f"docker://{entry.reference}": entry for entry in images} | {entry.name: entry for entry in entries}

    @cached_property
    def patterns_by_name(self) -> dict[str, Pattern]:
        """Return the patterns of the list by the names that they stood for in the last run."""
        patterns = {} if self.image_list is None else {str(pattern): pattern for pattern in self.image_list.patterns}
        listed = self.snapshot.outcomes.patterns
        return {name: pattern for text, pattern in patterns.items() for name in listed.get(text, ())}

    def listed(self, name: str) -> Entry | Pattern | None:
        """Return what the list says of a name: its entry, or the pattern that stands for it."""
        return self.entries_by_key.get(name) or self.patterns_by_name.get(name)

    @cached_property
    def names(self) -> list[str]:
        """Return every name that is listed, published, or stood for by a pattern, in alphabetical order."""
        outcomes = self.snapshot.outcomes
        names = {*self.snapshot.records, *outcomes.images, *(name for listed in outcomes.patterns.values() for name in listed)}
        return sorted(names | {entry.name for entry in self.entries_by_key.values()})


@dataclass(frozen=True)
class ImageAnswer:
    """The answer for one name.

    Attributes:
        name: the CVMFS name; what was asked for where nothing is known by it.
        state: what the name means now.
        reason: why, and what follows, in a sentence for the researcher.
        since: when the state began, seconds since the epoch; None if that is not known.
        record: what is published under the name, None for nothing.
        last: what became of the image in the last runs, None if it is simply published.
        reference: where the image comes from, empty if that is not known.
    """

    name: str
    state: ImageState
    reason: str
    since: int | None = None
    record: Record | None = None
    last: LastOutcome | None = None
    reference: str = ""

    @property
    def is_usable(self) -> bool:
        """Return whether jobs can run the image under this name now."""
        if self.record is None or self.state is ImageState.BLOCKED:
            return False
        return any(versions and versions[0].state in {CURRENT, EXPIRING} for versions in self.record.platforms.values())


def answer(known: Known, keys: Sequence[str]) -> ImageAnswer:
    """Return the answer for an image.

    Args:
        known: all that is known.
        keys: the keys that the image may have in the manifest, the most likely one first; a name or a reference is one of them.
    """
    entry = next((known.entries_by_key[key] for key in keys if key in known.entries_by_key), None)
    record = next((known.records_by_key[key] for key in keys if key in known.records_by_key), None)
    name = record.name if record is not None else entry.name if entry is not None else keys[0]
    case = _Case(known, keys, name, entry, record, known.snapshot.outcomes.images.get(name))
    state, reason, since = next(found for rule in _RULES if (found := rule(case)) is not None)
    reference = record.reference if record is not None else str(entry.reference) if entry is not None else ""
    return ImageAnswer(name, state, reason, since, record, case.last, reference)


_Found = tuple[ImageState, str, int | None]


@dataclass(frozen=True)
class _Case:
    """What is known of one name; ``active`` are the versions that it means, one for each platform."""

    known: Known
    keys: Sequence[str]
    name: str
    entry: Entry | None
    record: Record | None
    last: LastOutcome | None

    @property
    def first(self) -> list[Version]:
        return [] if self.record is None else [versions[0] for versions in self.record.platforms.values() if versions]

    @property
    def active(self) -> list[Version]:
        return [version for version in self.first if version.state in {CURRENT, EXPIRING}]

    @property
    def since(self) -> int:
        return min(version.since for version in self.active)


def _blocked(case: _Case) -> _Found | None:
    blocked = next((version for version in case.first if version.state == BLOCKED), None)
    if blocked is None:
        return None
    return ImageState.BLOCKED, f"the operator has blocked it: {blocked.reason or 'no reason was given'}", blocked.since


def _building(case: _Case) -> _Found | None:
    step = case.known.running.get(case.name)
    if step is None:
        return None
    stays = "; until it is done, the published version stays" if case.active else ""
    return ImageState.BUILDING, f"it is under way in the current run: {step}{stays}", None


def _expiring(case: _Case) -> _Found | None:
    if not case.active or any(version.state == CURRENT for version in case.active):
        return None
    if case.last is not None and case.last.state == remembered.GONE:
        return ImageState.EXPIRING, f"its registry no longer has it, so it leaves: {case.last.reason}", case.since
    return ImageState.EXPIRING, "it is no longer in the list, so it leaves", case.since


def _expired(case: _Case) -> _Found | None:
    end = None if case.entry is None else case.entry.expires
    if case.active or end is None or end >= case.known.today:
        return None
    return ImageState.EXPIRED, f"its entry in the list expired on {end}; its owner can set a later date there", None


def _failing(case: _Case) -> _Found | None:
    if case.last is None or case.last.state != remembered.FAILING:
        return None
    stays = "the published version stays, but its update fails: " if case.active else ""
    tries = f" (tried {case.last.tries} times)" if case.last.tries > 1 else ""
    return ImageState.FAILING, f"{stays}{case.last.reason}{tries}", case.last.since


def _published(case: _Case) -> _Found | None:
    if case.record is None or not case.active:
        return None
    if case.record.rollback is not None:
        return (
            ImageState.HELD,
            "the operator has rolled it back to an earlier version, which stays until that is undone",
            case.since,
        )
    return ImageState.PUBLISHED, "it is published as its registry has it", case.since


def _gone(case: _Case) -> _Found | None:
    if case.last is None or case.last.state != remembered.GONE:
        return None
    return ImageState.GONE, f"its registry does not have it: {case.last.reason}", case.last.since


def _waiting(case: _Case) -> _Found | None:
    if case.last is not None:
        return ImageState.WAITING, case.last.reason, case.last.since
    if case.entry is None and not any(case.name in names for names in case.known.snapshot.outcomes.patterns.values()):
        return None
    return ImageState.WAITING, "it is in the list, and the next sync publishes it", None


def _dropped(case: _Case) -> _Found | None:
    patterns = () if case.known.image_list is None else case.known.image_list.patterns
    pattern = next((pattern for pattern in patterns if any(map(pattern.covers, case.keys))), None)
    if pattern is None:
        return None
    return ImageState.DROPPED, _pattern_reason(pattern, case.known.snapshot.outcomes.patterns.get(str(pattern))), None


def _unlisted(case: _Case) -> _Found:
    similar = _similar(case.known, case.keys)
    advice = f"did you mean {', '.join(similar)}?" if similar else "to add it, see docs/images.md"
    return ImageState.UNLISTED, f"no entry of the list has this name; {advice}", None


_RULES = (_blocked, _building, _expiring, _expired, _failing, _published, _gone, _waiting, _dropped, _unlisted)
"""What a name means, the first that applies; the last one always does."""


def _pattern_reason(pattern: Pattern, names: Sequence[str] | None) -> str:
    if names is None:
        return f"the pattern {pattern} may stand for it, and the next sync asks the registry for its tags"
    newest = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")  # noqa: PLR2004 - a line has room for five
    kept = "all its tags" if pattern.keep is None else f"the {pattern.keep} newest tags"
    return f"the pattern {pattern} publishes {kept}, and this is none of them: {newest or 'there is no such tag'}"


def _similar(known: Known, keys: Sequence[str]) -> list[str]:
    """Return up to three names that may have been meant: alike but for case or a letter, or other tags of the same image."""
    text = keys[0]
    by_lower = {name.lower(): name for name in known.names}
    close = [by_lower[found] for found in difflib.get_close_matches(text.lower(), by_lower, 3, 0.8)]
    tags = [name for name in known.names if name.rpartition(":")[0] == text.rpartition(":")[0]]
    return list(dict.fromkeys([*close, *tags]))[:3]
