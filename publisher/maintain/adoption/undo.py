"""Taking an adoption back (:mod:`publisher.maintain.adoption.judge`), so that the older tool can go on as if there had been none.

The records of adopted names leave the manifest, and their links show the older tool's sandboxes again. Builds that syncs have
made for these names since stay where they are, named by nobody: the older tool removes directories without a link two days
after it first sees them, as it does with its own; SIFs go from the origin like all that no manifest names. It can be done
until the first adopted build is removed: what is gone nobody brings back. Pure, but for :func:`carry_out`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.manifest import BLOCKED
from publisher.errors import UsageError
from publisher.plan import retention
from publisher.state import paths, transitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from publisher.contract.manifest import Record, Version
    from publisher.publish.publication import Publication, PublishResult
    from publisher.state.snapshot import Snapshot


@dataclass(frozen=True)
class AdoptionUndo:
    """What is to be done.

    Attributes:
        snapshot: what is published without the records that go; its serial is still that of what is published.
        names: whose records go.
        links: path -> target of the links that are set again.
        removals: our other links to these names, and file indexes that nobody names any more.
        left: sandboxes that nobody names any more.
        kept: a line for each name that stays as it is.
    """

    snapshot: Snapshot
    names: tuple[str, ...]
    links: Mapping[str, str]
    removals: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """For people: what needs to be looked at, and how much there is."""
        lines = [*self.kept, *(f"the link is set again: {path} -> {target}" for path, target in self.links.items())]
        lines += [f"left for the older tool to clean up: {path}" for path in self.left]
        stay = len(self.snapshot.records)
        return [*lines, f"{len(self.names)} adopted name(s)" + (f"; {stay} other name(s) stay published" if stay else "")]


def withdrawal(snapshot: Snapshot, links: Mapping[str, str]) -> AdoptionUndo:
    """What takes an adoption back.

    Args:
        snapshot: what is published.
        links: the repository's, path -> target.

    Raises:
        UsageError: an adopted build was removed since, or none is published.
    """
    if snapshot.lost:
        raise UsageError(
            f"the adoption cannot be taken back any more: {snapshot.lost}",
            hint="the older tool can go on all the same: it builds what it misses",
        )
    adopted = {name: record for name, record in snapshot.records.items() if transitions.adopted_versions(record)}
    blocked = [name for name, record in adopted.items() if any(one.state == BLOCKED for _, one in record.versions())]
    going = {name: record for name, record in adopted.items() if name not in blocked}
    if not adopted:
        raise UsageError("nothing that is published was adopted")
    rest = snapshot.without(going)
    named = retention.data_of(rest.records.values())
    again = {name: transitions.adopted_versions(record)[0] for name, record in going.items()}
    ours = {path for record in going.values() for path in paths.link_paths(record.name, list(record.platforms))} - going.keys()
    data = _data(going.values()) - named.keys() - {version.sandbox for version in again.values()}
    return AdoptionUndo(
        rest,
        tuple(going),
        dict(_relinked(again, links, snapshot.repository)),
        tuple(sorted((ours & links.keys()) | {path for path in data if path.startswith(f"{paths.REPOSITORY_MANIFEST}/")})),
        tuple(sorted(path for path in data if path.startswith(f"{paths.IMAGES}/"))),
        tuple(f"{name} stays: a build of it is blocked, and execution points must know" for name in blocked),
    )


def carry_out(publication: Publication, what: AdoptionUndo) -> PublishResult:
    """One transaction.

    Raises:
        RepositoryError, SpaceError: nothing was changed.
    """
    return publication.change(what.snapshot, {}, what.removals, links=what.links)


def _data(listed: Iterable[Record]) -> set[str]:
    return {path for record in listed for _, version in record.versions() for path in retention.paths_of(version)}


def _relinked(again: Mapping[str, Version], links: Mapping[str, str], repository: str) -> Iterable[tuple[str, str]]:
    """The names whose links show something else than the older tool's sandbox, and what they are to show."""
    for name, version in again.items():
        target = paths.link_target(name, str(version.sandbox))
        if links.get(name) not in {target, f"/cvmfs/{repository}/{version.sandbox}"}:
            yield name, target
