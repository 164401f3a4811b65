"""Carries out what :mod:`publisher.plan.retention` allows: the manifest first, the data with it or after it.

In the repository both happen in one transaction. In the origin nothing is removed before its own manifest has ceased to name
it; what a kill leaves there is found again, because no manifest names it and it is old. So a kill at any point costs a rerun.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.manifest import BLOCKED
from publisher.errors import OriginError, PublisherError
from publisher.plan import retention
from publisher.publish import history
from publisher.state import paths as layout

if TYPE_CHECKING:
    from collections.abc import Collection

    from publisher.plan.retention import RetentionLimits, RetentionPlan
    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot


@dataclass
class GcResult:
    """What was cleared away.

    Attributes:
        snapshot: what is published now.
        lines: what was done, for people.
        error: why it was cut short, or something stayed; the next run goes on. None where all went well.
    """

    snapshot: Snapshot
    lines: list[str] = field(default_factory=list)
    error: PublisherError | None = None


def clear(publication: Publication, snapshot: Snapshot, now: int, bounds: RetentionLimits, *, dry: bool = False) -> GcResult:
    """Clear away what may go.

    Args:
        publication: opened.
        snapshot: what is published.
        now: seconds since the epoch.
        bounds: of one run.
        dry: only say what would be done.
    """
    result = GcResult(snapshot)
    try:
        _clear_repository(publication, result, now, bounds, dry=dry)
        if publication.in_step(result.snapshot):
            _sweep_origin(publication, result, now, bounds, dry=dry)
    except PublisherError as error:
        result.error = error
    return result


def _clear_repository(publication: Publication, result: GcResult, now: int, bounds: RetentionLimits, *, dry: bool) -> None:
    snapshot = result.snapshot
    allowed = retention.clearance(snapshot, now, bounds)
    removals = [*allowed.removals, *_left_of_blocked(publication, snapshot)]
    result.lines += _lines(allowed)
    if dry:
        result.snapshot = snapshot.with_records(allowed.changed)
    elif allowed.changed or removals:
        published = publication.change(snapshot, allowed.changed, removals)
        result.snapshot = published.snapshot
        for path, error in published.stuck.items():
            result.lines.append(f"{path} is named by no manifest any more and cannot be removed, which is left to you: {error}")
            result.error = error
        if published.behind is not None:
            raise published.behind


def _left_of_blocked(publication: Publication, snapshot: Snapshot) -> list[str]:
    """Data of blocked versions that is still there."""
    named = retention.data_of(snapshot.records.values())
    versions = (version for record in snapshot.records.values() for _, version in record.versions() if version.state == BLOCKED)
    paths = {path for version in versions for path in retention.paths_of(version) if not named[path]}
    return sorted(path for path in paths if publication.repository.exists(path))


def _lines(allowed: RetentionPlan) -> list[str]:
    lines = [f"{name} is gone: the time that it was to be used is over" for name in allowed.ended]
    lines += [
        f"{one.name} {one.platform}: the build {one.version.digest} is removed: superseded long ago" for one in allowed.dropped
    ]
    if allowed.waiting:
        lines.append(f"{allowed.waiting} more build(s) wait for a later run: removals_per_run and removed_size_per_run bound one")
    return lines


def _sweep_origin(publication: Publication, result: GcResult, now: int, bounds: RetentionLimits, *, dry: bool) -> None:
    """Remove SIFs and shards that no manifest names and that have been there for longer than the grace, the oldest first.

    What a run stores that is killed before it publishes is younger than that; SIFs of blocked versions do not wait.
    """
    origin = publication.origin
    listed = result.snapshot.records.values()
    named = retention.sifs_of(listed) | {_shard(sha256) for sha256 in history.named(publication.repository.read)}
    blocked = {version.sif.path for record in listed for _, version in record.versions() if version.sif is not None} - named
    shards = list(origin.names(f"{layout.ORIGIN_MANIFEST}/shards"))
    _restore(publication, result, shards, dry=dry)
    found = []
    for name in chain(origin.names(layout.SIF_PREFIX), shards):
        stored = origin.modified(name) if name not in named else None
        if stored is not None and (stored <= now - bounds.grace or name in blocked):
            found.append((stored, name))
    size = count = 0
    for _, name in sorted(found):
        weight = origin.size(name) or 0
        if count and (count >= bounds.count or size + weight > bounds.size):
            break
        try:
            if not dry:
                origin.remove(name)
        except OriginError as error:  # the others' turn comes all the same
            result.error = error
            continue
        count, size = count + 1, size + weight
        if name.startswith(f"{layout.SIF_PREFIX}/"):
            result.lines.append(f"{name} is removed from the origin: no manifest names it")


def _restore(publication: Publication, result: GcResult, shards: Collection[str], *, dry: bool) -> None:
    """Tell the origin the manifest again where it has lost one of its ``shards``: a publication tells it what is new alone."""
    lost = {_shard(sha256) for sha256 in result.snapshot.shards if sha256 is not None}.difference(shards)
    if lost:
        if not dry:
            publication.tell_all(result.snapshot)
        result.lines.append(f"the origin has lost {len(lost)} shard(s) of the manifest, which are stored again")


def _shard(sha256: str) -> str:
    return f"{layout.ORIGIN_MANIFEST}/{manifest.shard_name(sha256)}"
