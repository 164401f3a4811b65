"""Which of several published indexes a run continues from, and what becomes of blocks that only the others have. Pure.

The places of a manifest (repository, origin, state directory) have the same index unless a run was killed between them or one was
restored from a backup. An index that names another one as its predecessor continues it. Two indexes of which neither continues
the other are a fork: two runs have each published after the same revision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.records import BLOCKED, Record
from publisher.errors import PublishedManifestError
from publisher.state import transitions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.contract.manifest import Index
    from publisher.state.snapshot import Snapshot


@dataclass(frozen=True)
class FoundIndex:
    """An index with a valid signature.

    Attributes:
        place: where it is, for messages: ``the repository``, ``the origin`` or ``the state directory``.
        content: its envelope.
        index: its payload.
    """

    place: str
    content: bytes
    index: Index

    @property
    def sha256(self) -> str:
        """Return the sha256 of its payload."""
        return manifest.payload_sha256(self.content)

    def continues(self, other: FoundIndex) -> bool:
        """Return whether this index is the other one or descends from it, as far as can be known."""
        if self.sha256 == other.sha256:
            return True
        return self.index.serial > other.index.serial and self.index.descends_from(other.index, other.sha256) is not False


def choose(found: Sequence[FoundIndex], start_from: str | None = None) -> tuple[FoundIndex | None, list[FoundIndex]]:
    """Return the index to continue from, and the indexes of other branches that it does not continue.

    Args:
        found: the indexes of all places, the most authoritative place first.
        start_from: the place whose index is continued in any case, as the operator wants; None to choose it here.

    Returns:
        The index with the highest serial; in a fork the one that most places have or have had. None if there is none.

    Raises:
        PublishedManifestError: there is a fork, and no branch is the one of most places; or ``start_from`` has no index.
    """
    if start_from is not None:
        wanted = [candidate for candidate in found if candidate.place == start_from]
        if not wanted:
            raise PublishedManifestError(f"{start_from} has no manifest to start from")
        return wanted[0], [other for other in found if not wanted[0].continues(other)]
    heads = [one for one in found if not any(other.continues(one) and not one.continues(other) for other in found)]
    if not heads:
        return None, []
    support = [sum(head.continues(one) for one in found) for head in heads]
    best = heads[support.index(max(support))]
    others = [one for one in found if not best.continues(one)]
    rivals = [head for head, count in zip(heads, support, strict=True) if count == max(support) and not best.continues(head)]
    if rivals:
        branches = ", ".join(f"{head.place} has serial {head.index.serial}" for head in (best, *rivals))
        raise PublishedManifestError(
            f"the published manifests have forked: {branches}, and none of them continues the other",
            hint="find out which one is yours (a restored backup, a second publisher or a stolen key makes a fork), then run "
            "publisher sync --start-from repository|origin|state; blocks of the others are kept",
        )
    return best, others


def carry_blocks(snapshot: Snapshot, other: Snapshot) -> Snapshot:
    """Return a snapshot with the blocks that another branch has and this one lacks.

    A name that is blocked there is blocked here, and a digest or content that is blocked there is blocked under every name.
    """
    lacking = other.blocked_digests() - snapshot.blocked_digests()
    changed = {
        record.name: _carry(snapshot.records.get(record.name), record, lacking)
        for record in other.records.values()
        if any(version.digest in lacking and version.state == BLOCKED for _, version in record.versions())
    }
    merged = snapshot.with_records(changed)
    for digest in lacking:
        reason = _reason(other, digest)
        concerned = [
            record
            for record in merged.records.values()
            if any(digest in version.identities and version.state != BLOCKED for _, version in record.versions())
        ]
        merged = merged.with_records(
            {record.name: transitions.block(record, {digest}, snapshot.generated, reason) for record in concerned}
        )
    return merged


def _carry(record: Record | None, other: Record, digests: frozenset[str]) -> Record:
    """Return a record with the blocked versions of ``other`` that have one of the digests, each first where it is first there."""
    platforms = {} if record is None else dict(record.platforms)
    for platform, versions in other.platforms.items():
        blocked = [version for version in versions if version.digest in digests and version.state == BLOCKED]
        own = tuple(version for version in platforms.get(platform, ()) if version.digest not in digests)
        if blocked and blocked[0] is versions[0]:
            platforms[platform] = (*blocked, *transitions.superseded(own, blocked[0].since))
        elif blocked:
            platforms[platform] = (*own, *blocked)
    base = other if record is None else record
    return Record(base.name, base.reference, base.digest, platforms, base.rollback)


def _reason(snapshot: Snapshot, digest: str) -> str:
    blocked = snapshot.blocked_version(digest)
    return "" if blocked is None else blocked.reason or ""
