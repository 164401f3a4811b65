"""The blob store on a device that runs full: a small tmpfs, which takes root to mount."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from publisher.errors import SpaceError
from publisher.oci import Descriptor
from publisher.registry.blobs.store import BlobStore
from tests.support.images.layers import file, tar
from tests.support.machine.small_disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    Sink = Callable[[bytes], Awaitable[None]]

pytestmark = pytest.mark.system
LAYER = tar([file("big", os.urandom(4 << 20))])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 80 megabytes."""
    with small_disk(tmp_path / "disk", "size=80m", "what happens on a full disk") as place:
        yield place


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(1 << 16)):
            pass


def files_below(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [LAYER, gzip.compress(LAYER, 1)], ids=["tar", "gzip"])
async def test_a_disk_that_runs_full_while_a_layer_arrives_keeps_nothing_of_it(disk: Path, content: bytes) -> None:
    """This holds during decompression too: the index must not take a full disk for damaged data."""
    store = BlobStore(disk / "store")
    descriptor = Descriptor("", "sha256:" + hashlib.sha256(content).hexdigest(), len(content))

    async def whole(sink: Sink, offset: int) -> None:
        for start in range(offset, len(content), 1 << 16):
            await sink(content[start : start + (1 << 16)])

    async def filling(sink: Sink, offset: int) -> None:
        assert offset == 0
        await sink(content[: 1 << 16])
        fill(disk)
        await whole(sink, 1 << 16)

    with pytest.raises(SpaceError, match=r"cannot be written: No space left on device \(free space there and run again\)"):
        await store.layer(descriptor, filling, lambda _: None)
    assert files_below(disk / "store" / "partial") == []
    with pytest.raises(SpaceError, match="not enough space for a layer"):
        await store.layer(descriptor, whole, lambda _: None)
    (disk / "filler").unlink()
    assert (await store.layer(descriptor, whole, lambda _: None)).blob.read_bytes() == content


def test_a_document_without_room_is_an_error_and_leaves_nothing(disk: Path) -> None:
    store = BlobStore(disk / "store")
    body = bytes(100_000)
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    fill(disk)
    with pytest.raises(SpaceError, match="No space left"):
        store.put_document(digest, body)
    assert store.document(digest) is None
    assert files_below(disk / "store") == []
