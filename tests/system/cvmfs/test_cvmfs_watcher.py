"""At every moment of every change, each name opens for a client, or is absent on purpose."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from publisher.maintain import gc
from publisher.plan.retention import RetentionLimits
from publisher.state import transitions
from tests.support.cvmfs.stand_in import FakeCvmfs
from tests.support.cvmfs.watcher import watching
from tests.support.images.printing_image import push

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cvmfs.host import CvmfsHost

pytestmark = pytest.mark.system

YEAR = 365 * 86400


def lay_out(there: CvmfsHost, name: str) -> None:
    """Publish what the older tool leaves of an image."""
    there.cvmfs.run("transaction", there.cvmfs.fqrn)
    sandbox = f".images/ab/{'c' * 62}"
    (there.cvmfs.mount / sandbox / "etc").mkdir(parents=True)
    (there.cvmfs.mount / sandbox / "etc/motd").write_text("by the older tool")
    link = there.cvmfs.mount / name
    link.parent.mkdir(exist_ok=True)
    # as the older tool does, but below this repository's own root: an absolute link leaves the place where the client looks
    link.symlink_to(f"../{sandbox}")
    there.cvmfs.run("publish", there.cvmfs.fqrn)


def test_every_name_opens_at_every_moment(there: CvmfsHost, tmp_path: Path) -> None:
    client, report = there.cvmfs.client, tmp_path / "watched.json"
    lay_out(there, "old/image:1")
    push(there.registry, "watch/one:1", "first")
    push(there.registry, "watch/two:1", "stays")
    there.host.images("watch/one:1", "watch/two:1", "old/image:1")

    with watching(there.cvmfs, report) as adopted:
        there.adopt()
    assert (adopted.broken, adopted.vanished, adopted.appeared) == (set(), set(), set())

    with watching(there.cvmfs, report) as published:
        there.sync()
    assert (published.broken, published.vanished) == (set(), set())
    assert published.appeared == {"watch/one:1", "watch/two:1"}

    push(there.registry, "watch/one:1", "second")
    with watching(there.cvmfs, report) as cloned:
        there.sync()
    assert (client / "watch/one:1/etc/motd").read_text() == "second\n"
    if isinstance(there.cvmfs, FakeCvmfs):
        assert [line["clones"] for line in there.cvmfs.log() if line["command"] == "transaction"][-1] == 1
    assert (cloned.broken, cloned.vanished) == (set(), set())

    push(there.registry, "watch/three:1", "third")
    there.host.images("watch/one:1", "watch/two:1", "watch/three:1", "old/image:1")
    with watching(there.cvmfs, report) as ingested:
        there.sync()
    if isinstance(there.cvmfs, FakeCvmfs):
        assert "ingest" in there.cvmfs.commands()
    assert (ingested.broken, ingested.vanished, ingested.appeared) == (set(), set(), {"watch/three:1"})

    publication = there.publication()
    snapshot, _ = publication.open()
    with watching(there.cvmfs, report) as rolled_back:
        record = transitions.roll_back(snapshot.records["watch/one:1"], int(time.time()))
        snapshot = publication.change(snapshot, {"watch/one:1": record}).snapshot
    assert (client / "watch/one:1/etc/motd").read_text() == "first\n"
    assert (rolled_back.broken, rolled_back.vanished) == (set(), set())

    snapshot = publication.publish(snapshot, [], ["old/image:1"]).snapshot
    later = int(time.time()) + YEAR
    with watching(there.cvmfs, report) as collected:
        result = gc.collect(publication, snapshot, later, RetentionLimits(grace=0, count=100, size=1 << 40))
        gc.collect(publication, result.snapshot, later + YEAR, RetentionLimits(grace=0, count=100, size=1 << 40))
    assert result.lines, "something was removed"
    assert collected.broken == set()
    assert collected.vanished == {"old/image:1"}, "it left on purpose"
    assert all(seen.rounds > 1 for seen in (adopted, published, cloned, ingested, rolled_back, collected))


def test_the_watcher_notices_a_name_that_does_not_open(there: CvmfsHost, tmp_path: Path) -> None:
    lay_out(there, "old/image:1")
    with watching(there.cvmfs, tmp_path / "watched.json") as watched:
        there.cvmfs.run("transaction", there.cvmfs.fqrn)
        (there.cvmfs.mount / f".images/ab/{'c' * 62}/etc/motd").unlink()
        there.cvmfs.run("publish", there.cvmfs.fqrn)
    assert watched.broken == {"old/image:1"}
