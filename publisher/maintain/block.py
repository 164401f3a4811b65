"""Taking images down, and lifting that: what it does to the records, and in which order it is carried out.

What is blocked stays listed with its digests and paths in every record that has it, so that execution points refuse it by
whatever they call it, from their caches too; links, sandboxes, file indexes and SIFs go. A plan leaves a blocked name alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.manifest import BLOCKED, SUPERSEDED
from publisher.errors import UsageError
from publisher.plan import retention
from publisher.state import transitions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from publisher.contract.manifest import Record, Version
    from publisher.publish.publication import Publication, PublishResult
    from publisher.state.snapshot import Snapshot


@dataclass(frozen=True)
class BlockPlan:
    """What is to be done.

    Attributes:
        digests: manifests that are blocked, or no more.
        changed: name -> its record from now on.
        removals: paths in the repository whose data goes.
        sifs: paths in the origin that go.
    """

    digests: frozenset[str]
    changed: Mapping[str, Record]
    removals: tuple[str, ...] = ()
    sifs: tuple[str, ...] = ()


def take_down(snapshot: Snapshot, what: str, now: int, reason: str, *, history: bool = False) -> BlockPlan:
    """Block what a name means now on all platforms, or the platform manifest with a digest.

    Args:
        snapshot: what is published.
        what: a CVMFS name, or ``sha256:…``.
        now: seconds since the epoch.
        reason: for the users, who read it.
        history: the name's superseded versions as well.

    Raises:
        UsageError: nothing of it is published, or all is blocked.
    """
    digests = frozenset(version.digest for version in _meant(snapshot, what, history=history) if version.state != BLOCKED)
    if not digests:
        raise UsageError(f"{what}: there is nothing to block", hint=f"publisher status {what} says what is published")
    changed = {
        name: transitions.blocked(record, digests, now, reason)
        for name, record in snapshot.records.items()
        if _has(record, digests)
    }
    after = snapshot.with_records(changed).records.values()
    named, kept = retention.data_of(after), retention.sifs_of(after)
    versions = [version for record in changed.values() for _, version in record.versions() if version.digest in digests]
    paths = {path for version in versions for path in retention.paths_of(version) if not named[path]}
    sifs = {version.sif.path for version in versions if version.sif is not None} - kept
    return BlockPlan(digests, changed, tuple(sorted(paths)), tuple(sorted(sifs)))


def lift(snapshot: Snapshot, what: str) -> BlockPlan:
    """Block it no more: the next sync publishes what the list says. ``what`` as in :func:`take_down`.

    Raises:
        UsageError: nothing of it is blocked.
    """
    meant = _meant(snapshot, what, history=True)
    digests = frozenset(version.digest for version in meant if version.state == BLOCKED)
    if not digests:
        raise UsageError(f"{what} is not blocked")
    return BlockPlan(
        digests,
        {name: transitions.unblocked(record, digests) for name, record in snapshot.records.items() if _has(record, digests)},
    )


def carry_out(publication: Publication, snapshot: Snapshot, what: BlockPlan) -> PublishResult:
    """One transaction of the repository; the SIFs go once the origin's manifest says that they are blocked.

    Where that cannot be told the origin now (``behind``), the next run's clearing removes them.

    Raises:
        RepositoryError, SpaceError: nothing was changed; or it was, and a sandbox could not be removed.
        OriginError: a SIF could not be removed; the next run's clearing does it.
    """
    published = publication.change(snapshot, what.changed, what.removals)
    if published.behind is None:
        for path in what.sifs:
            publication.origin.remove(path)
    for error in published.stuck.values():
        raise error
    return published


def _meant(snapshot: Snapshot, what: str, *, history: bool) -> Iterator[Version]:
    if what.startswith("sha256:"):
        for record in snapshot.records.values():
            yield from (version for _, version in record.versions() if version.digest == what)
        return
    named = snapshot.records.get(what)
    if named is None:
        raise UsageError(f"nothing is published under the name {what}")
    for versions in named.platforms.values():
        yield from versions if history else (version for version in versions[:1] if version.state != SUPERSEDED)


def _has(record: Record, digests: Collection[str]) -> bool:
    return any(version.digest in digests for _, version in record.versions())
