"""Uploads to an origin (XRootD) whose disk fails at each write; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

from tests.support.machine import child_process
from tests.support.machine.failing_writes import must_advise
from tests.support.osdf import origin

if TYPE_CHECKING:
    from tests.support.machine.failing_writes import FailingDisk

CONTENT = random.Random(6).randbytes(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIF, SHARD, INDEX = f"sif/{SHA256[:2]}/{SHA256}.sif", "manifest/shards/y.json", "manifest/index.json"


def main(failing: FailingDisk) -> None:
    """Upload a SIF, a shard and an index, with an error at each write of the origin."""
    there = origin.running(failing.library)
    failing.root = there.servers.data
    source = failing.where / "built.sif"
    source.write_bytes(CONTENT)

    def upload(index: bytes = b"2") -> None:
        target = origin.directed(failing.where)
        target.recover()
        target.put(SIF, source, sha256=SHA256, size=len(CONTENT))
        target.put_bytes(SHARD, b"{}")
        target.replace(INDEX, index)

    def stored() -> dict[str, bytes]:
        top = there.servers.data / origin.prefix(failing.where).lstrip("/")
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    def restore() -> None:
        there.servers.empty()
        in_child(lambda: origin.directed(failing.where).replace(INDEX, b"1"))

    def check() -> None:
        found = {name: content for name, content in stored().items() if not name.startswith(".incoming/")}
        assert found.pop(INDEX) in ((b"1", b"2") if len(found) == 2 else (b"1",)), "the index comes last"
        assert found.items() <= {SIF: CONTENT, SHARD: b"{}"}.items(), "what has a name has its bytes"
        in_child(upload)
        assert stored() == {SIF: CONTENT, SHARD: b"{}", INDEX: b"2"}, "and the next run leaves nothing else"

    failing.fail(lambda: must_advise(upload), check, restore=restore, here=False)


def in_child(function: object) -> None:
    """Run a function in a child: a thread that uses TLS may keep the next children from it."""
    assert child_process.end(child_process.start(function)) == 0  # type: ignore[arg-type]
