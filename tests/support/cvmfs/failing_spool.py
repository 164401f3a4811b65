"""A CVMFS transaction on disks that fail at each write of the publisher; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import json
import sys

import pytest

from publisher.errors import RepositoryError
from publisher.system.durable import failures
from tests.support.cvmfs.stand_in import FakeCvmfs
from tests.support.machine.failing_writes import FailingDisk, must_advise

INDEX = ".publisher/index.json"


def main(disk: FailingDisk) -> None:
    """Publish revision after revision in one repository: what a failure leaves is there for the next."""
    try:
        cvmfs = FakeCvmfs(disk.root)
    except pytest.skip.Exception as reason:
        sys.stdout.write(f"NOT TESTED: {reason}\n")
        return
    try:
        publish(cvmfs, 1)
        disk.fail(lambda: must_advise(lambda: publish(cvmfs, seen(cvmfs) + 1)), lambda: check(cvmfs), restore=lambda: None)
    finally:
        cvmfs.close()


def image(revision: int) -> str:
    return f".images/0a/{revision}"


def publish(cvmfs: FakeCvmfs, revision: int) -> None:
    """Publish an image, the link to it and the index that names it; remove the one before the last."""
    with cvmfs.repository().transaction() as transaction:
        with failures(RepositoryError, "cannot unpack the image"):
            tree = transaction.tree(image(revision))
            (tree / "bin").mkdir(parents=True)
            (tree / "bin/sh").write_text(str(revision))
        transaction.link("htc/rocky:9", f"../{image(revision)}")
        transaction.write(INDEX, json.dumps(revision).encode())
        transaction.remove(image(revision - 2))


def check(cvmfs: FakeCvmfs) -> None:
    """Assert that readers have a whole revision, and that a rerun publishes the next one and leaves nothing behind."""
    before = seen(cvmfs)
    cvmfs.repository().recover()
    assert seen(cvmfs) == before
    publish(cvmfs, before + 1)
    assert seen(cvmfs) == before + 1
    assert not cvmfs.flag.exists()
    assert cvmfs.claimed() == []
    assert sorted(path.name for path in (cvmfs.spool / "rdonly").iterdir()) == [".images", ".publisher", "htc"]


def seen(cvmfs: FakeCvmfs) -> int:
    """Return the revision that a reader finds; it is whole."""
    reader = cvmfs.repository()
    revision = int(reader.read(INDEX) or b"0")
    assert reader.read("htc/rocky:9/bin/sh") == str(revision).encode()
    assert reader.links() == {"htc/rocky:9": f"../{image(revision)}"}
    assert reader.exists(image(revision - 1)) == (revision > 1)
    assert not reader.exists(image(revision + 1))
    assert not reader.exists(image(revision - 2))
    return revision
