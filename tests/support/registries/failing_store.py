"""The blob store on a disk that fails at each write; a program, see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.layers.index import read_summary
from publisher.oci import Descriptor
from publisher.registry.blobs.store import BlobStore
from tests.support.images.layers import directory, file, tar
from tests.support.machine.failing_writes import fail_everywhere

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LAYER = tar([directory("etc"), file("etc/a", os.urandom(700_000))])
DIGEST = "sha256:" + hashlib.sha256(LAYER).hexdigest()
DOCUMENT = b'{"schemaVersion": 2}'


async def download(sink: Callable[[bytes], Awaitable[None]], offset: int) -> None:
    for start in range(offset, len(LAYER), 1 << 17):
        await sink(LAYER[start : start + (1 << 17)])


def main(error: str, where: Path) -> None:
    """Store a layer with its index, and a document, with an error at each write."""
    disk = where / "disk"

    def restore() -> None:
        shutil.rmtree(disk, ignore_errors=True)
        disk.mkdir()

    def fetch() -> None:
        store = BlobStore(disk / "store")
        stored = asyncio.run(store.layer(Descriptor("", DIGEST, len(LAYER)), download, lambda _: None))
        assert stored.blob.read_bytes() == LAYER
        summary = read_summary(stored.index)
        assert summary is not None
        assert summary.diff_id == DIGEST
        digest = "sha256:" + hashlib.sha256(DOCUMENT).hexdigest()
        store.put_document(digest, DOCUMENT)
        assert store.document(digest) == DOCUMENT

    def work() -> None:
        said, hint = "", "no failure"
        try:
            fetch()
        except PublisherError as failure:
            said, hint = str(failure), failure.hint or ""
        assert hint, f"a message that does not say what to do: {said}"

    sys.stdout.write(f"{fail_everywhere(error, disk, restore, work, fetch)} writes\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
