from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import pytest

from publisher.chunks.comparison import TableCheck
from publisher.contract.chunk_table import ChunkTable
from publisher.net.retry import TransientError
from publisher.targets.pelican.readback import ObjectReadback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from publisher.targets.pelican.transport import OriginResponse

CONTENT = b"0123456789"


class Response:
    """A response that breaks off after its parts, unless they are all."""

    def __init__(self, status: int, start: int, *parts: bytes, breaks: bool = False) -> None:
        self.status = status
        self.headers = {"Content-Range": f"bytes {start}-9/10"} if status == 206 else {}
        self.host = "origin"
        self._parts = parts
        self._breaks = breaks

    async def chunks(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if self._breaks:
            raise TransientError("the connection broke off")


async def read(*responses: Response) -> tuple[str | None, bool]:
    """Read an object in these responses; return its sha256, and whether who reads along has seen just its bytes."""
    digests = b"".join(hashlib.sha256(part).digest() for part in (CONTENT[:7], CONTENT[7:]))
    check = TableCheck(ChunkTable("ab" * 32, 10, minimum=1, average=5, maximum=9, lengths=[7, 3], digests=digests))
    readback = ObjectReadback(len(CONTENT), check)
    for response in responses[:-1]:
        with pytest.raises(TransientError):
            await readback.read(cast("OriginResponse", response))
    await readback.read(cast("OriginResponse", responses[-1]))
    return readback.hexdigest(), check.fits()


async def test_who_reads_along_sees_each_byte_once_though_the_connection_breaks() -> None:
    right = (hashlib.sha256(CONTENT).hexdigest(), True)
    assert await read(Response(200, 0, CONTENT)) == right
    assert await read(Response(200, 0, CONTENT[:3], breaks=True), Response(206, 3, CONTENT[3:])) == right


async def test_who_reads_along_begins_again_with_a_server_that_ignores_ranges() -> None:
    broken = Response(200, 0, CONTENT[:3], breaks=True)
    assert await read(broken, Response(200, 0, CONTENT)) == (hashlib.sha256(CONTENT).hexdigest(), True)
