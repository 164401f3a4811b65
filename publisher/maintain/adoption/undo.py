"""Undo of an adoption (see :mod:`publisher.maintain.adoption.judge`), so that the older tool can continue with the repository.

The records of adopted names leave the manifest, and their links point to the older tool's sandboxes again. Sandboxes that syncs
have built for these names since then stay, although no record names them: the older tool removes a directory without a link two
days after it first sees it. SIFs are removed from the origin by garbage collection, because no manifest names them. An adoption
can be undone until the first adopted build is removed. Pure, except for :func:`apply`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED
from publisher.errors import UsageError
from publisher.plan import retention
from publisher.state import paths, transitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from publisher.contract.records import Record, Version
    from publisher.publish.publication import Publication, PublishResult
    from publisher.state.snapshot import Snapshot


@dataclass(frozen=True)
class AdoptionUndo:
    """The changes that undo an adoption.

    Attributes:
        snapshot: the published state without the records that are removed; it has the serial of the published state.
        names: the names that lose their record.
        links: path -> target of the links that are set back.
        removals: this program's other links for these names, and file indexes that no record names any more.
        left: sandboxes that stay for the older tool, although no record names them any more.
        kept: a line for each adopted name that keeps its record.
    """

    snapshot: Snapshot
    names: tuple[str, ...]
    links: Mapping[str, str]
    removals: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """Return the changes as text for the operator; the last line is the total."""
        lines = [*self.kept, *(f"the link is set back: {path} -> {target}" for path, target in self.links.items())]
        lines += [f"left for the older tool to clean up: {path}" for path in self.left]
        others = len(self.snapshot.records)
        return [*lines, f"{len(self.names)} adopted name(s)" + (f"; {others} other name(s) stay published" if others else "")]


def plan_undo(snapshot: Snapshot, links: Mapping[str, str]) -> AdoptionUndo:
    """Return the changes that undo an adoption.

    Args:
        snapshot: the published state.
        links: all links of the repository, path -> target.

    Raises:
        UsageError: an adopted build was removed since the adoption, or nothing published was adopted.
    """
    if snapshot.lost:
        raise UsageError(
            f"the adoption cannot be undone any more: {snapshot.lost}",
            hint="the older tool can still be used: it builds again what is missing",
        )
    adopted = {name: record for name, record in snapshot.records.items() if transitions.adopted_versions(record)}
    if not adopted:
        raise UsageError("no published image was adopted, so there is nothing to undo")
    blocked = [name for name, record in adopted.items() if any(version.state == BLOCKED for _, version in record.versions())]
    removed = {name: record for name, record in adopted.items() if name not in blocked}
    rest = snapshot.without(removed)
    live_data = retention.count_data_paths(rest.records.values())
    adopted_version = {name: transitions.adopted_versions(record)[0] for name, record in removed.items()}
    our_links = {path for record in removed.values() for path in paths.link_paths(record.name, list(record.platforms))}
    our_links -= removed.keys()
    unnamed = _data_of(removed.values()) - live_data.keys() - {version.sandbox for version in adopted_version.values()}
    file_indexes = {path for path in unnamed if path.startswith(f"{paths.REPOSITORY_MANIFEST}/")}
    return AdoptionUndo(
        snapshot=rest,
        names=tuple(removed),
        links=dict(_links_to_set(adopted_version, links, snapshot.repository)),
        removals=tuple(sorted((our_links & links.keys()) | file_indexes)),
        left=tuple(sorted(path for path in unnamed if path.startswith(f"{paths.IMAGES}/"))),
        kept=tuple(f"{name} keeps its record: a build of it is blocked, and execution points must refuse it" for name in blocked),
    )


def apply(publication: Publication, undo: AdoptionUndo) -> PublishResult:
    """Carry out an undo in one transaction of the repository.

    Raises:
        RepositoryError, SpaceError: nothing was changed.
    """
    return publication.change(undo.snapshot, {}, undo.removals, links=undo.links)


def _data_of(records: Iterable[Record]) -> set[str]:
    return {path for record in records for _, version in record.versions() for path in retention.data_paths(version)}


def _links_to_set(adopted: Mapping[str, Version], links: Mapping[str, str], repository: str) -> Iterable[tuple[str, str]]:
    """Yield name and target of each link that does not point to the older tool's sandbox."""
    for name, version in adopted.items():
        target = paths.link_target(name, str(version.sandbox))
        if links.get(name) not in {target, f"/cvmfs/{repository}/{version.sandbox}"}:
            yield name, target
