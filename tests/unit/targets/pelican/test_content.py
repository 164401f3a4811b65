"""An upload's content when its consumer is cancelled in the middle of a chunk, or its disk fails."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import threading
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from publisher.targets.pelican.content import UploadContent, UploadStream, from_bytes, from_file
from publisher.targets.pelican.transport import CHUNK_SIZE

if TYPE_CHECKING:
    from pathlib import Path


class Slow(io.BytesIO):
    """A file whose reads wait for an event."""

    def __init__(self, content: bytes, begun: threading.Event, go_on: threading.Event) -> None:
        super().__init__(content)
        self._begun, self._go_on = begun, go_on

    def read(self, size: int | None = -1, /) -> bytes:
        self._begun.set()
        assert self._go_on.wait(60)
        return super().read(size)


class Damaged(io.BytesIO):
    """A file that cannot be read."""

    def read(self, _: int | None = -1, /) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_disk_that_fails_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    async with UploadStream(UploadContent("built.sif", "0" * 64, 10, None, Damaged)) as sending:
        with pytest.raises(OriginError, match=r"cannot read built.sif: Input/output error") as failed:
            await anext(sending.chunks())
    assert "look at the disks" in str(failed.value.hint)
    with pytest.raises(OriginError, match=r"cannot store .*absent: No such file") as failed:
        from_file(tmp_path / "absent", "0" * 64, 10)
    assert "look at the disks" in str(failed.value.hint)


async def test_a_second_try_sends_all_of_it_though_the_first_was_left_while_it_read() -> None:
    whole = bytes(range(256)) * (3 * CHUNK_SIZE // 256)
    begun, go_on = threading.Event(), threading.Event()
    plain = from_bytes("it", whole)
    content = UploadContent("it", plain.sha256, len(whole), None, lambda: Slow(whole, begun, go_on))

    async def first(sending: UploadStream) -> None:
        async for _ in sending.chunks():
            pass

    async with UploadStream(content) as sending:
        left = asyncio.ensure_future(first(sending))
        await asyncio.to_thread(begun.wait, 60)
        left.cancel()
        await asyncio.wait([left])
        asyncio.get_running_loop().call_later(0.05, go_on.set)  # by when the second waits for the read that is under way
        assert b"".join([piece async for piece in sending.chunks()]) == whole
        sending.verify()
