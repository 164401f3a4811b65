"""Audit of an origin: which objects the manifest names but the origin lacks, and which objects nothing names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.units import format_size
from publisher.plan import retention
from publisher.publish.manifest import history
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.state.snapshot import Snapshot
    from publisher.targets.origins.base import Origin

_INDEX = f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}"
_LOG = f"{paths.ORIGIN_MANIFEST}/log/"
_PAGE = f"{paths.ORIGIN_PAGE}/"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StrayObject:
    """An object of the origin that nothing names.

    Attributes:
        name: path of the object in the origin.
        size: bytes.
        stored: seconds since the epoch by the origin's clock; None if the object has disappeared since it was listed.
    """

    name: str
    size: int
    stored: float | None


@dataclass(frozen=True)
class OriginAudit:
    """The result of comparing an origin with the manifest.

    Attributes:
        sifs: number of SIFs that the manifest names and the origin has.
        size: their total size in bytes, according to the manifest.
        shards: number of manifest shards that a revision names and the origin has; earlier revisions count.
        missing: names of objects that are needed and missing.
        strays: objects that nothing names: due for garbage collection, left by killed runs, or stored by somebody else.
    """

    sifs: int
    size: int
    shards: int
    missing: tuple[str, ...]
    strays: tuple[StrayObject, ...]

    def lines(self) -> list[str]:
        """Return the audit as text for the operator: the totals, then a line for each missing or stray object."""
        lines = [f"{self.sifs} SIF(s) ({format_size(self.size)}) and {self.shards} manifest shard(s) are in place"]
        lines += [f"missing: {name}" for name in self.missing]
        for stray in self.strays:
            when = "" if stray.stored is None else f", stored {datetime.fromtimestamp(stray.stored, UTC):%Y-%m-%d %H:%M} UTC"
            lines.append(f"not named: {stray.name} ({format_size(stray.size)}{when})")
        return lines

    def to_json(self) -> dict[str, object]:
        """Return the audit as JSON values, for ``publisher origin --json``."""
        strays = [{"name": stray.name, "size": stray.size, "stored": stray.stored} for stray in self.strays]
        totals = {"sifs": self.sifs, "size": self.size, "shards": self.shards}
        return {**totals, "missing": list(self.missing), "not_named": strays}


def audit_origin(origin: Origin, snapshot: Snapshot, read: Callable[[str], bytes | None]) -> OriginAudit:
    """Compare the objects of an origin with the manifest.

    Objects are listed, not read: :func:`publisher.maintain.verify.verify_build` compares their content.

    Args:
        origin: the origin to audit.
        snapshot: the published state.
        read: returns the content of a file in the repository, None if there is no such file.

    Returns:
        What is in place, what is missing, and what nothing names.

    Raises:
        PublishedManifestError: a revision of the manifest is damaged.
        OriginError: the origin cannot be listed.
    """
    live_sifs = retention.sif_paths(snapshot.records.values())
    versions = [version for record in snapshot.records.values() for _, version in record.versions()]
    sifs = {
        version.sif.path: version.sif.size for version in versions if version.sif is not None and version.sif.path in live_sifs
    }
    tables = retention.origin_objects(snapshot.records.values()) - sifs.keys()
    shards = set(map(_shard_path, history.all_shards(read)))
    current_shards = set(map(_shard_path, history.current_shards(read)))
    stored = set(origin.names())
    needed = {*sifs, *tables, *current_shards, *([_INDEX] if current_shards else [])}
    strays = [
        StrayObject(name, origin.size(name) or 0, origin.modified(name))
        for name in sorted(stored - {*sifs, *tables, *shards, _INDEX})
        if not name.startswith((_LOG, _PAGE))
    ]
    missing = needed - stored
    _log.debug(
        "the origin has %d objects; %d are needed, %d missing, %d stray", len(stored), len(needed), len(missing), len(strays)
    )
    return OriginAudit(
        sifs=len(stored & set(sifs)),
        size=sum(size for path, size in sifs.items() if path in stored),
        shards=len(stored & shards),
        missing=tuple(sorted(missing)),
        strays=tuple(strays),
    )


def _shard_path(sha256: str) -> str:
    return f"{paths.ORIGIN_MANIFEST}/{manifest.shard_name(sha256)}"
