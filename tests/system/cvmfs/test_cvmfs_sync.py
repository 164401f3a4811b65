"""Whole runs into a CVMFS repository, on the stand-in: a real registry, real builds, the run's own parts put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.build.squash.own_squasher import OwnSquasher
from publisher.errors import OriginError
from publisher.state import paths
from publisher.targets import published_index
from tests.support.cvmfs.tree_reads import counted_reads
from tests.support.images.layers import file, tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from tests.support.cvmfs.host import CvmfsHost

pytestmark = pytest.mark.system


def test_a_run_is_one_transaction_that_opens_when_everything_is_built_and_stored(there: CvmfsHost) -> None:
    for name in ("kill/one", "kill/two"):
        there.push(name, 1)
    there.host.images("kill/one:1", "kill/two:1")
    assert there.sync().exit_code == 0
    log = there.cvmfs.log()
    assert [line["command"] for line in log] == ["transaction", "publish"]
    assert there.sound() == 4
    sifs = [path.stat() for path in (there.host.origin / "sif").rglob("*.sif")]
    assert len(sifs) == 2
    assert max(sif.st_mtime_ns for sif in sifs) < log[0]["time"]
    root = there.host.repository
    assert sorted(path.name for path in root.iterdir()) == [".images", ".publisher", "kill"]
    marks = sorted(str(path.parent.relative_to(root)) for path in root.rglob(".cvmfscatalog"))
    versions = [there.host.record(f"kill/{name}:1").current("amd64") for name in ("one", "two")]
    assert marks == sorted([".images", *(str(version.sandbox) for version in versions if version is not None)])
    assert len(list((root / ".images").glob("[0-9a-f][0-9a-f]"))) == 256

    assert there.sync().exit_code == 0
    assert len(there.cvmfs.log()) == 2, "a run without work opens no transaction"


def test_the_sandbox_of_a_runs_only_image_is_unpacked_while_its_sif_is_checked(
    there: CvmfsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[str] = []
    there.before_storing(monkeypatch, lambda: stored.append("one"))
    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    assert there.sync().exit_code == 0
    assert stored
    assert [line["command"] for line in there.cvmfs.log()] == ["transaction", "publish"]
    assert there.sound() == 2


def test_an_image_that_is_refused_after_its_sandbox_was_unpacked_is_not_published(
    there: CvmfsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OriginError("the origin is full")

    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    with monkeypatch.context() as patched:
        there.before_storing(patched, refuse)
        assert there.sync().exit_code == 4
    assert not there.cvmfs.flag.exists()
    assert there.cvmfs.claimed() == []
    assert not (there.host.repository / "kill").exists()
    assert not list((there.host.repository / ".images").glob("*/*"))
    assert there.sync().exit_code == 0, "the next run begins a transaction again"
    assert there.sound() == 2


def test_a_new_version_is_cloned_and_changed_and_is_what_its_image_says(there: CvmfsHost) -> None:
    for name in ("kill/one", "kill/two"):
        there.push(name, 1)
    there.host.images("kill/one:1", "kill/two:1")
    there.sync()
    first = there.cvmfs.log()[-1]
    there.push("kill/one", 2)
    assert there.sync().exit_code == 0
    log = there.cvmfs.log()[2:]
    assert [(line["command"], line.get("clones")) for line in log] == [("transaction", 1), ("publish", None)]
    assert log[1]["entries"] < first["entries"] / 4
    assert (there.host.repository / "kill/one:1/etc/motd").read_bytes() == b"kill/one 2"
    assert there.sound() == 6

    there.push("kill/one", 3)
    there.push("kill/two", 3)
    assert there.sync().exit_code == 0
    log = there.cvmfs.log()[4:]
    assert [(line["command"], line.get("clones")) for line in log] == [("transaction", 1), ("publish", None)], "both are small"
    assert (there.host.repository / "kill/two:1/etc/motd").read_bytes() == b"kill/two 3"
    assert there.sound() == 10

    for name in ("kill/one", "kill/two"):
        push_image(there.registry.address, name, "1", [tar(runnable()), tar([file(f"{name}{one}", b"") for one in range(200)])])
    assert there.sync().exit_code == 0
    log = there.cvmfs.log()[6:]
    assert [(line["command"], line.get("clones")) for line in log] == [("transaction", 0), ("publish", None)]
    assert there.sound() == 14


def test_a_small_change_reads_no_more_of_a_large_image_than_of_a_small_one(there: CvmfsHost) -> None:
    """The clone is changed without a walk through what stays: on a real server, each directory is read through the client."""

    def push(name: str, directories: int, version: int) -> None:
        stays = [file(f"opt/{number}/{part}", b"content") for number in range(directories) for part in ("a", "b")]
        layers = [tar(runnable()), tar(stays), tar([file("etc/motd", f"{version}".encode(), mode=0o644)])]
        push_image(there.registry.address, name, "1", layers)

    sizes = {"kill/small": 20, "kill/large": 400}
    reads = {}
    for name, directories in sizes.items():
        push(name, directories, 1)
        there.host.images(f"{name}:1")
        there.sync()
        push(name, directories, 2)
        with counted_reads() as reads[name]:
            there.sync()
        assert [line["clones"] for line in there.cvmfs.log() if line["command"] == "transaction"][-1] == 1
    for kind in ("opened", "listed"):
        assert reads["kill/small"][kind] > 0
        assert reads["kill/large"][kind] < reads["kill/small"][kind] + 200, f"{kind}: {reads}"


def only_sandboxes(there: CvmfsHost, name: str) -> None:
    there.host.images(f"{name}:1", defaults={"formats": ["sandbox"]})


def test_an_image_that_wants_only_a_sandbox_is_not_squashed(there: CvmfsHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sandbox is made of layers, its next version of the difference; both are run and compared before they are published."""
    monkeypatch.setattr(OwnSquasher, "squash", None)
    there.push("kill/one", 1)
    only_sandboxes(there, "kill/one")
    assert there.sync().exit_code == 0
    there.push("kill/one", 2)
    report = there.sync()
    assert report.exit_code == 0
    assert [line.get("clones") for line in there.cvmfs.log()] == [0, None, 1, None]
    record = there.host.record("kill/one:1")
    for _, version in record.versions():
        assert (version.sif, version.test) == (None, "ran")
        there.whole(version)
    assert (there.host.repository / "kill/one:1/etc/motd").read_bytes() == b"kill/one 2"
    assert not list(there.host.origin.rglob("*.sif"))
    assert not list((there.host.state / "builds").glob("*.sandbox")), "a published build is not kept"


def test_an_image_that_does_not_start_leaves_no_sandbox(there: CvmfsHost) -> None:
    there.push("kill/one", 1)
    only_sandboxes(there, "kill/one")
    assert there.sync().exit_code == 0
    before = there.host.record("kill/one:1").to_json()
    broken = [file("bin/sh", b"#!/no/interpreter\n", mode=0o755)]
    push_image(there.registry.address, "kill/one", "1", [tar(runnable()), tar(broken)])
    report = there.sync()
    assert "test run of the finished sandbox failed" in str(report.outcomes["kill/one:1"].error)
    assert there.host.record("kill/one:1").to_json() == before
    assert len(list((there.host.repository / ".images").glob("*/*"))) == 1


def test_a_sandbox_gets_its_sif_when_its_entry_wants_one(there: CvmfsHost) -> None:
    there.push("kill/one", 1)
    only_sandboxes(there, "kill/one")
    there.sync()
    there.host.images("kill/one:1")
    assert there.sync().exit_code == 0
    assert there.sound() == 2


@pytest.mark.parametrize("is_known", [True, False])
def test_a_repository_with_extended_attributes_clones_what_has_an_index_of_them(
    there: CvmfsHost, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Indexes of older versions do not know them."""
    conf = there.cvmfs.spool.parent.parent / "etc" / there.cvmfs.fqrn / "server.conf"
    conf.write_text(conf.read_text().replace("CVMFS_INCLUDE_XATTRS='false'", "CVMFS_INCLUDE_XATTRS='true'"))
    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    assert there.sync().exit_code == 0
    if not is_known:
        monkeypatch.setattr(published_index, "knows_xattrs", lambda *_: False)
    there.push("kill/one", 2)
    assert there.sync().exit_code == 0
    assert [line.get("clones") for line in there.cvmfs.log()] == [0, None, int(is_known), None]
    assert there.sound() == 4


@pytest.mark.parametrize("damage", ["etc/motd", "file index"])
def test_a_predecessor_that_is_not_what_its_index_says_is_not_built_on(there: CvmfsHost, damage: str) -> None:
    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    there.sync()
    before = there.host.record("kill/one:1").current("amd64")
    assert before is not None
    broken = paths.file_index_path(before.content) if damage == "file index" else f"{before.sandbox}/{damage}"
    there.cvmfs.run("transaction", there.cvmfs.fqrn)
    (there.cvmfs.mount / broken).unlink()
    there.cvmfs.run("publish", there.cvmfs.fqrn)
    there.push("kill/one", 2)
    assert there.sync().exit_code == 0
    after = there.host.record("kill/one:1").current("amd64")
    assert after is not None
    there.whole(after)
    assert (there.host.repository / "kill/one:1/etc/motd").read_bytes() == b"kill/one 2"


def test_somebody_elses_transaction_keeps_a_run_from_publishing_and_loses_nothing(there: CvmfsHost) -> None:
    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    there.cvmfs.run("transaction", there.cvmfs.fqrn)
    (there.cvmfs.mount / "theirs").write_text("work")
    report = there.sync()
    assert report.exit_code == 4
    assert "somebody else's transaction is open" in str(report.stopped)
    assert not list(there.host.state.rglob("*.sif")), "nothing was built in vain"
    assert (there.cvmfs.mount / "theirs").read_text() == "work"
    there.cvmfs.run("publish", there.cvmfs.fqrn)
    assert there.sync().exit_code == 0
    assert (there.host.repository / "theirs").read_text() == "work"
    assert there.sound() == 2


def test_a_publish_that_ends_badly_when_it_is_out_is_a_note_in_the_report(there: CvmfsHost) -> None:
    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    there.sync()
    there.push("kill/one", 2)
    there.cvmfs.fault("publish", "fail-late")
    report = there.sync()
    assert report.exit_code == 0
    assert [line for line in report.notes if "is published all the same" in line]
    assert there.sound() == 4
