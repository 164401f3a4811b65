"""An execution point's cache on a disk that fails at each write; a program, see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from publisher.contract.errors import ExpectedError
from publisher.contract.records import Sif
from publisher.resolver.cache.cache import Cache
from publisher.resolver.transfer.sources import DirectorySource
from tests.support.machine.failing_writes import fail_everywhere

CONTENT = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + bytes(range(256)) * 2000


def main(error: str, where: Path) -> None:
    """Fetch a SIF into a cache that has another one, with an error at each write."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    sif = Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, len(CONTENT))
    stored = where / "origin" / sif.path
    stored.parent.mkdir(parents=True)
    stored.write_bytes(CONTENT)
    sources = [DirectorySource(str(where / "origin"))]
    disk = where / "disk"

    def restore() -> None:
        shutil.rmtree(disk, ignore_errors=True)
        disk.mkdir()

    def fetch() -> None:
        path, _ = Cache(str(disk / "cache")).ensure(sif, sources, timeout=60)
        assert Path(path).read_bytes() == CONTENT, "what is handed out is right"

    def work() -> None:
        said, hint = "", "no failure"
        try:
            fetch()
        except ExpectedError as failure:
            said, hint = str(failure), failure.hint or ""
        assert hint, f"a message that does not say what to do: {said}"

    def check() -> None:
        for path in disk.rglob("*.seen"):
            assert path.with_suffix(".sif").read_bytes() == CONTENT, "only right bytes are noted as verified"
        for failures in disk.rglob("failures"):
            shutil.rmtree(failures)  # a later job: the pause after a failure is over
        fetch()

    sys.stdout.write(f"{fail_everywhere(error, disk, restore, work, check)} writes\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
