"""What may go, and when: names whose time is over, versions that no job can still be using, and data that nothing names.

The manifest is the whole state. A name that leaves is ``expiring`` until a day that its record says; then it means nothing
any more, and its versions are ``superseded`` like those that newer ones took the place of. A superseded version stays listed,
and its data in place, for a grace longer than the longest job; only then it goes, the oldest first. Data goes with the last
version that names it, under whatever name that is. Pure: values in, values out, and nothing that a registry says is asked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.manifest import BLOCKED, SUPERSEDED
from publisher.state import paths as layout
from publisher.state import transitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import date

    from publisher.contract.manifest import Record, Version
    from publisher.images.reader import Entry
    from publisher.state.snapshot import Snapshot

ANNOUNCED = 30
"""Days ahead that the end of an entry is announced."""


@dataclass(frozen=True)
class RetentionLimits:
    """What one run may take away.

    Attributes:
        grace: seconds that a version stays after it was superseded.
        count: versions, and likewise objects of the origin.
        size: bytes of their files; the first one goes however large it is.
    """

    grace: float
    count: int
    size: int


@dataclass(frozen=True)
class DroppedData:
    """A version that is listed no more."""

    name: str
    platform: str
    version: Version


@dataclass(frozen=True)
class RetentionPlan:
    """What is to be done.

    Attributes:
        changed: name -> its record from now on; one without versions goes.
        ended: names that mean nothing any more from now on.
        dropped: versions that are listed no more, the oldest first.
        removals: paths in the repository whose data goes.
        waiting: versions that will go in a later run, this one's bounds being reached.
    """

    changed: Mapping[str, Record]
    ended: tuple[str, ...]
    dropped: tuple[DroppedData, ...]
    removals: tuple[str, ...]
    waiting: int


def clearance(snapshot: Snapshot, now: int, bounds: RetentionLimits) -> RetentionPlan:
    """What a run may clear away at ``now`` (seconds since the epoch)."""
    ended = {
        name: transitions.ended(record, now) for name, record in snapshot.records.items() if transitions.is_over(record, now)
    }
    after = {**snapshot.records, **ended}
    over = sorted(_over(after.values(), now - bounds.grace), key=_age)
    dropped, removals = _within(over, after.values(), bounds)
    gone = [one.version for one in dropped]
    changed = ended | {one.name: transitions.without(after[one.name], gone) for one in dropped}
    return RetentionPlan(changed, tuple(ended), tuple(dropped), tuple(removals), len(over) - len(dropped))


def paths_of(version: Version) -> list[str]:
    """Paths in the repository of a version's data: its sandbox, its file index."""
    found = [] if version.sandbox is None else [version.sandbox]
    return found if version.file_index is None else [*found, layout.file_index_path(version.digest)]


def data_of(listed: Iterable[Record]) -> Counter[str]:
    """How many versions name each path in the repository; what is blocked has no data."""
    versions = (version for record in listed for _, version in record.versions() if version.state != BLOCKED)
    return Counter(path for version in versions for path in paths_of(version))


def sifs_of(listed: Iterable[Record]) -> set[str]:
    """The SIFs that versions name, as paths in the origin; what is blocked has none."""
    return {
        version.sif.path
        for record in listed
        for _, version in record.versions()
        if version.sif is not None and version.state != BLOCKED
    }


def announced(entries: Iterable[Entry], today: date) -> list[str]:
    """A line for each entry whose last day is near, the nearest first."""
    near = sorted((entry.expires, entry.name) for entry in entries if entry.expires is not None and is_near(entry.expires, today))
    return [f"{name} is published until {last}, as its entry says" for last, name in near]


def is_near(last: date, today: date) -> bool:
    """Whether a last day is within :data:`ANNOUNCED` days."""
    return 0 <= (last - today).days <= ANNOUNCED


def _over(listed: Iterable[Record], since: float) -> Iterator[DroppedData]:
    for record in listed:
        for platform, version in record.versions():
            if version.state == SUPERSEDED and version.since <= since:
                yield DroppedData(record.name, platform, version)


def _age(one: DroppedData) -> tuple[int, str, str, str]:
    """Oldest first, so that nothing waits for ever; names and digests make the order the same every time."""
    return one.version.since, one.name, one.platform, one.version.digest


def _within(
    over: Iterable[DroppedData], listed: Iterable[Record], bounds: RetentionLimits
) -> tuple[list[DroppedData], list[str]]:
    """What of ``over`` goes in this run, and the paths that nothing names afterwards."""
    left = data_of(listed)
    dropped: list[DroppedData] = []
    removals: list[str] = []
    size = 0
    for one in over:
        paths = paths_of(one.version)
        freed = [path for path in paths if left[path] == 1]
        weight = one.version.unpacked_size if one.version.sandbox in freed else 0
        if dropped and (len(dropped) >= bounds.count or size + weight > bounds.size):
            break
        size += weight
        left.subtract(paths)
        removals += freed
        dropped.append(one)
    return dropped, removals
