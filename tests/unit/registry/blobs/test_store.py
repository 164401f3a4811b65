from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
from typing import TYPE_CHECKING

import pytest
import zstandard

from publisher.contract import files
from publisher.errors import BlobError, LayerError, SpaceError, UnavailableError
from publisher.layers.index import write_index
from publisher.layers.limits import LayerLimits
from publisher.oci import Descriptor
from publisher.registry.blobs.store import BlobStore
from tests.support.images.layers import directory, file, tar
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Sink = Callable[[bytes], Awaitable[None]]

TAR = tar([directory("etc"), file("etc/a", b"a" * 5000), file("etc/b", os.urandom(90_000))])
GZIP = gzip.compress(TAR, mtime=0)
CHUNK = 1000


def described(content: bytes) -> Descriptor:
    return Descriptor("application/vnd.oci.image.layer.v1.tar", "sha256:" + hashlib.sha256(content).hexdigest(), len(content))


class FakeDownload:
    """A download that sends ``contents`` one after the other (the last one repeats) in chunks, and records the offsets.

    The first transfer fails after ``breaks`` bytes.
    """

    def __init__(self, *contents: bytes, breaks: int | None = None) -> None:
        self.contents = list(contents)
        self.breaks = breaks
        self.offsets: list[int] = []

    async def __call__(self, sink: Sink, offset: int) -> None:
        self.offsets.append(offset)
        content = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        breaks, self.breaks = self.breaks, None
        for start in range(offset, len(content), CHUNK):
            if breaks is not None and start - offset >= breaks:
                raise UnavailableError("the registry is gone")
            await sink(content[start : start + CHUNK])
            await asyncio.sleep(0)


def ignore(_: int) -> None:
    pass


def names(store: Path) -> list[str]:
    """Return the names of all files except the locks."""
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and path.parent.name != "locks")


def placed(store: Path, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    return store / "sha256" / digest[:2] / digest[2:]


def index_of(content: bytes, where: Path) -> bytes:
    path = where / "expected.index"
    write_index(io.BytesIO(content).read, path)
    return path.read_bytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize("suffix", ["", ".index"])
async def test_a_layer_or_index_that_others_may_write_to_is_made_again(suffix: str, root: Path, tmp_path: Path) -> None:
    """Its digest was checked when it was fetched, and others may have changed it since: into a valid index of other files."""
    store, download = BlobStore(root), FakeDownload(GZIP)
    stored = await store.layer(described(GZIP), download, ignore)
    planted = stored.blob.with_name(stored.blob.name + suffix)
    planted.write_bytes(index_of(tar([file("evil")]), tmp_path) if suffix else bytes(len(GZIP)))
    planted.chmod(0o666)
    stored = await store.layer(described(GZIP), download, ignore)
    assert stored.blob.read_bytes() == GZIP
    assert stored.index.read_bytes() == index_of(GZIP, tmp_path)
    assert planted.stat().st_mode & 0o777 == 0o644


async def test_the_partial_file_of_another_account_is_not_continued(root: Path) -> None:
    store, download = BlobStore(root), FakeDownload(GZIP)
    partial = root / "partial" / hashlib.sha256(GZIP).hexdigest()
    partial.write_bytes(GZIP[:100])
    partial.chmod(0o666)
    with partial.open("r+b") as held:
        stored = await store.layer(described(GZIP), download, ignore)
        held.write(b"evil")
    assert stored.blob.read_bytes() == GZIP
    assert download.offsets == [0]


# --- what arrives


@pytest.mark.parametrize("content", [TAR, GZIP, zstandard.ZstdCompressor().compress(TAR)], ids=["tar", "gzip", "zstd"])
async def test_a_layer_is_stored_under_its_digest_with_its_index_and_fetched_once(
    content: bytes, root: Path, tmp_path: Path
) -> None:
    store, download, seen = BlobStore(root), FakeDownload(content), list[int]()
    await store.layer(described(content), download, seen.append)
    stored = await store.layer(described(content), download, seen.append)
    assert stored.blob == placed(root, content)
    assert stored.blob.read_bytes() == content
    assert stored.index.read_bytes() == index_of(content, tmp_path)
    assert download.offsets == [0]
    assert names(root) == sorted(str(path.relative_to(root)) for path in (stored.blob, stored.index))
    assert seen[0] == 0
    assert seen[-1] == len(content)


async def test_wrong_bytes_are_fetched_a_second_time_and_leave_nothing(root: Path) -> None:
    wrong = GZIP[:-1] + b"!"
    download = FakeDownload(wrong)
    with pytest.raises(
        BlobError, match=r"that were received for layer sha256:.* do not match its digest or size \(the image is damaged"
    ):
        await BlobStore(root).layer(described(GZIP), download, ignore)
    assert download.offsets == [0, 0]
    assert names(root) == []


async def test_bytes_that_are_right_the_second_time_are_taken(root: Path) -> None:
    seen: list[int] = []
    stored = await BlobStore(root).layer(described(GZIP), FakeDownload(b"?" * len(GZIP), GZIP), seen.append)
    assert stored.blob.read_bytes() == GZIP
    assert seen.count(0) == 2  # it fell back to nothing


@pytest.mark.parametrize("content", [GZIP + b"more", GZIP[:-1], b""], ids=["more", "less", "nothing"])
async def test_more_or_fewer_bytes_than_described_leave_nothing(content: bytes, root: Path) -> None:
    with pytest.raises(BlobError, match=r"is larger than its|do not match its digest or size"):
        await BlobStore(root).layer(described(GZIP), FakeDownload(content), ignore)
    assert names(root) == []


async def test_an_endless_source_is_cut_at_the_size(root: Path) -> None:
    given = 0

    async def endless(sink: Sink, _: int) -> None:
        nonlocal given
        while True:
            given += CHUNK
            await sink(bytes(CHUNK))

    with pytest.raises(BlobError, match=f"is larger than its {len(GZIP)} bytes"):
        await BlobStore(root).layer(described(GZIP), endless, ignore)
    assert given <= 2 * (len(GZIP) + CHUNK)


@pytest.mark.parametrize("content", [b"no tar at all" * 999, gzip.compress(b"no tar at all" * 9999, mtime=0), GZIP[:-9]])
async def test_a_good_blob_that_is_no_layer_is_kept_so_that_it_is_not_fetched_to_say_so_again(content: bytes, root: Path) -> None:
    store, download = BlobStore(root), FakeDownload(content)
    for _ in range(2):
        with pytest.raises(LayerError):
            await store.layer(described(content), download, ignore)
    assert download.offsets == [0]
    assert names(root) == [str(placed(root, content).relative_to(root))]


async def test_a_bomb_ends_at_the_limit(root: Path) -> None:
    with pytest.raises(LayerError, match=r"unpacks to more than 50.0 kB"):
        await BlobStore(root, limits=LayerLimits(unpacked_size=50_000)).layer(described(GZIP), FakeDownload(GZIP), ignore)


async def test_a_layer_larger_than_allowed_is_not_fetched(root: Path) -> None:
    download = FakeDownload(GZIP)
    with pytest.raises(BlobError, match="at most 100 B are allowed"):
        await BlobStore(root, max_layer_size=100).layer(described(GZIP), download, ignore)
    assert download.offsets == []


async def test_a_layer_for_which_there_is_no_room_is_not_fetched(root: Path) -> None:
    download, digest = FakeDownload(GZIP), described(GZIP).digest
    with pytest.raises(SpaceError, match=r"not enough space for a layer: .* free, and needs .* for it and a reserve of 67\.1 MB"):
        await BlobStore(root, max_layer_size=1 << 62).layer(Descriptor("", digest, 1 << 60), download, ignore)
    assert download.offsets == []


# --- what breaks


async def test_a_broken_transfer_is_continued_and_indexed_as_if_it_had_not_broken(root: Path, tmp_path: Path) -> None:
    store, download = BlobStore(root), FakeDownload(GZIP, breaks=50_000)
    with pytest.raises(UnavailableError, match="the registry is gone"):
        await store.layer(described(GZIP), download, ignore)
    assert [name.split("/")[0] for name in names(root)] == ["partial"]
    seen: list[int] = []
    stored = await BlobStore(root).layer(described(GZIP), download, seen.append)
    assert download.offsets == [0, 50_000]
    assert seen[0] == 50_000
    assert stored.blob.read_bytes() == GZIP
    assert stored.index.read_bytes() == index_of(GZIP, tmp_path)
    assert len(names(root)) == 2


async def test_what_a_broken_transfer_left_may_be_wrong_or_too_long(root: Path) -> None:
    for left in (b"?" * 500, b"?" * (len(GZIP) + 1)):
        store, download = BlobStore(root), FakeDownload(GZIP)
        (root / "partial" / described(GZIP).digest[7:]).write_bytes(left)
        stored = await store.layer(described(GZIP), download, ignore)
        assert stored.blob.read_bytes() == GZIP
        assert download.offsets[-1] == 0
        stored.blob.unlink()


async def test_a_cancelled_transfer_keeps_what_it_has_and_lets_go_of_its_lock(root: Path) -> None:
    arrived = asyncio.Event()

    async def stops(sink: Sink, _: int) -> None:
        await sink(GZIP[:4000])
        arrived.set()
        await asyncio.Event().wait()

    store = BlobStore(root)
    task = asyncio.create_task(store.layer(described(GZIP), stops, ignore))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    download = FakeDownload(GZIP)
    await store.layer(described(GZIP), download, ignore)
    assert download.offsets == [4000]


def test_whenever_a_run_is_killed_the_next_one_completes_the_layer(root: Path, tmp_path: Path) -> None:
    def fetch() -> None:
        asyncio.run(BlobStore(root).layer(described(GZIP), FakeDownload(GZIP), ignore))

    at = 0
    while child_process.killed(at, fetch):
        blob = placed(root, GZIP)
        assert not blob.exists() or blob.read_bytes() == GZIP
        fetch()
        assert blob.read_bytes() == GZIP
        assert blob.with_name(f"{blob.name}.index").read_bytes() == index_of(GZIP, tmp_path)
        assert len(names(root)) == 2
        BlobStore(root).trim(0, keep=())
        assert names(root) == []
        at += 1
    assert at > 5


# --- indexes


@pytest.mark.parametrize("damage", [b"", b"OSPIDX00" + bytes(100), None])
async def test_an_index_that_is_missing_or_of_another_version_is_made_from_the_blob(
    damage: bytes | None, root: Path, tmp_path: Path
) -> None:
    download = FakeDownload(GZIP)
    stored = await BlobStore(root).layer(described(GZIP), download, ignore)
    stored.index.unlink()
    if damage is not None:
        stored.index.write_bytes(damage)
    await BlobStore(root).layer(described(GZIP), download, ignore)
    assert stored.index.read_bytes() == index_of(GZIP, tmp_path)
    assert download.offsets == [0]


async def test_a_blob_that_was_cut_on_the_disk_is_fetched_again(root: Path) -> None:
    download = FakeDownload(GZIP)
    stored = await BlobStore(root).layer(described(GZIP), download, ignore)
    os.truncate(stored.blob, 10)
    await BlobStore(root).layer(described(GZIP), download, ignore)
    assert stored.blob.read_bytes() == GZIP


# --- several at a time


async def test_tasks_that_want_the_same_layer_fetch_it_once(root: Path) -> None:
    store, download = BlobStore(root), FakeDownload(GZIP)
    await asyncio.gather(*(store.layer(described(GZIP), download, ignore) for _ in range(5)))
    assert download.offsets == [0]


async def test_a_layer_that_another_process_fetches_is_waited_for(root: Path) -> None:
    download, pauses = FakeDownload(GZIP), 0
    other = files.locked(str(root / "locks" / described(GZIP).digest[7:9]), 0)

    async def sleep(_: float) -> None:
        nonlocal pauses
        pauses += 1
        assert download.offsets == []
        if pauses == 3:
            other.__exit__(None, None, None)

    store = BlobStore(root, sleep=sleep)
    other.__enter__()
    await store.layer(described(GZIP), download, ignore)
    assert (pauses, download.offsets) == (3, [0])


async def test_another_process_is_not_waited_for_without_end(root: Path) -> None:
    async def sleep(_: float) -> None:
        pass

    store = BlobStore(root, lock_timeout=60, sleep=sleep)
    with (
        files.locked(str(root / "locks" / described(GZIP).digest[7:9]), 0),
        pytest.raises(BlobError, match=r"another process has held the lock for sha256:.* for 60 s"),
    ):
        await store.layer(described(GZIP), FakeDownload(GZIP), ignore)


async def test_no_more_layers_are_fetched_at_a_time_than_allowed_and_all_of_them_come(root: Path) -> None:
    contents = [tar([file(f"f{number}")]) for number in range(6)]
    under_way, most = 0, 0

    async def one(content: bytes) -> None:
        async def download(sink: Sink, _: int) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            for _ in range(50):
                await asyncio.sleep(0)
            await sink(content)
            under_way -= 1

        await store.layer(described(content), download, ignore)

    store = BlobStore(root, concurrency=2)
    await asyncio.gather(*map(one, contents))
    assert most == 2
    assert len(names(root)) == 12


# --- documents


def test_a_document_is_kept_under_its_digest(root: Path) -> None:
    store, digest = BlobStore(root), described(b"{}").digest
    assert store.document(digest) is None
    store.put_document(digest, b"{}")
    assert BlobStore(root).document(digest) == b"{}"
    with pytest.raises(BlobError, match=r"do not match the digest sha256:"):
        store.put_document(digest, b"[]")
    assert store.document(digest) == b"{}"


def test_a_document_that_was_damaged_on_the_disk_is_not_there(root: Path) -> None:
    store, digest = BlobStore(root), described(b"{}").digest
    store.put_document(digest, b"{}")
    placed(root, b"{}").write_bytes(b"[]")
    assert store.document(digest) is None
    assert names(root) == []


# --- the bounds of the store


async def filled(root: Path, count: int) -> list[bytes]:
    """Store layers, the least recently used first; each takes more than 10,000 bytes with its index."""
    contents = [tar([file(f"f{number}", bytes(10_000))]) for number in range(count)]
    for number, content in enumerate(contents):
        stored = await BlobStore(root).layer(described(content), FakeDownload(content), ignore)
        for path in (stored.blob, stored.index):
            os.utime(path, (number, number))
    return contents


def size(root: Path) -> int:
    return sum((root / name).stat().st_size for name in names(root))


async def test_what_was_used_longest_ago_goes_first_and_no_more_than_has_to(root: Path) -> None:
    contents = await filled(root, 4)
    each = size(root) // 4
    freed = BlobStore(root).trim(2 * each + 1, keep=())
    assert freed == 2 * each
    assert [placed(root, content).exists() for content in contents] == [False, False, True, True]
    assert size(root) == 2 * each
    assert BlobStore(root).trim(2 * each, keep=()) == 0


async def test_use_makes_a_layer_young_again(root: Path) -> None:
    contents = await filled(root, 3)
    await BlobStore(root).layer(described(contents[0]), FakeDownload(b""), ignore)
    BlobStore(root).trim(size(root) - 1, keep=())
    assert [placed(root, content).exists() for content in contents] == [True, False, True]


def test_reading_a_document_makes_it_young_again(root: Path) -> None:
    store, bodies = BlobStore(root), [b"{}", b"[]"]
    for body in bodies:
        store.put_document(described(body).digest, body)
        os.utime(placed(root, body), (1, 1))
    store.document(described(b"{}").digest)
    store.trim(2, keep=())
    assert [placed(root, body).exists() for body in bodies] == [True, False]


async def test_what_is_to_be_kept_stays_whatever_the_limit(root: Path) -> None:
    contents = await filled(root, 3)
    BlobStore(root).trim(0, keep={described(contents[0]).digest})
    assert [placed(root, content).exists() for content in contents] == [True, False, False]


async def test_what_somebody_is_busy_with_stays(root: Path) -> None:
    contents = await filled(root, 2)
    with files.locked(str(root / "locks" / described(contents[0]).digest[7:9]), 0):
        BlobStore(root).trim(0, keep=())
    assert [placed(root, content).exists() for content in contents] == [True, False]


async def test_broken_transfers_and_what_kills_left_are_trimmed_too(root: Path) -> None:
    with pytest.raises(UnavailableError):
        await BlobStore(root).layer(described(GZIP), FakeDownload(GZIP, breaks=5000), ignore)
    (root / "partial" / f".{described(GZIP).digest[7:]}.index.77").write_bytes(b"left")
    assert BlobStore(root).trim(0, keep=()) == 5004
    assert names(root) == []


def test_a_store_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BlobError, match="cannot be created"):
        BlobStore(tmp_path / "file" / "store")
