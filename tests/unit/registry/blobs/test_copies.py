from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from typing import TYPE_CHECKING

import pytest
import zstandard

from publisher.errors import BlobError, LayerError, UnavailableError
from publisher.layers.stream.uncompressed import copy_path
from publisher.oci import Descriptor
from publisher.registry.blobs.copies import CopyRoom, CopyWriter, memory_room
from publisher.registry.blobs.store import BlobStore, StoredLayer
from publisher.system.memory import available_memory
from tests.support.images.layers import file, tar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Sink = Callable[[bytes], Awaitable[None]]

TAR = tar([file("a", os.urandom(900_000)), file("b", b"b" * 900_000)])
GZIP = gzip.compress(TAR, mtime=0)
PORTION = 16 << 20


async def fetched(store: BlobStore, content: bytes, digest: str = "", end: int | None = None) -> StoredLayer:
    """Fetch a layer, of which the transfer breaks at ``end``."""

    async def download(sink: Sink, offset: int) -> None:
        for start in range(offset, len(content if end is None else content[:end]), 100_000):
            await sink(content[start : start + 100_000])
            await asyncio.sleep(0)
        if end is not None:
            raise UnavailableError("the registry is gone")

    digest = digest or "sha256:" + hashlib.sha256(content).hexdigest()
    descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar", digest, len(content))
    return await store.layer(descriptor, download, lambda _: None)


def with_copies(root: Path, room: int = 1 << 40) -> BlobStore:
    return BlobStore(root / "blobs", copies=CopyRoom(root / "copies", lambda: room))


def left(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in (root / "copies").iterdir()]


@pytest.mark.parametrize("content", [TAR, GZIP, zstandard.ZstdCompressor().compress(TAR)], ids=["tar", "gzip", "zstd"])
async def test_a_fetched_layer_has_an_uncompressed_copy(content: bytes, tmp_path: Path) -> None:
    stored = await fetched(with_copies(tmp_path), content)
    assert left(tmp_path) == [TAR]
    assert copy_path(tmp_path / "copies", stored.blob).exists()


async def test_a_transfer_that_was_resumed_has_the_whole_copy(tmp_path: Path) -> None:
    store = with_copies(tmp_path)
    with pytest.raises(UnavailableError):
        await fetched(store, GZIP, end=500_000)
    assert left(tmp_path) == []
    await fetched(store, GZIP)
    assert left(tmp_path) == [TAR]


async def test_without_room_there_is_no_copy(tmp_path: Path) -> None:
    stored = await fetched(with_copies(tmp_path, 1000), GZIP)
    assert stored.blob.read_bytes() == GZIP
    assert left(tmp_path) == []


async def test_on_a_full_disk_there_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    stored = await fetched(with_copies(tmp_path), GZIP)
    assert stored.blob.read_bytes() == GZIP
    assert left(tmp_path) == []


async def test_neither_a_damaged_nor_an_invalid_layer_has_a_copy(tmp_path: Path) -> None:
    store = with_copies(tmp_path)
    with pytest.raises(BlobError):
        await fetched(store, GZIP, digest="sha256:" + "0" * 64)
    with pytest.raises(LayerError):
        await fetched(store, gzip.compress(TAR[:-5000]))
    assert left(tmp_path) == []


async def test_copies_that_no_build_has_read_are_deleted_when_the_store_is_trimmed(tmp_path: Path) -> None:
    store = with_copies(tmp_path)
    stored = await fetched(store, GZIP)
    (tmp_path / "copies" / ".of-a-killed-process").touch()
    store.trim(1 << 30, keep=())
    assert not (tmp_path / "copies").exists()
    assert stored.blob.read_bytes() == GZIP
    store.trim(1 << 30, keep=())


@pytest.mark.parametrize("plant", [lambda path: path.mkdir(mode=0o777), lambda path: path.symlink_to("elsewhere")])
async def test_a_directory_that_others_can_write_to_gets_no_copies(plant: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    plant(tmp_path / "copies")
    if not (tmp_path / "copies").is_symlink():
        (tmp_path / "copies").chmod(0o777)
    store = with_copies(tmp_path)
    await fetched(store, GZIP)
    assert left(tmp_path) == []
    (tmp_path / "copies" / "foreign").touch()
    store.trim(1 << 30, keep=())
    assert (tmp_path / "copies" / "foreign").exists()


def test_a_copy_that_another_process_begins_meanwhile_does_not_fail_the_trim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = CopyRoom(tmp_path / "copies", lambda: 1 << 40)
    CopyWriter(tmp_path / "b/first", room)
    real = os.rmdir

    def late(path: Path) -> None:
        CopyWriter(tmp_path / "b/second", room)
        real(path)

    monkeypatch.setattr(os, "rmdir", late)
    room.clear()
    assert len(left(tmp_path)) == 1


def test_all_copies_share_the_room_until_they_are_deleted(tmp_path: Path) -> None:
    room = CopyRoom(tmp_path, lambda: PORTION)
    first, second = tmp_path / "b/first", tmp_path / "b/second"
    writer = CopyWriter(first, room)
    writer.write(b"1")
    writer.finish()
    refused = CopyWriter(second, room)
    refused.write(b"2")
    refused.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["bfirst.tar"]
    (tmp_path / "bfirst.tar").unlink()
    accepted = CopyWriter(second, room)
    accepted.write(b"3")
    accepted.write(b"4")
    accepted.finish()
    assert (tmp_path / "bsecond.tar").read_bytes() == b"34"


def test_the_room_in_memory_is_less_than_what_is_available_and_each_state_directory_has_its_own(tmp_path: Path) -> None:
    room = memory_room(tmp_path / "state", tmp_path)
    assert room.directory.parent == tmp_path
    assert room.take(tmp_path, 1 << 20)
    assert not room.take(tmp_path, available_memory())
    assert room.directory != memory_room(tmp_path / "other", tmp_path).directory
