"""What an origin holds against what the manifest names: what is missing, and what nothing names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.plan import retention
from publisher.publish import history
from publisher.state import paths
from publisher.system.quantities import size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.state.snapshot import Snapshot
    from publisher.targets.origins.base import Origin

_INDEX = f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}"


@dataclass(frozen=True)
class StrayObject:
    """An object that nothing names; ``stored`` is seconds since the epoch by the origin's clock, None where it is gone by now."""

    name: str
    size: int
    stored: float | None


@dataclass(frozen=True)
class OriginAudit:
    """What an origin holds.

    Attributes:
        sifs: number of the SIFs that are named and there.
        size: bytes of them, as the manifest says.
        shards: number of the manifest's shards that are named and there, those of earlier revisions among them.
        missing: names of objects that are named and not there.
        strays: objects that nothing names: of retention's next runs, of killed runs, or somebody else's.
    """

    sifs: int
    size: int
    shards: int
    missing: tuple[str, ...]
    strays: tuple[StrayObject, ...]

    def lines(self) -> list[str]:
        """For people."""
        found = [f"{self.sifs} SIF(s), {size_text(self.size) or '0 B'}, and {self.shards} shard(s) of the manifest are there"]
        found += [f"missing: {name}" for name in self.missing]
        for stray in self.strays:
            when = "" if stray.stored is None else f", stored {datetime.fromtimestamp(stray.stored, UTC):%Y-%m-%d %H:%M} UTC"
            found.append(f"not named: {stray.name} ({size_text(stray.size) or '0 B'}{when})")
        return found

    def to_json(self) -> dict[str, object]:
        """For programs."""
        strays = [{"name": stray.name, "size": stray.size, "stored": stray.stored} for stray in self.strays]
        named = {"sifs": self.sifs, "size": self.size, "shards": self.shards}
        return {**named, "missing": list(self.missing), "not_named": strays}


def take(origin: Origin, snapshot: Snapshot, read: Callable[[str], bytes | None]) -> OriginAudit:
    """Look at an origin. What it names is listed, and only of strays more is asked; ``verify`` reads objects.

    Args:
        origin: what is looked at.
        snapshot: what is published.
        read: gives the content of a file of the repository.

    Raises:
        PublishedManifestError: a revision of the manifest is damaged.
        OriginError: the origin cannot be listed.
    """
    named = retention.sifs_of(snapshot.records.values())
    versions = [version for record in snapshot.records.values() for _, version in record.versions()]
    sifs = {one.sif.path: one.sif.size for one in versions if one.sif is not None and one.sif.path in named}
    shards = {f"{paths.ORIGIN_MANIFEST}/{manifest.shard_name(sha256)}" for sha256 in history.named(read)}
    current = {f"{paths.ORIGIN_MANIFEST}/{manifest.shard_name(sha256)}" for sha256 in history.current(read)}
    there = set(origin.names())
    needed = {*sifs, *current, *([_INDEX] if current else [])}
    strays = [
        StrayObject(name, origin.size(name) or 0, origin.modified(name)) for name in sorted(there - {*sifs, *shards, _INDEX})
    ]
    return OriginAudit(
        sifs=len(there & set(sifs)),
        size=sum(weight for path, weight in sifs.items() if path in there),
        shards=len(there & shards),
        missing=tuple(sorted(needed - there)),
        strays=tuple(strays),
    )
