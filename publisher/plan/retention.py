"""Decides what may be removed, and when: names whose time is over, superseded versions, and data that no version names.

The manifest is the whole state. A name that leaves is ``expiring`` until the time in its record; then it means nothing any
more, and its versions become ``superseded``, like versions that newer ones replaced. A superseded version stays listed, with its
data, for a grace period longer than the longest job. After that versions are dropped, the oldest first. Data is removed with
the last version that names it, under whatever name. Pure; registries are not asked.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, SUPERSEDED
from publisher.state import paths, transitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import date

    from publisher.contract.records import Record, Sif, Version
    from publisher.images.reader import Entry
    from publisher.state.snapshot import Snapshot

_log = logging.getLogger(__name__)

ANNOUNCED_DAYS = 30
"""Days ahead that the end of an entry is announced."""


_SHOWN = 5
"""Expired entries that a note names."""


@dataclass(frozen=True)
class RetentionLimits:
    """The limits on what one run may remove.

    Attributes:
        grace: seconds that a version stays after it was superseded.
        count: most versions, and most objects of the origin, that one run removes.
        size: most bytes of files that one run removes; the first removal is allowed however large it is.
    """

    grace: float
    count: int
    size: int


@dataclass(frozen=True)
class DroppedVersion:
    """A version that leaves the manifest, with its name and platform key."""

    name: str
    platform: str
    version: Version


@dataclass(frozen=True)
class RetentionPlan:
    """What one run removes.

    Attributes:
        changed: name -> its new record; a record without versions is removed.
        ended: names that mean nothing any more.
        dropped: versions that leave the manifest, the oldest first.
        removals: paths in the repository of the data to remove.
        waiting: number of versions left to later runs because the limits were reached.
    """

    changed: Mapping[str, Record]
    ended: tuple[str, ...]
    dropped: tuple[DroppedVersion, ...]
    removals: tuple[str, ...]
    waiting: int


def plan_retention(snapshot: Snapshot, now: int, limits: RetentionLimits) -> RetentionPlan:
    """Return what a run may remove at ``now`` (seconds since the epoch)."""
    ended = {
        name: transitions.supersede_expired(record, now)
        for name, record in snapshot.records.items()
        if transitions.has_expired(record, now)
    }
    records = {**snapshot.records, **ended}
    droppable = sorted(_superseded_before(records.values(), now - limits.grace), key=_oldest_first)
    dropped, removals = _within_limits(droppable, records.values(), limits)
    versions = [drop.version for drop in dropped]
    changed = ended | {drop.name: transitions.drop_versions(records[drop.name], versions) for drop in dropped}
    for name in ended:
        _log.debug("%s: ended", name)
    for drop in dropped:
        _log.debug("%s: dropped %s for %s, superseded at %d", drop.name, drop.version.digest, drop.platform, drop.version.since)
    return RetentionPlan(changed, tuple(ended), tuple(dropped), tuple(removals), len(droppable) - len(dropped))


def data_paths(version: Version) -> list[str]:
    """Return the paths in the repository of a version's data: its sandbox and its file index, where it has them."""
    sandbox = [] if version.sandbox is None else [version.sandbox]
    return sandbox if version.file_index is None else [*sandbox, paths.file_index_path(version.content)]


def count_data_paths(records: Iterable[Record]) -> Counter[str]:
    """Return path in the repository -> number of versions that name it; blocked versions have no data."""
    versions = (version for record in records for _, version in record.versions() if version.state != BLOCKED)
    return Counter(path for version in versions for path in data_paths(version))


def sif_paths(records: Iterable[Record]) -> set[str]:
    """Return the paths in the origin of all SIFs that versions name; blocked versions have none."""
    return {
        version.sif.path
        for record in records
        for _, version in record.versions()
        if version.sif is not None and version.state != BLOCKED
    }


def sif_objects(sif: Sif) -> set[str]:
    """Return the paths in the origin of a SIF and of its chunk table."""
    return {sif.path} if sif.chunks is None else {sif.path, sif.chunks.path}


def origin_objects(records: Iterable[Record]) -> set[str]:
    """Return the paths in the origin of all SIFs that versions name, and of their chunk tables; blocked versions have none."""
    versions = (version for record in records for _, version in record.versions() if version.state != BLOCKED)
    return {path for version in versions if version.sif is not None for path in sif_objects(version.sif)}


def expiry_notes(entries: Iterable[Entry], today: date) -> list[str]:
    """Return a line for each entry that expires soon, the earliest first."""
    soon = sorted(
        (entry.expires, entry.name) for entry in entries if entry.expires is not None and expires_soon(entry.expires, today)
    )
    return [f"{name} is published until {last}, as its entry says" for last, name in soon]


def expired_note(entries: Iterable[Entry], today: date) -> list[str]:
    """Return a line about the entries that have expired and so are not published, if there are any."""
    names = [entry.name for entry in entries if entry.expires is not None and entry.expires < today]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} entries have expired and are not published: {', '.join(names[:_SHOWN])}{more}"] if names else []


def expires_soon(last: date, today: date) -> bool:
    """Return whether a last day is within the next :data:`ANNOUNCED_DAYS` days."""
    return 0 <= (last - today).days <= ANNOUNCED_DAYS


def _superseded_before(records: Iterable[Record], time: float) -> Iterator[DroppedVersion]:
    for record in records:
        for platform, version in record.versions():
            if version.state == SUPERSEDED and version.since <= time:
                yield DroppedVersion(record.name, platform, version)


def _oldest_first(drop: DroppedVersion) -> tuple[int, str, str, str]:
    """Return a sort key: the oldest first, so that nothing waits for ever; then a fixed order by name and digest."""
    return drop.version.since, drop.name, drop.platform, drop.version.digest


def _within_limits(
    droppable: Iterable[DroppedVersion], records: Iterable[Record], limits: RetentionLimits
) -> tuple[list[DroppedVersion], list[str]]:
    """Return the versions that this run drops, and the paths that no version names afterwards."""
    references = count_data_paths(records)
    dropped: list[DroppedVersion] = []
    removals: list[str] = []
    total = 0
    for drop in droppable:
        data = data_paths(drop.version)
        unnamed = [path for path in data if references[path] == 1]
        size = drop.version.unpacked_size if drop.version.sandbox in unnamed else 0
        if dropped and (len(dropped) >= limits.count or total + size > limits.size):
            break
        total += size
        references.subtract(data)
        removals += unnamed
        dropped.append(drop)
    return dropped, removals
