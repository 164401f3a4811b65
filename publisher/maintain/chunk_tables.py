"""Chunk tables for SIFs that were published before there were any, or that have lost theirs: some in each run.

The table is stored first and named by the records after, so a kill between only means that this run's SIFs are read again. The
records remember what was done: a SIF whose record names a table has one.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.chunks.cutter import LARGEST_SIF, ChunkCutter
from publisher.contract.records import BLOCKED, CURRENT, Chunks
from publisher.errors import OriginError, PublisherError
from publisher.state import transitions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.contract.records import Sif
    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot
    from publisher.targets.origins.base import Origin

_log = logging.getLogger(__name__)


@dataclass
class AddedTables:
    """The chunk tables that one run has added.

    Attributes:
        snapshot: the published state now.
        lines: what was done, as text for the operator.
        failures: why tables could not be made.
    """

    snapshot: Snapshot
    lines: list[str] = field(default_factory=list)
    failures: list[PublisherError] = field(default_factory=list)


def select_without(snapshot: Snapshot) -> list[Sif]:
    """Return the published SIFs of which no record names a table: first those that a name means now, the newest first."""
    without: dict[str, tuple[bool, int, Sif]] = {}
    named: set[str] = set()
    for record in snapshot.records.values():
        for _, version in record.versions():
            if version.sif is None or version.state == BLOCKED or version.sif.size > LARGEST_SIF:
                continue
            if version.sif.chunks is not None:
                named.add(version.sif.path)
            rank = (version.state == CURRENT, version.published, version.sif)
            without[version.sif.path] = max(without.get(version.sif.path, rank), rank, key=lambda each: each[:2])
    ordered = sorted(without.items(), key=lambda item: (item[1][:2], item[0]), reverse=True)
    return [sif for path, (_, _, sif) in ordered if path not in named]


def add_tables(publication: Publication, snapshot: Snapshot, count: int) -> AddedTables:
    """Make the tables of up to ``count`` SIFs that have none, and publish records that name them.

    Args:
        publication: an open publication.
        snapshot: the published state.
        count: how many SIFs are read.

    Returns:
        What was done; a failure of one SIF does not stop the others.
    """
    result = AddedTables(snapshot)
    waiting = select_without(snapshot)
    made: dict[str, Chunks] = {}
    try:
        for sif in waiting[:count]:
            try:
                chunks = make_table(publication.origin, sif)
            except OriginError as error:
                result.failures.append(error)
            else:
                made |= {} if chunks is None else {sif.path: chunks}
        _publish(publication, result, made)
    except PublisherError as error:
        result.failures.append(error)
    else:
        if made:
            later = f"; {len(waiting) - count} more follow in later runs" if len(waiting) > count else ""
            result.lines.append(f"{len(made)} SIF(s) that were published before have a chunk table now{later}")
    return result


def make_table(origin: Origin, sif: Sif) -> Chunks | None:
    """Read a SIF in the origin, store its table there, and return what its record has to name; None if it is too large for one.

    Raises:
        OriginError: the SIF is missing or damaged, or the table cannot be stored.
        SpaceError: the disk is full.
    """
    cutter = ChunkCutter()
    sha256 = origin.sha256(sif.path, cutter)
    if sha256 != sif.sha256:
        state = "missing" if sha256 is None else "damaged"
        raise OriginError(f"the SIF {sif.path} is {state}, so that it gets no chunk table", hint="run: publisher verify --repair")
    content = cutter.finish(sha256)
    if content is None:
        _log.debug("%s is too large for a chunk table", sif.path)
        return None
    chunks = Chunks(hashlib.sha256(content).hexdigest(), len(content))
    origin.put_bytes(chunks.path, content)
    return chunks


def replace_table(publication: Publication, snapshot: Snapshot, sif: Sif) -> Snapshot:
    """Make the table of a SIF anew, in place of a missing or damaged one; return the published state after it.

    Raises:
        PublisherError: the SIF is damaged too, or the table cannot be stored or published.
    """
    if sif.chunks is not None:
        publication.origin.remove(sif.chunks.path)
    chunks = make_table(publication.origin, sif)
    if chunks is not None and sif.chunks is not None and chunks.sha256 == sif.chunks.sha256:
        return snapshot
    result = AddedTables(snapshot)
    _publish(publication, result, {sif.path: chunks})
    return result.snapshot


def _publish(publication: Publication, result: AddedTables, tables: Mapping[str, Chunks | None]) -> None:
    """Publish records that name tables (path of a SIF -> its table), if there are any. Raises PublisherError."""
    changed = transitions.set_chunks(result.snapshot.records.values(), tables)
    if changed:
        published = publication.change(result.snapshot, changed, relink=False)
        result.snapshot = published.snapshot
        if published.behind is not None:
            raise published.behind
