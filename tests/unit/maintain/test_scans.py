"""Which builds a run scans, and what it stores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from publisher.contract.records import BLOCKED, Record, Version
from publisher.maintain import scans
from publisher.maintain.scanner import ScanResult, VulnerabilityScanner
from publisher.state import paths
from publisher.state.snapshot import Snapshot
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.machine.printing_program import printing_program
from tests.support.publisher.built_values import digest

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400


@pytest.fixture
def repository(tmp_path: Path) -> DirectoryRepository:
    return DirectoryRepository(tmp_path / "images.example.org")


@pytest.fixture
def program(tmp_path: Path) -> VulnerabilityScanner:
    path = printing_program(tmp_path / "trivy", json.dumps({"SchemaVersion": 2}))
    return VulnerabilityScanner(str(path), None, None, 30.0)


def snapshot(*names: str, **more: str) -> Snapshot:
    records = {}
    for name in names:
        version = Version(digest(name), sandbox=paths.sandbox_path(digest(name)), sif=None, published=1, **more)  # type: ignore[arg-type]
        records[name] = Record(name, f"hub.example.org/{name}", digest(name), {"amd64": [version]})
    return Snapshot("images.example.org", records=records)


def publish(repository: DirectoryRepository, state: Snapshot) -> None:
    with repository.transaction() as transaction:
        for record in state.records.values():
            for _, version in record.versions():
                transaction.tree(str(version.sandbox)).mkdir(parents=True)


def run(repository: DirectoryRepository, state: Snapshot, program: VulnerabilityScanner, now: int, count: int = 20) -> list[str]:
    """Scan what is due and store it; return the names."""
    found = scans.scan_due(scans.list_builds(state, repository), repository, program, now=now, interval=7 * DAY, count=count)
    assert found.problems == []
    scans.store(repository, state, found.results)
    return [build.name for build in found.results]


def test_each_run_scans_a_few_builds_those_first_that_waited_longest(
    repository: DirectoryRepository, program: VulnerabilityScanner
) -> None:
    state = snapshot("a/one:1", "a/two:1", "a/three:1")
    publish(repository, state)
    assert run(repository, state, program, now=DAY, count=2) == ["a/one:1", "a/three:1"]
    assert run(repository, state, program, now=2 * DAY, count=2) == ["a/two:1"]
    assert run(repository, state, program, now=3 * DAY, count=2) == [], "none of them was scanned a week ago"
    assert run(repository, state, program, now=8 * DAY, count=2) == ["a/one:1", "a/three:1"]
    assert [build.result and build.result.scanned for build in scans.list_builds(state, repository)] == [
        8 * DAY,
        8 * DAY,
        2 * DAY,
    ]


def test_a_digest_is_scanned_once_and_a_build_without_a_tree_never(
    repository: DirectoryRepository, program: VulnerabilityScanner
) -> None:
    state = snapshot("a/one:1")
    same = Record("b/same:1", "hub.example.org/b/same:1", digest("a/one:1"), state.records["a/one:1"].platforms)
    without = Version(digest("sif"), sandbox=None, sif=None, published=1)
    blocked = snapshot("c/blocked:1", state=BLOCKED).records["c/blocked:1"]
    others = {"b/same:1": same, "d/sif:1": Record("d/sif:1", "x", digest("sif"), {"amd64": [without]}), blocked.name: blocked}
    publish(repository, state)
    assert run(repository, state.with_records(others), program, now=DAY) == ["a/one:1"]


def test_the_result_of_an_image_that_is_gone_is_removed(repository: DirectoryRepository, program: VulnerabilityScanner) -> None:
    state = snapshot("a/one:1", "a/two:1")
    publish(repository, state)
    run(repository, state, program, now=DAY)
    gone, kept = paths.scan_path(digest("a/one:1")), paths.scan_path(digest("a/two:1"))
    assert repository.exists(gone)
    scans.store(repository, snapshot("a/two:1"), [])
    assert (repository.exists(gone), repository.exists(kept)) == (False, True)
    one = scans.ScannedBuild("a/one:1", digest("a/one:1"), "", ScanResult("trivy", 1, {}, []))
    scans.store(repository, snapshot("a/two:1"), [one])
    assert not repository.exists(gone), "it was removed while the scan went on"


def test_a_scanner_that_always_fails_is_not_run_for_every_image(repository: DirectoryRepository, tmp_path: Path) -> None:
    broken = VulnerabilityScanner(str(printing_program(tmp_path / "grype", "no JSON")), None, None, 30.0)
    state = snapshot(*(f"a/image:{number}" for number in range(9)))
    publish(repository, state)
    builds = scans.list_builds(state, repository)
    found = scans.scan_due(builds, repository, broken, now=DAY, interval=DAY, count=20)
    assert (len(found.problems), found.results) == (4, [])
    assert found.problems[0].startswith("a/image:0: grype did not print its JSON")
    assert found.problems[-1] == "3 scans in a row failed, so no more are tried"
