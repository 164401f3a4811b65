"""The blob store on a disk that fails at each write; a program, see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

from publisher.layers.index import read_summary
from publisher.oci import Descriptor
from publisher.registry.blobs.store import BlobStore
from tests.support.images.layers import directory, file, tar
from tests.support.machine.failing_writes import FailingDisk, must_advise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LAYER = tar([directory("etc"), file("etc/a", os.urandom(700_000))])
DIGEST = "sha256:" + hashlib.sha256(LAYER).hexdigest()
DOCUMENT = b'{"schemaVersion": 2}'


async def download(sink: Callable[[bytes], Awaitable[None]], offset: int) -> None:
    for start in range(offset, len(LAYER), 1 << 17):
        await sink(LAYER[start : start + (1 << 17)])


def main(disk: FailingDisk) -> None:
    """Store a layer with its index, and a document, with an error at each write."""

    def fetch() -> None:
        store = BlobStore(disk.root / "store")
        stored = asyncio.run(store.layer(Descriptor("", DIGEST, len(LAYER)), download, lambda _: None))
        assert stored.blob.read_bytes() == LAYER
        summary = read_summary(stored.index)
        assert summary is not None
        assert summary.diff_id == DIGEST
        digest = "sha256:" + hashlib.sha256(DOCUMENT).hexdigest()
        store.put_document(digest, DOCUMENT)
        assert store.document(digest) == DOCUMENT

    disk.fail(lambda: must_advise(fetch), fetch)
