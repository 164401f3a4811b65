"""Which SIFs are worth fetching before jobs ask for them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract.records import CURRENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from publisher.contract.records import Sif
    from publisher.state.snapshot import Snapshot
    from publisher.usage.records import NameUsage

RECENT = 30 * 86400
"""Seconds within which a job must have used a name for it to be popular."""


def popular_sifs(
    snapshot: Snapshot, names: Iterable[str], usage: Mapping[str, NameUsage], *, since: int, now: int, most: int
) -> list[Sif]:
    """Return the SIFs that a run has published under names which jobs use, those of the most used names first.

    Args:
        snapshot: the published state.
        names: the names that the run has published.
        usage: name -> its use.
        since: when the run began, seconds since the epoch: what was published before is in the caches where it is needed.
        now: seconds since the epoch.
        most: the largest number of SIFs.
    """
    used = [name for name in names if name in usage and usage[name].total.last > now - RECENT and name in snapshot.records]
    found: dict[str, Sif] = {}
    for name in sorted(used, key=lambda one: (-usage[one].total.jobs, one)):
        for versions in snapshot.records[name].platforms.values():
            for version in versions[:1]:
                if version.sif is not None and version.state == CURRENT and version.published >= since:
                    found.setdefault(version.sif.path, version.sif)
    return list(found.values())[:most]
