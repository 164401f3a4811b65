"""A backup that brings back what was taken down, as execution points see it: they remember what the publisher has forgotten."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.records import BLOCKED
from publisher.resolver.errors import BlockedError
from publisher.resolver.host import cache_statistics
from tests.support.ep.execution_point import ExecutionPoint, lay_down, record, revision, version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from publisher.contract.records import Record

pytestmark = pytest.mark.usefixtures("own_reads")

BAD, GOOD = "htc/bad:1", "htc/good:1"


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    """An execution point that has seen serials 1 and 2; at 2 an image was blocked."""
    (tmp_path / "ep").mkdir()
    ep = ExecutionPoint(tmp_path / "ep")
    first = ep.publish(record(BAD), record(GOOD), serial=1, predecessors={})
    assert ep.resolve(BAD).form == "sandbox"
    ep.publish(blocked(BAD), record(GOOD), serial=2, predecessors=chain(first))
    check_refused(ep, BAD)
    assert ep.notes.all == []
    return ep


def blocked(name: str) -> Record:
    return record(name, amd64=[version(name, state=BLOCKED, reason="it steals tokens")])


def chain(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the predecessors of the index that follows the one in ``files``."""
    index = manifest.Index.parse(manifest.unseal(files["index.json"])[0])
    return {**(index.predecessors or {}), str(index.serial): manifest.payload_sha256(files["index.json"])}


def check_refused(ep: ExecutionPoint, name: str, **changed: str) -> None:
    with pytest.raises(BlockedError, match="it steals tokens"):
        ep.resolve(name, **changed)  # type: ignore[arg-type]  # settings


def restored(ep: ExecutionPoint, serial: int = 9) -> dict[str, bytes]:
    """Publish what a publisher does all of whose places were restored from a backup of serial 1."""
    first = revision([record(BAD), record(GOOD)], ep.key, serial=1, predecessors={})
    return ep.publish(record(BAD), record(GOOD), serial=serial, predecessors=chain(first))


def continued(ep: ExecutionPoint, serial: int) -> dict[str, bytes]:
    """Return a revision that continues the one that the execution point remembers."""
    (path,) = (ep.cache / "manifest").glob("*/index.json")
    return revision([blocked(BAD), record(GOOD)], ep.key, serial=serial, predecessors=chain({"index.json": path.read_bytes()}))


def test_an_execution_point_reports_a_fork(ep: ExecutionPoint) -> None:
    restored(ep)
    found = ep.resolve(BAD)
    (warning,) = ep.notes.warnings
    assert re.search(r"serial 9 from .*/\.publisher does not continue serial 2, which this host remembers", warning)
    assert warning.endswith("; it is used")
    assert found.to_json(ep.notes)["fork"] == warning
    ep.resolve(GOOD)
    assert (ep.notes.warnings, ep.notes.fork) == ([], warning), "which is remembered until somebody has looked at it"
    assert cache_statistics.collect(ep.settings())["ImageManifestForks"] == 1
    (proof,) = (ep.cache / "manifest").glob("*/fork-index.json")
    assert manifest.Index.parse(manifest.unseal(proof.read_bytes())[0]).serial == 2
    proof.with_name("fork").unlink()
    ep.resolve(GOOD)
    assert (ep.notes.fork, cache_statistics.collect(ep.settings())["ImageManifestForks"]) == ("", 0)


def test_a_later_fork_does_not_replace_the_proof_of_the_first(ep: ExecutionPoint) -> None:
    restored(ep)
    ep.resolve(GOOD)
    ep.publish(record(GOOD), serial=12, predecessors={})
    ep.resolve(GOOD)
    assert "serial 12 from" in ep.notes.warnings[0]
    assert "serial 9 from" in ep.notes.fork
    (proof,) = (ep.cache / "manifest").glob("*/fork-index.json")
    assert manifest.Index.parse(manifest.unseal(proof.read_bytes())[0]).serial == 2


def test_an_execution_point_refuses_a_fork_if_the_site_wants_that(ep: ExecutionPoint) -> None:
    fork = restored(ep)
    for _ in range(2):
        check_refused(ep, BAD, forks="refuse")
        assert ep.resolve(GOOD, forks="refuse").manifest.index.serial == 2
        assert ep.notes.warnings[0].endswith("; it is refused")
    ep.publish(record(BAD), record(GOOD), serial=10, predecessors=chain(fork))
    check_refused(ep, BAD, forks="refuse")
    lay_down(continued(ep, serial=11), ep.origin / "manifest")
    assert ep.resolve(GOOD, forks="refuse").manifest.index.serial == 11, "which continues what it remembers"
    assert ep.notes.warnings == []


@pytest.mark.parametrize("forks", ["report", "refuse"])
def test_an_index_with_the_remembered_one_among_its_predecessors_is_used(ep: ExecutionPoint, forks: str) -> None:
    """Also after a gap, and if the gap is longer than what an index names."""
    ep.publish(record(GOOD), serial=700, predecessors={**chain(continued(ep, 3)), "699": "0" * 64})
    assert ep.resolve(GOOD, forks=forks).manifest.index.serial == 700
    assert ep.notes.all == []
    many = {str(serial): f"{serial:064x}" for serial in range(701, 701 + manifest.MAX_PREDECESSORS)}
    ep.publish(record(GOOD), serial=800, predecessors=many)
    assert ep.resolve(GOOD, forks=forks).manifest.index.serial == 800
    assert ep.notes.all == [], "nobody can know"


def test_an_index_whose_publisher_named_no_predecessors_yet_may_have_any_successor(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    ep = ExecutionPoint(tmp_path / "old")
    ep.publish(record(GOOD), serial=1)
    ep.resolve(GOOD)
    ep.publish(record(GOOD), serial=2, predecessors={})
    assert ep.resolve(GOOD, forks="refuse").manifest.index.serial == 2
    assert ep.notes.all == []


@pytest.mark.parametrize(
    "predecessors",
    [
        None,
        {},
        {"2": "0" * 64},
        {"1": "0" * 64},
        {str(serial): "0" * 64 for serial in range(manifest.MAX_PREDECESSORS + 1) if serial != 2},
    ],
    ids=["none", "empty", "another sha256", "another serial", "full"],
)
def test_an_index_cannot_hide_that_it_is_a_fork(ep: ExecutionPoint, predecessors: Mapping[str, str] | None) -> None:
    ep.publish(record(BAD), serial=3, predecessors=predecessors)
    check_refused(ep, BAD, forks="refuse")
    assert "does not continue serial 2" in ep.notes.fork


def test_a_serial_that_was_given_to_two_indexes_is_a_fork(ep: ExecutionPoint) -> None:
    restored(ep, serial=2)
    check_refused(ep, BAD, forks="refuse")
    assert re.search(r"serial 2 from .* does not continue serial 2", ep.notes.fork)


def test_an_index_cannot_hide_that_its_serial_was_given_out_before(ep: ExecutionPoint) -> None:
    """By naming the other one with the same serial as its predecessor."""
    remembered = (ep.repository / ".publisher/index.json").read_bytes()
    ep.publish(record(BAD), serial=2, predecessors=chain({"index.json": remembered}))
    check_refused(ep, BAD, forks="refuse")
    assert "does not continue serial 2" in ep.notes.fork
