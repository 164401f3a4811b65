"""An execution point's cache on a disk that fails at each write; a program, see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from publisher.contract.records import Sif
from publisher.resolver.cache.cache import Cache
from publisher.resolver.transfer.sources import DirectorySource
from tests.support.machine.failing_writes import FailingDisk, must_advise

CONTENT = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + bytes(range(256)) * 2000


def main(disk: FailingDisk) -> None:
    """Fetch a SIF into a cache that has another one, with an error at each write."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    sif = Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, len(CONTENT))
    stored = disk.where / "origin" / sif.path
    stored.parent.mkdir(parents=True)
    stored.write_bytes(CONTENT)
    sources = [DirectorySource(str(disk.where / "origin"))]

    def fetch() -> None:
        path, _ = Cache(str(disk.root / "cache")).ensure(sif, sources, timeout=60)
        assert Path(path).read_bytes() == CONTENT, "what is handed out is right"

    def check() -> None:
        for path in disk.root.rglob("*.seen"):
            assert path.with_suffix(".sif").read_bytes() == CONTENT, "only right bytes are noted as verified"
        for failures in disk.root.rglob("failures"):
            shutil.rmtree(failures)  # a later job: the pause after a failure is over
        fetch()

    disk.fail(lambda: must_advise(fetch), check)
