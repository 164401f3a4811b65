from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import TYPE_CHECKING

import pytest

from publisher.errors import BlobError
from publisher.layers.limits import DEFAULT_LIMITS
from publisher.registry.blobs.writer import BlobWriter, _Tee
from tests.support.images.layers import file, tar

if TYPE_CHECKING:
    from pathlib import Path


def names(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


async def test_chunks_wait_for_a_slow_disk_sixteen_at_most(tmp_path: Path) -> None:
    """The thread blocks as long as the pipe that it writes the index to is not read."""
    pipe = tmp_path / f".index.{os.getpid()}"
    os.mkfifo(pipe)
    async with BlobWriter(tmp_path / "blob", tmp_path / "index", DEFAULT_LIMITS) as writer:
        for _ in range(16):
            await writer.put(b"x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.put(b"x"), 0.05)
        reader = os.open(pipe, os.O_RDONLY)
        assert (await writer.finish()).size == 16
        os.close(reader)


class _Gate:
    """A replacement for the writer's queue that passes a number of chunks to the thread, and the rest only once it is opened."""

    def __init__(self, open_for: int) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._passes = threading.Semaphore(open_for)
        self.put = self._queue.put

    def get(self) -> bytes | None:
        self._passes.acquire()
        return self._queue.get()

    def open(self) -> None:
        self._passes.release(1000)


async def test_chunks_that_were_taken_make_room_for_as_many_and_no_more(tmp_path: Path) -> None:
    gate = _Gate(open_for=20)
    writer = BlobWriter(tmp_path / "blob", tmp_path / "index", DEFAULT_LIMITS)
    writer._chunks = gate  # type: ignore[assignment]  # stands in for it
    async with writer:
        for _ in range(20 + 16):
            await asyncio.wait_for(writer.put(b"x"), 60)
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.put(b"x"), 0.05)
        finally:
            gate.open()
        assert (await writer.finish()).size == 36


async def test_a_file_that_cannot_be_written_is_an_error_for_whoever_hands_over_or_finishes(tmp_path: Path) -> None:
    async with BlobWriter(tmp_path / "absent" / "blob", tmp_path / "index", DEFAULT_LIMITS) as writer:
        with pytest.raises(BlobError, match=r"cannot be written: .*No such file"):
            await writer.finish()


def test_a_failure_to_write_is_told_to_whoever_reads_next(tmp_path: Path) -> None:
    """Decompression mistakes it for damaged data, so the lost bytes have to be noticed later."""
    (tmp_path / "blob").touch()
    with (tmp_path / "blob").open("rb") as read_only:
        tee = _Tee(read_only, iter([b"lost", b"kept", b""]).__next__)
        for _ in range(2):
            with pytest.raises(OSError, match="write"):
                tee.read(10)


async def test_an_arrival_that_is_left_without_its_end_leaves_what_came_and_no_index(tmp_path: Path) -> None:
    content = tar([file("a")])
    async with BlobWriter(tmp_path / "blob", tmp_path / "index", DEFAULT_LIMITS) as writer:
        await writer.put(content)
    assert (tmp_path / "blob").read_bytes() == content
    assert names(tmp_path) == ["blob"]
