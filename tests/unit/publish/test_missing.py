"""Data that the manifest names and that is not there."""

from __future__ import annotations

import pytest

from publisher.contract.records import CURRENT, EXPIRING, SUPERSEDED
from publisher.errors import PublisherError
from publisher.publish.missing import check_share, find_missing
from publisher.state.snapshot import Snapshot
from tests.support.ep.execution_point import record, version

NAMES = [f"htc/image-{number}:1" for number in range(9)]


def published(lost: str) -> Snapshot:
    """Return nine names, each with a current version and one in the state ``lost``."""
    records = [record(name, amd64=[version(f"{name} now"), version(f"{name} lost", state=lost)]) for name in NAMES]
    return Snapshot("images.example.org").with_records({one.name: one for one in records})


def without_lost(snapshot: Snapshot) -> set[str]:
    """Return what the repository has: all but the lost versions."""
    versions = [version for record in snapshot.records.values() for _, version in record.versions()]
    lost = {version(f"{name} lost").sandbox for name in NAMES}
    return {one.sandbox for one in versions if one.sandbox is not None} - {path for path in lost if path is not None}


@pytest.mark.parametrize(("state", "stops"), [(CURRENT, True), (EXPIRING, True), (SUPERSEDED, False)])
def test_only_names_that_lose_what_they_lead_to_make_a_run_stop(state: str, stops: bool) -> None:
    """Versions that nobody starts by a name are reported, and are no reason to think that a disk is not mounted."""
    snapshot = published(state)
    missing = find_missing(snapshot, without_lost(snapshot).__contains__, None)
    assert len(missing.lines) == len(NAMES)
    assert missing.names == (set(NAMES) if stops else set())
    if stops:
        with pytest.raises(PublisherError, match="the data of 9 of 9 published names is missing"):
            check_share(missing, allowed=False)
    check_share(missing, allowed=stops)
