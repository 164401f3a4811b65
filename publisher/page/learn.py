"""Takes into the page's memory what a sync has brought: entries of the publication log, failures, image configs, differences."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.contract.errors import ManifestError
from publisher.page.details import ImageDetails, labels_of, read_config
from publisher.page.memory import FAILED, DayTotal, PageEvent
from publisher.page.rows import active_versions
from publisher.state.publication_log import CHANGED, NEW, LogEntry, entry_name
from publisher.status.answer import ImageState
from publisher.status.lag import lag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from publisher.contract.records import Version
    from publisher.page.details import BuildChanges
    from publisher.page.memory import PageMemory
    from publisher.page.rows import Row
    from publisher.state.snapshot import Snapshot
    from publisher.status.answer import Known

_log = logging.getLogger(__name__)
DAY = 86400
_MOST_ENTRIES = 100_000
"""Entries of the log that are read at a time, which is more than two years of a sync every quarter of an hour."""
_MOST_COMPARED, _MOST_SANDBOXES = 20, 1000
"""Builds that one sync compares, and sandboxes that it looks into; the others follow with the next syncs."""


@dataclass(frozen=True)
class Sources:
    """Where the page learns from.

    Attributes:
        read_manifest: returns the content of a file below the manifest's directory, None if there is none.
        read: returns the content of a file of the repository, None if there is none.
        compare: returns what changed from the first to the second build, None if that cannot be known.
        configs: digest -> image config of the images that this run has fetched.
    """

    read_manifest: Callable[[str], bytes | None]
    read: Callable[[str], bytes | None]
    compare: Callable[[Version, Version], BuildChanges | None]
    configs: Mapping[str, bytes] = field(default_factory=dict)


def learn(memory: PageMemory, known: Known, rows: Iterable[Row], sources: Sources, now: int) -> None:
    """Take in what is new since the last time.

    Args:
        memory: the page's memory.
        known: all that is known of the images.
        rows: the rows of all images.
        sources: where details come from.
        now: seconds since the epoch.
    """
    snapshot, outcomes = known.snapshot, known.snapshot.outcomes
    current = [version for record in snapshot.records.values() for _, version in active_versions(record)]
    _learn_details(memory, current, sources)
    entries = _new_entries(memory, snapshot, sources.read_manifest)
    _learn_lags(memory, snapshot, entries)
    changes = [(entry, change) for entry in entries for change in entry.changes]
    memory.add_events(
        PageEvent(entry.time, entry.serial, change.name, change.platform, change.digest, change.why, change.reason)
        for entry, change in changes
    )
    _learn_failures(memory, rows)
    _learn_differences(memory, snapshot, sources.compare)
    memory.keep_only(version.digest for record in snapshot.records.values() for _, version in record.versions())
    memory.set_total(_total(snapshot, now))
    memory.put("started", outcomes.started)
    memory.put("waiting", {name: last.since for name, last in outcomes.images.items()})


def build_pairs(snapshot: Snapshot, name: str) -> list[tuple[Version, Version]]:
    """Return current and previous build of each platform of a name that has both, the default platform first."""
    record = snapshot.records.get(name)
    if record is None:
        return []
    platforms = [record.platforms[platform] for platform, _ in active_versions(record)]
    return [(versions[0], versions[1]) for versions in platforms if len(versions) > 1]


def _new_entries(memory: PageMemory, snapshot: Snapshot, read: Callable[[str], bytes | None]) -> list[LogEntry]:
    """Return the entries of the publication log that were not read yet, the oldest first."""
    seen = int(memory.get("serial", 0))
    serial = 0 if snapshot.log is None else snapshot.log.serial
    entries: list[LogEntry] = []
    memory.put("serial", serial)
    while serial > seen and len(entries) < _MOST_ENTRIES:
        content = read(entry_name(serial))
        try:
            entry = None if content is None else LogEntry.parse(content)
        except ManifestError as error:  # publisher log verify reports it
            _log.debug("%s: %s", entry_name(serial), error)
            entry = None
        if entry is None or entry.previous_serial >= serial:
            break
        entries.append(entry)
        serial = entry.previous_serial
    return entries[::-1]


def _learn_lags(memory: PageMemory, snapshot: Snapshot, entries: Iterable[LogEntry]) -> None:
    """Note how long the changes of tags took to be published, as :mod:`publisher.status.lag` says."""
    started, waiting = int(memory.get("started", 0)), memory.get("waiting", {})
    if not started:
        return
    for entry in entries:
        changed = {change.name: change.digest for change in entry.changes if change.why in {NEW, CHANGED}}
        for name, digest in changed.items():
            if name not in snapshot.records:
                continue
            details = memory.details(digest)
            created = 0 if details is None else details.created
            memory.add_lag(entry.time, name, lag_of(entry.time, int(waiting.get(name, started)), created))


def _learn_failures(memory: PageMemory, rows: Iterable[Row]) -> None:
    """Note which images began to fail."""
    before = memory.get("failing", {})
    failing = {row.name: row for row in rows if row.state == ImageState.FAILING.value}
    new = [row for name, row in sorted(failing.items()) if before.get(name) != row.since]
    memory.add_events(PageEvent(row.since, 0, row.name, "", "", FAILED, row.reason, row.registry) for row in new)
    memory.put("failing", {name: row.since for name, row in failing.items()})


def _learn_details(memory: PageMemory, current: Iterable[Version], sources: Sources) -> None:
    found: dict[str, ImageDetails] = {}
    for digest, raw in sources.configs.items():
        try:
            found[digest] = read_config(raw)
        except (ValueError, RecursionError) as error:
            _log.debug("the config of %s cannot be read: %s", digest, error)
    known = memory.known_details() | found.keys()
    unknown = {version.digest: version.sandbox for version in current if version.digest not in known and version.file_index}
    for digest, sandbox in list(unknown.items())[:_MOST_SANDBOXES]:
        content = None if sandbox is None else sources.read(f"{sandbox}/.singularity.d/labels.json")
        if content is not None:
            found[digest] = labels_of(content)
    memory.add_details(found)


def _learn_differences(
    memory: PageMemory, snapshot: Snapshot, compare: Callable[[Version, Version], BuildChanges | None]
) -> None:
    compared = memory.compared()
    pairs = {
        (current.digest, previous.digest): (previous, current)
        for name in snapshot.records
        for current, previous in build_pairs(snapshot, name)
        if current.file_index is not None and previous.file_index is not None
    }
    waiting = [pair for key, pair in pairs.items() if key not in compared]
    for previous, current in waiting[:_MOST_COMPARED]:
        changes = compare(previous, current)
        if changes is not None:
            memory.add_build_changes(current.digest, changes)


def _total(snapshot: Snapshot, now: int) -> DayTotal:
    """Return the totals of today: each sandbox and SIF counts once, whatever names have it."""
    versions = [version for record in snapshot.records.values() for _, version in record.versions()]
    sandboxes = {version.sandbox: version.unpacked_size for version in versions if version.sandbox is not None}
    sifs = {version.sif.path: version.sif.size for version in versions if version.sif is not None}
    images = sum(bool(active_versions(record)) for record in snapshot.records.values())
    return DayTotal(now // DAY, images, sum(sandboxes.values()), sum(sifs.values()))
