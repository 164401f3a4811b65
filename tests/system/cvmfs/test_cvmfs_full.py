"""A CVMFS repository whose storage or spool is full: said in the right words, and the images that fit are published."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError, SpaceError
from publisher.publish.report import ImageResult
from publisher.system.tar_stream import header
from tests.support.cvmfs.contract_changes import announce
from tests.support.cvmfs.stand_in import FakeCvmfs, fill
from tests.support.images.layers import file, tar
from tests.support.images.runnable import runnable
from tests.support.machine.small_disk import loop_disk
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.targets.repositories.base import Repository, Transaction
    from tests.support.cvmfs.host import CvmfsHost

pytestmark = pytest.mark.system

INDEX = ".publisher/index.json"
MIB = 1 << 20


@pytest.fixture
def storage(tmp_path: Path, cvmfs: FakeCvmfs) -> Iterator[Path]:
    """Give the stand-in's storage a disk of 16 MiB."""
    if not isinstance(cvmfs, FakeCvmfs):
        pytest.skip("only the stand-in's storage can be given a disk")
    with loop_disk(cvmfs.stratum / "data", tmp_path / "storage.img", 16 * MIB, "a full storage") as data:
        (data / "txn").mkdir()
        with cvmfs.configuration.open("a") as conf:
            conf.write(f"CVMFS_UPSTREAM_STORAGE=local,{data}/txn,{cvmfs.stratum}\n")
        yield data


def big(transaction: Transaction, size: int) -> None:
    tree = transaction.tree(".images/00/big")
    fill(tree)
    (tree / "data").write_bytes(os.urandom(size))


def ingest_big(repository: Repository, size: int) -> None:
    with repository.ingest(".images/00/big") as stream:
        stream.add(header(b"big", b"5", mode=0o755))
        stream.add(header(b"big/data", b"0", mode=0o644, size=size), [os.urandom(size)], size)


def test_a_full_storage_is_said_and_keeps_no_unfinished_chunks(storage: Path, cvmfs: FakeCvmfs) -> None:
    (storage / "txn/another's").write_bytes(b"from before")
    os.utime(storage / "txn/another's", (1, 1))
    with pytest.raises(SpaceError, match="no space left") as error:
        announce(cvmfs.repository(), b"1", lambda change: big(change, 20 * MIB))
    assert "cvmfs_server gc -f" in (error.value.hint or "")
    assert not cvmfs.flag.exists()
    assert [path.name for path in (storage / "txn").iterdir()] == ["another's"]
    announce(cvmfs.repository(), b"2", lambda change: big(change, 4 * MIB))
    assert cvmfs.repository().read(INDEX) == b"2"


def test_a_full_storage_keeps_no_chunks_of_a_tree_that_was_ingested(storage: Path, cvmfs: FakeCvmfs) -> None:
    announce(cvmfs.repository(), b"1", lambda change: fill(change.tree(".images/00/first")))
    with pytest.raises(SpaceError, match="no space left"):
        ingest_big(cvmfs.repository(), 20 * MIB)
    assert not list((storage / "txn").iterdir())
    assert cvmfs.claimed() == []
    announce(cvmfs.repository(), b"2", lambda change: big(change, 4 * MIB))
    assert cvmfs.repository().read(INDEX) == b"2"


def test_a_killed_publish_leaves_no_unfinished_chunks_to_the_next_run(storage: Path, cvmfs: FakeCvmfs) -> None:
    cvmfs.fault("publish", "kill")
    cvmfs.fault("abort", "kill")
    with pytest.raises(RepositoryError):
        announce(cvmfs.repository(), b"1", lambda _: (storage / "txn/upload.1").write_bytes(b"half"))
    (said,) = cvmfs.repository().recover()
    assert said.startswith("discarded an interrupted")
    assert list((storage / "txn").iterdir()) == []


def test_images_that_fit_are_published_when_another_does_not(storage: Path, there: CvmfsHost) -> None:
    sizes = {"kill/one": MIB, "kill/huge": 20 * MIB, "kill/two": MIB}
    for name, size in sizes.items():
        push_image(there.registry.address, name, "1", [tar(runnable()), tar([file("data", os.urandom(size))])])
    there.host.images(*(f"{name}:1" for name in sizes))
    report = there.sync()
    results = {name: outcome.result for name, outcome in report.outcomes.items()}
    assert results == {
        "kill/one:1": ImageResult.PUBLISHED,
        "kill/huge:1": ImageResult.FAILED,
        "kill/two:1": ImageResult.PUBLISHED,
    }
    assert "no space left" in str(report.outcomes["kill/huge:1"])
    assert report.stopped is None
    assert list((storage / "txn").iterdir()) == []
    assert there.sound() > 0


@pytest.mark.parametrize("left", [0, 2048])
def test_a_wholly_full_spool_is_said_and_is_no_matter_of_mounts(tmp_path: Path, left: int) -> None:
    """Either our claim does not fit any more, or it is the tool's turn, which says only that it was aborted."""
    with contextlib.ExitStack() as stack:

        def mount_spool(root: Path) -> None:
            stack.enter_context(loop_disk(root / "spool", tmp_path / "spool.img", 4 * MIB, "a full spool"))

        fake = FakeCvmfs(tmp_path, prepare=mount_spool)
        stack.callback(fake.close)
        announce(fake.repository())
        filler = fake.spool / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 10)):
                pass
        os.truncate(filler, filler.stat().st_size - left)
        with pytest.raises(SpaceError, match=r"(?i)no space left") as error:
            announce(fake.repository(), b"2")
        assert "free space in /var/spool/cvmfs" in (error.value.hint or "")
        assert ("Aborted" in error.value.reason) == (left > 0)
        filler.unlink()
        fake.repository().recover()
        announce(fake.repository(), b"3")
        assert fake.repository().read(INDEX) == b"3"


def test_what_fills_the_spool_is_deleted_before_the_abort_which_needs_some_space_too(fake: FakeCvmfs) -> None:
    fake.fault("abort", "fail 1 cannot create wastebin directory")

    def run_out(transaction: Transaction) -> None:
        big(transaction, MIB)
        raise SpaceError("no space left")

    with pytest.raises(SpaceError):
        announce(fake.repository(), b"1", run_out)
    assert fake.flag.exists()
    assert list(fake.mount.iterdir()) == []
