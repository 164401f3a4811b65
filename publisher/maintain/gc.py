"""Garbage collection: carries out what :mod:`publisher.plan.retention` allows.

In the repository, records and data change in one transaction. In the origin, an object is removed only after the origin's own
manifest has ceased to name it. What a killed run leaves in the origin is found by a later run, because no manifest names it and
it is old. A kill at any point therefore only costs a rerun.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.errors import OriginError, PublisherError
from publisher.plan import retention
from publisher.publish.manifest import history
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Collection

    from publisher.plan.retention import RetentionLimits, RetentionPlan
    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot

_log = logging.getLogger(__name__)


@dataclass
class GcResult:
    """The result of a garbage collection.

    Attributes:
        snapshot: the published state afterwards.
        lines: what was removed or repaired, as text for the operator.
        error: why it stopped early, or the last removal that failed; the next run continues. None if all went well.
    """

    snapshot: Snapshot
    lines: list[str] = field(default_factory=list)
    error: PublisherError | None = None


def collect(
    publication: Publication, snapshot: Snapshot, now: int, limits: RetentionLimits, *, dry_run: bool = False
) -> GcResult:
    """Remove what may go from the repository and the origin, within the limits of one run.

    Args:
        publication: an open publication.
        snapshot: the published state.
        now: seconds since the epoch.
        limits: the limits of one run.
        dry_run: only report what would be done.

    Returns:
        What was done; an error of repository or origin is in ``error`` and is not raised.
    """
    _log.info("garbage collection begins%s", " (dry run)" if dry_run else "")
    result = GcResult(snapshot)
    try:
        if not dry_run:
            publication.check_clock()  # what may go depends on the time
        _collect_repository(publication, result, now, limits, dry_run=dry_run)
        if publication.is_origin_current(result.snapshot):
            _collect_origin(publication, result, now, limits, dry_run=dry_run)
        else:
            _log.info("nothing is removed from the origin: its manifest is not the repository's")
    except PublisherError as error:
        result.error = error
    _log.info("garbage collection ends: %d line(s) to report", len(result.lines))
    return result


def _collect_repository(publication: Publication, result: GcResult, now: int, limits: RetentionLimits, *, dry_run: bool) -> None:
    """Remove records, and data that nothing names afterwards, in one transaction of the repository."""
    snapshot = result.snapshot
    allowed = retention.plan_retention(snapshot, now, limits)
    removals = [*allowed.removals, *publication.remains_of_blocked(snapshot)]
    for path in removals:
        _log.debug("selected for removal from the repository: %s, which no version needs", path)
    result.lines += _describe(allowed, "would be removed" if dry_run else "was removed")
    if dry_run:
        result.snapshot = snapshot.with_records(allowed.changed)
    elif allowed.changed or removals:
        published = publication.change(snapshot, allowed.changed, removals)
        result.snapshot = published.snapshot
        for path, error in published.stuck.items():
            result.lines.append(f"{path} could not be removed: {error}; no manifest names it any more, remove it by hand")
            result.error = error
        if published.behind is not None:
            raise published.behind


def _describe(allowed: RetentionPlan, removed: str) -> list[str]:
    """Return a line for each removal; ``removed`` says whether it happens."""
    lines = [f"{name} {removed}: its removal grace is over" for name in allowed.ended]
    lines += [
        f"{dropped.name} {dropped.platform}: the build {dropped.version.digest} {removed}: its superseded grace is over"
        for dropped in allowed.dropped
    ]
    if allowed.waiting:
        lines.append(
            f"{allowed.waiting} more build(s) wait for a later run: limited by removals_per_run and removed_size_per_run"
        )
    return lines


def _collect_origin(publication: Publication, result: GcResult, now: int, limits: RetentionLimits, *, dry_run: bool) -> None:
    """Remove SIFs, their chunk tables and shards that no manifest names and that are older than the grace, the oldest first.

    An object that a killed run stored before it could publish is younger than the grace. SIFs of blocked versions go at once.
    """
    origin = publication.origin
    shards = list(origin.names(f"{paths.ORIGIN_MANIFEST}/shards"))
    _restore_lost_shards(publication, result, shards, dry_run=dry_run)
    removable = _removable_objects(publication, result.snapshot, shards, now - limits.grace)
    with contextlib.ExitStack() as stack:
        if removable and not dry_run and not stack.enter_context(publication.removal(result.snapshot)):
            _log.info("nothing is removed from the origin: another publisher has published meanwhile")
            return
        _remove_objects(publication, result, removable, limits, dry_run=dry_run)


def _remove_objects(
    publication: Publication, result: GcResult, names: list[str], limits: RetentionLimits, *, dry_run: bool
) -> None:
    """Remove objects from the origin within the limits of one run; a failure goes into the result."""
    origin = publication.origin
    size = count = 0
    for name in names:
        object_size = origin.size(name) or 0
        if count and (count >= limits.count or size + object_size > limits.size):
            _log.info("the limits of one run are reached; the origin's other removable objects wait for a later run")
            break
        try:
            if not dry_run:
                origin.remove(name)
        except OriginError as error:  # continue with the other objects
            _log.debug("%s stays in the origin: %s", name, error)
            result.error = error
            continue
        count, size = count + 1, size + object_size
        _log.debug("%s %s from the origin: no manifest names it", "would remove" if dry_run else "removed", name)
        if paths.is_sif(name):
            removed = "would be removed" if dry_run else "was removed"
            result.lines.append(f"{name} {removed} from the origin: no manifest names it")


def _removable_objects(publication: Publication, snapshot: Snapshot, shards: Collection[str], before: float) -> list[str]:
    """Return the SIFs, tables and ``shards`` that no manifest names, stored ``before`` or blocked; the oldest first."""
    origin, records = publication.origin, snapshot.records.values()
    live = retention.origin_objects(records) | {_shard_path(sha256) for sha256 in history.all_shards(publication.repository.read)}
    sifs = (version.sif for record in records for _, version in record.versions() if version.sif is not None)
    blocked = {path for sif in sifs for path in retention.sif_objects(sif)} - live
    removable = []
    for name in chain(origin.names(paths.SIF_PREFIX), shards):
        stored = origin.modified(name) if name not in live else None
        if stored is None:
            continue
        if stored <= before or name in blocked:
            removable.append((stored, name))
        else:
            _log.debug("keeping %s in the origin: no manifest names it, but it is younger than the grace", name)
    return [name for _, name in sorted(removable)]


def _restore_lost_shards(publication: Publication, result: GcResult, shards: Collection[str], *, dry_run: bool) -> None:
    """Store the manifest's shards again that the origin has lost: a publication only stores shards that are new.

    Args:
        publication: an open publication.
        result: gets a line if shards were lost.
        shards: names of the shards that the origin has.
        dry_run: only report it.
    """
    lost = {f"{paths.ORIGIN_MANIFEST}/{name}" for name in result.snapshot.files}.difference(shards)
    if lost:
        if not dry_run:
            publication.resend_manifest(result.snapshot)
        stored = "would be stored again" if dry_run else "were stored again"
        result.lines.append(f"the origin has lost {len(lost)} shard(s) of the manifest, which {stored}")


def _shard_path(sha256: str) -> str:
    return f"{paths.ORIGIN_MANIFEST}/{manifest.shard_name(sha256)}"
