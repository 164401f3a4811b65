"""Whole runs into a CVMFS repository, on the stand-in: a real registry, real builds, the run's own parts put together."""

from __future__ import annotations

import io
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from publisher import layout, tree, wiring
from publisher.builders.local import LocalBuilder
from publisher.config import settings
from publisher.layers.files import read_file_index
from publisher.origins.directory import DirectoryOrigin
from publisher.publication import Publication
from publisher.reports.progress import Lines
from publisher.resolver import manifest
from publisher.signing import Signer
from publisher.squash import Mksquashfs
from publisher.storage import delete
from publisher.sync import Sync
from publisher.testrun import TestRunner
from tests.support import children
from tests.support.cvmfs import FakeCvmfs
from tests.support.host import Host
from tests.support.layers import file, tar
from tests.support.registry import RegistryServer, push_image
from tests.support.runnable import runnable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.layers.files import IndexedFile
    from publisher.reports.run import Report
    from publisher.resolver.manifest import Version

pytestmark = pytest.mark.system

STRIDE = 89
"""Every so many changes to the file system a run is killed: prime, so that it falls into step with nothing that repeats."""


class CvmfsHost:
    """A publisher host with a CVMFS repository and a registry."""

    def __init__(self, where: Path, registry: RegistryServer) -> None:
        self.fake = FakeCvmfs(where)
        self.host = Host(where, registry)
        self.host.repository = self.fake.spool / "rdonly"
        self.registry = registry

    def sync(self) -> Report:
        chosen = settings(
            {
                "images": str(self.host.list),
                "repository": "cvmfs:images.example.org",
                "origin": str(self.host.origin),
                "state": str(self.host.state),
                "key": str(self.host.key),
                "insecure_registry": (self.registry.address,),
            },
            {},
        )
        repository = self.fake.repository(parents=layout.image_directories())
        publication = Publication(repository, DirectoryOrigin(self.host.origin), Signer(self.host.key), clock=time.time)
        out = io.StringIO()
        with wiring.locked(chosen.state), Lines(out) as shown, wiring.intake(chosen, shown) as intake:
            catalog, _ = publication.open()
            plan = wiring.plan(chosen, wiring.listed(chosen), catalog, intake, wiring.Wishes())
            scratch = self.host.state / "tmp"
            delete(scratch)
            scratch.mkdir()
            scratch.chmod(0o711)
            tester = TestRunner(chosen.test_account, scratch, chosen.test_deadline)
            builder = LocalBuilder(self.host.state / "builds", Mksquashfs(), tester)
            return Sync(intake, builder, publication, shown).run(plan, catalog)

    def push(self, name: str, version: int) -> None:
        """An image of which a version changes one file of many."""
        said = f"{name} {version}".encode()
        push_image(self.registry.address, name, "1", [tar(runnable()), tar([file("etc/motd", said, mode=0o644)])])

    def sound(self) -> int:
        """Everything that a manifest or a link names is there and whole; returns the versions seen."""
        host, seen = self.host, 0
        for where, index in ((host.repository / ".publisher", host.index()), (host.origin / "manifest", host.index(origin=True))):
            for sha256 in filter(None, index.shards if index is not None else ()):
                shard = manifest.Shard.parse((where / manifest.shard_name(sha256)).read_bytes(), sha256)
                for record in map(shard.record, shard.records):
                    assert record is not None
                    for _, version in record.versions():
                        assert version.sif is not None
                        assert (host.origin / version.sif.path).stat().st_size == version.sif.size
                        self.whole(version)
                        seen += 1
        for link in (host.repository / "kill").glob("*"):
            assert not link.readlink().is_absolute()
            assert (link / ".singularity.d/runscript").is_file(), f"{link} dangles"
        return seen

    def whole(self, version: Version) -> None:
        """A sandbox against its file index: by content, every path."""
        assert version.sandbox is not None
        index = self.host.repository / layout.file_index_path(version.manifest)

        def lines() -> Iterator[IndexedFile]:
            with index.open("rb") as content:
                yield from read_file_index(content)

        assert list(tree.differences(lines(), str(self.host.repository / version.sandbox))) == []


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def there(shared_path: Path, registry: RegistryServer) -> Iterator[CvmfsHost]:
    made = CvmfsHost(shared_path, registry)
    yield made
    made.fake.close()


def test_a_run_is_one_transaction_that_opens_when_everything_is_built_and_stored(there: CvmfsHost) -> None:
    for name in ("kill/one", "kill/two"):
        there.push(name, 1)
    there.host.images("kill/one:1", "kill/two:1")
    assert there.sync().exit_code == 0
    log = there.fake.log()
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
    assert len(there.fake.log()) == 2, "a run without work opens no transaction"


def test_a_new_version_is_cloned_and_changed_and_is_what_its_image_says(there: CvmfsHost) -> None:
    for name in ("kill/one", "kill/two"):
        there.push(name, 1)
    there.host.images("kill/one:1", "kill/two:1")
    there.sync()
    first = there.fake.log()[-1]
    for name in ("kill/one", "kill/two"):
        there.push(name, 2)
    assert there.sync().exit_code == 0
    log = there.fake.log()[2:]
    assert [(line["command"], line.get("clones")) for line in log] == [("transaction", 1), ("publish", None)] * 2
    assert max(line["entries"] for line in log if line["command"] == "publish") < first["entries"] / 2
    assert (there.host.repository / "kill/one:1/etc/motd").read_bytes() == b"kill/one 2"
    assert there.sound() == 8

    for name in ("kill/one", "kill/two"):
        push_image(there.registry.address, name, "1", [tar(runnable()), tar([file(f"{name}{one}", b"") for one in range(200)])])
    assert there.sync().exit_code == 0
    log = there.fake.log()[6:]
    assert [(line["command"], line.get("clones")) for line in log] == [("transaction", 0), ("publish", None)]
    assert there.sound() == 12


@pytest.mark.parametrize("damage", ["etc/motd", "file index"])
def test_a_predecessor_that_is_not_what_its_index_says_is_not_built_on(there: CvmfsHost, damage: str) -> None:
    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    there.sync()
    before = there.host.record("kill/one:1").current("amd64")
    assert before is not None
    broken = layout.file_index_path(before.manifest) if damage == "file index" else f"{before.sandbox}/{damage}"
    there.fake.run("transaction", "images.example.org")
    (there.fake.mount / broken).unlink()
    there.fake.run("publish", "images.example.org")
    there.push("kill/one", 2)
    assert there.sync().exit_code == 0
    after = there.host.record("kill/one:1").current("amd64")
    assert after is not None
    there.whole(after)
    assert (there.host.repository / "kill/one:1/etc/motd").read_bytes() == b"kill/one 2"


def test_somebody_elses_transaction_keeps_a_run_from_publishing_and_loses_nothing(there: CvmfsHost) -> None:
    there.push("kill/one", 1)
    there.host.images("kill/one:1")
    there.fake.run("transaction", "images.example.org")
    (there.fake.mount / "theirs").write_text("work")
    report = there.sync()
    assert report.exit_code == 1
    assert "somebody else's transaction is open" in str(report.stopped)
    assert (there.fake.mount / "theirs").read_text() == "work"
    there.fake.run("publish", "images.example.org")
    assert there.sync().exit_code == 0
    assert (there.host.repository / "theirs").read_text() == "work"
    assert there.sound() == 2


@pytest.mark.timeout(600)
def test_a_kill_at_any_moment_of_a_run_costs_only_a_rerun(there: CvmfsHost) -> None:
    """One host for all: what one killed run leaves is there for the next. Versions after the first are clones."""
    names = ("kill/one", "kill/two")
    there.host.images(*(f"{name}:1" for name in names))
    rounds = 0
    for point in itertools.count(step=STRIDE):
        for name in names:
            there.push(name, rounds)
        rounds += 1
        killed = children.killed(point, lambda: children_sync(there))
        there.sound()
        if killed:
            assert there.sync().exit_code == 0
        assert there.sound() == 2 * len(names) * rounds
        for name in names:
            assert (there.host.repository / f"{name}:1/etc/motd").read_text() == f"{name} {rounds - 1}"
        assert not there.fake.flag.exists()
        assert there.host.leftovers() == []
        if not killed:
            break
    assert rounds > 4


def children_sync(there: CvmfsHost) -> None:
    assert there.sync().exit_code == 0
