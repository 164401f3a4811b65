"""Scans published sandboxes, a few in each run, and stores the results in the repository beside the file indexes.

A result is information for people: nothing that this program publishes, serves or removes depends on it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED
from publisher.errors import ScanError
from publisher.maintain import scanner
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.contract.records import Record
    from publisher.maintain.scanner import ScanResult, VulnerabilityScanner
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository

_log = logging.getLogger(__name__)

_MAX_FAILURES = 3
"""Scans in a row that fail; then the scanner is taken to be broken, and the run stops."""


@dataclass(frozen=True)
class ScannedBuild:
    """A published build with a sandbox: one of its names, its digest and the sandbox's path, and its last result, if any."""

    name: str
    digest: str
    sandbox: str
    result: ScanResult | None = None


@dataclass
class ScanRun:
    """What a run scanned: builds with new results, a line for each scan that failed, and the number of due builds that wait."""

    results: list[ScannedBuild] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    waiting: int = 0


def read_result(repository: Repository, digest: str) -> ScanResult | None:
    """Return the last result for an image, None if it was never scanned."""
    content = repository.read(paths.scan_path(digest))
    return None if content is None else scanner.parse_result(content)


def read_results(repository: Repository, record: Record) -> dict[str, ScanResult]:
    """Return digest -> last result of the versions of a record that were scanned."""
    results = {version.digest: read_result(repository, version.digest) for _, version in record.versions()}
    return {digest: result for digest, result in results.items() if result is not None}


def list_builds(snapshot: Snapshot, repository: Repository) -> list[ScannedBuild]:
    """Return the published builds that have a sandbox, each digest once, in alphabetical order of names."""
    found: dict[str, ScannedBuild] = {}
    for name, record in sorted(snapshot.records.items()):
        for _, version in record.versions():
            if version.sandbox is not None and version.state != BLOCKED and version.digest not in found:
                result = read_result(repository, version.digest)
                found[version.digest] = ScannedBuild(name, version.digest, version.sandbox, result)
    return list(found.values())


def scan_due(
    builds: list[ScannedBuild], repository: Repository, program: VulnerabilityScanner, *, now: int, interval: float, count: int
) -> ScanRun:
    """Scan the builds whose last scan is longest ago, those without any first.

    Args:
        builds: the published builds.
        repository: the repository that has their sandboxes.
        program: the scanner.
        now: seconds since the epoch.
        interval: seconds after which a build is scanned again.
        count: largest number of builds that are scanned.
    """
    due = [build for build in builds if build.result is None or build.result.scanned + interval <= now]
    due.sort(key=lambda build: -1 if build.result is None else build.result.scanned)
    run, failures = ScanRun(waiting=max(0, len(due) - count)), 0
    for build in due[:count]:
        try:
            result = repository.read_consistently(partial(program.scan, repository.root / build.sandbox, now))
        except ScanError as error:
            failures += 1
            run.problems.append(f"{build.name}: {error}")
            if failures == _MAX_FAILURES:
                run.problems.append(f"{failures} scans in a row failed, so no more are tried")
                break
        else:
            failures = 0
            run.results.append(ScannedBuild(build.name, build.digest, build.sandbox, result))
    return run


def store(repository: Repository, snapshot: Snapshot, results: list[ScannedBuild]) -> None:
    """Store results in one transaction of the repository, and remove those of images that are no longer published.

    Raises:
        RepositoryError, SpaceError: nothing is stored.
    """
    published = {version.digest for record in snapshot.records.values() for _, version in record.versions()}
    current = [build for build in results if build.digest in published and build.result is not None]
    stale = sorted(set(_stored(repository)) - {paths.scan_path(digest) for digest in published})
    if not current and not stale:
        return
    with repository.transaction() as transaction:
        for build in current:
            value = {"digest": build.digest, **(build.result.to_json() if build.result is not None else {})}
            transaction.write(paths.scan_path(build.digest), json.dumps(value, sort_keys=True).encode() + b"\n")
        for path in stale:
            transaction.remove(path)
    _log.info("stored %d result(s), removed %d of images that are gone", len(current), len(stale))


def _stored(repository: Repository) -> Iterator[str]:
    """Yield the paths of the stored results."""
    root = repository.root / paths.SCANS
    for path in root.glob("*/*.json"):
        yield f"{paths.SCANS}/{path.relative_to(root)}"
