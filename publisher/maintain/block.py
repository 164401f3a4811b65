"""Blocking of images, and unblocking: which records change, what data goes, and in which order both happen.

A blocked version stays listed, with its digest and paths, in every record that has it. Execution points therefore refuse it
under every name, even if it is in their caches. Its links, sandbox, file index and SIF are removed. A plan skips a blocked name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, SUPERSEDED
from publisher.errors import UsageError
from publisher.plan import retention
from publisher.state import transitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from publisher.contract.records import Record, Version
    from publisher.publish.publication import Publication, PublishResult
    from publisher.state.snapshot import Snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockPlan:
    """The changes that block or unblock platform manifests.

    Attributes:
        digests: the platform manifests and configs that become blocked, or unblocked.
        changed: name -> its new record.
        removals: paths of data that is removed from the repository.
        sifs: paths of the SIFs, and of their chunk tables, that are removed from the origin.
        unblocked: the digests, if they become unblocked.
    """

    digests: frozenset[str]
    changed: Mapping[str, Record]
    removals: tuple[str, ...] = ()
    sifs: tuple[str, ...] = ()
    unblocked: frozenset[str] = frozenset()


def plan_block(snapshot: Snapshot, subject: str, now: int, reason: str, *, history: bool = False) -> BlockPlan:
    """Plan to block the current version of a name on all its platforms, or one platform manifest under every name.

    Other image manifests with the same config have the same content, and are blocked with it.

    Args:
        snapshot: the published state.
        subject: a CVMFS name, or the digest (``sha256:…``) of a platform manifest or of its config.
        now: seconds since the epoch.
        reason: text that users see when their job is refused.
        history: whether the superseded versions of the name are blocked too.

    Raises:
        UsageError: nothing of it is published, or all of it is blocked already.
    """
    selected = _select_versions(snapshot, subject, history=history)
    digests = _identities(snapshot, (version for version in selected if version.state != BLOCKED))
    if not digests:
        raise UsageError(f"there is nothing to block for {subject}", hint=f"publisher status {subject} shows what is published")
    changed = {
        name: transitions.block(record, digests, now, reason)
        for name, record in snapshot.records.items()
        if _has_version(record, digests)
    }
    records = snapshot.with_records(changed).records.values()
    live_data, live_objects = retention.count_data_paths(records), retention.origin_objects(records)
    versions = [
        version for record in changed.values() for _, version in record.versions() if not digests.isdisjoint(version.identities)
    ]
    removals = {path for version in versions for path in retention.data_paths(version) if not live_data[path]}
    sifs = {path for version in versions if version.sif is not None for path in retention.sif_objects(version.sif)}
    _log.debug("%s: blocking %s; data that other versions share stays", subject, ", ".join(sorted(digests)))
    return BlockPlan(digests, changed, tuple(sorted(removals)), tuple(sorted(sifs - live_objects)))


def plan_unblock(snapshot: Snapshot, subject: str) -> BlockPlan:
    """Plan to unblock what ``subject`` (as in :func:`plan_block`) names; the next sync publishes what the image list says.

    Raises:
        UsageError: nothing of it is blocked, or nothing is published under the name.
    """
    versions = _select_versions(snapshot, subject, history=True)
    digests = _identities(snapshot, (version for version in versions if version.state == BLOCKED))
    if not digests:
        raise UsageError(f"{subject} is not blocked")
    return BlockPlan(
        digests,
        {
            name: transitions.unblock(record, digests)
            for name, record in snapshot.records.items()
            if _has_version(record, digests)
        },
        unblocked=digests,
    )


def apply(publication: Publication, snapshot: Snapshot, plan: BlockPlan) -> PublishResult:
    """Carry out a plan: one transaction of the repository, then the SIFs.

    The SIFs are removed only after the origin's manifest marks them as blocked. If the origin's manifest cannot be updated
    (``behind`` of the result), the garbage collection of the next run removes them.

    Raises:
        RepositoryError, SpaceError: nothing was changed, or the block is published and a sandbox could not be removed.
        OriginError: a SIF could not be removed; the garbage collection of the next run removes it.
    """
    result = publication.change(snapshot, plan.changed, plan.removals, unblocked=plan.unblocked)
    if result.behind is None and plan.sifs:
        with publication.removal(result.snapshot) as is_current:
            for path in plan.sifs if is_current else ():
                _log.debug("removing %s from the origin: blocked", path)
                publication.origin.remove(path)
    for error in result.stuck.values():
        raise error
    return result


def _select_versions(snapshot: Snapshot, subject: str, *, history: bool) -> Iterator[Version]:
    """Yield the versions that a name or digest stands for; superseded ones of a name only with ``history``."""
    if subject.startswith("sha256:"):
        for record in snapshot.records.values():
            yield from (version for _, version in record.versions() if subject in version.identities)
        return
    named = snapshot.records.get(subject)
    if named is None:
        raise UsageError(f"nothing is published under the name {subject}")
    for versions in named.platforms.values():
        yield from versions if history else (version for version in versions[:1] if version.state != SUPERSEDED)


def _identities(snapshot: Snapshot, versions: Iterable[Version]) -> frozenset[str]:
    """Return the digests of versions, and of all other image manifests with their content."""
    digests: set[str] = set()
    more = {digest for version in versions for digest in version.identities}
    while more != digests:
        digests = more
        published = (version for record in snapshot.records.values() for _, version in record.versions())
        same = (version.identities for version in published if not digests.isdisjoint(version.identities))
        more = digests.union(*same)
    return frozenset(digests)


def _has_version(record: Record, digests: AbstractSet[str]) -> bool:
    return any(not digests.isdisjoint(version.identities) for _, version in record.versions())
