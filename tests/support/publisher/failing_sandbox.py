"""A sandbox that is unpacked to a disk that fails at writes of unsquashfs; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from publisher.build.sandbox.unpack import unpack
from publisher.errors import RepositoryError
from publisher.system.durable import delete, failures
from tests.support.images.built_layers import request
from tests.support.images.layers import directory, file, tar
from tests.support.machine.failing_writes import must_advise
from tests.support.publisher.local_builder import builder

if TYPE_CHECKING:
    from tests.support.machine.failing_writes import FailingDisk

CONTENT = os.urandom(300_000)
LAYER = tar([directory("etc"), file("etc/a", CONTENT)])


def main(failing: FailingDisk) -> None:
    """Unpack a sandbox into a staging directory, as a transaction does."""
    (failing.where / "scratch").mkdir()
    built = builder(failing.where).build(request([LAYER], failing.where / "layers"), lambda *_: None)
    target, done = failing.root / "sandbox", failing.where / "done"

    def work() -> None:
        with failures(RepositoryError, "cannot unpack"):
            unpack(built.sif, target, deadline=60)
        done.touch()

    def check() -> None:
        if done.exists():
            done.unlink()
            assert (target / "etc/a").read_bytes() == CONTENT, "what is not reported as a failure is whole"
        delete(target)
        unpack(built.sif, target, deadline=60)

    failing.wrap("unsquashfs")
    failing.fail(lambda: must_advise(work), check)
