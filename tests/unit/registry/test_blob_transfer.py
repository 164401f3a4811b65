"""Transfers of blobs: complete and in order across interruptions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from publisher.errors import BlobError, UnavailableError
from publisher.registry.transport import RegistryTimeouts
from tests.support.registries.scripted_http import breaks_off, hangs, says
from tests.support.registries.scripted_registry import BLOB, BLOBS, scripted_client

if TYPE_CHECKING:
    from tests.support.registries.scripted_http import Reply


async def ranged(request: web.BaseRequest) -> web.StreamResponse:
    """Reply with the blob from the requested offset."""
    start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    if not start:
        return await says(200, BLOB)(request)
    return await says(206, BLOB[start:], Content_Range=f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}")(request)


async def test_a_blob_comes_from_the_offset_wanted() -> None:
    async with scripted_client({f"GET {BLOBS}": [ranged]}) as it:
        assert await it.blob() == BLOB
        assert await it.blob(100) == BLOB[100:]
        assert [asked.headers.get("range") for asked in it.registry.asked[1:]] == [None, "bytes=100-"]
        assert await it.blob(len(BLOB)) == b""
        assert len(it.registry.asked) == 3


async def test_a_transfer_that_breaks_goes_on_where_it_broke() -> None:
    async with scripted_client({f"GET {BLOBS}": [breaks_off(BLOB, 300), ranged]}) as it:
        assert await it.blob() == BLOB
        assert it.registry.asked[-1].headers["range"] == "bytes=300-"


async def test_a_transfer_may_break_often_as_long_as_it_gets_on() -> None:
    def part(start: int) -> Reply:
        content_range = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
        return breaks_off(BLOB[start:], 100, 206 if start else 200, **({"Content_Range": content_range} if start else {}))

    async with scripted_client({f"GET {BLOBS}": [part(start) for start in range(0, 1000, 100)] + [ranged]}) as it:
        assert await it.blob() == BLOB
    async with scripted_client({f"GET {BLOBS}": [breaks_off(BLOB, 0)]}) as it:
        with pytest.raises(UnavailableError, match="broke off its answer, after 4 attempts"):
            await it.blob()


async def test_a_registry_without_ranges_sends_the_whole_blob_again_and_the_known_part_is_passed_over() -> None:
    async with scripted_client({f"GET {BLOBS}": [breaks_off(BLOB, 300), says(200, BLOB)]}) as it:
        assert await it.blob() == BLOB


async def test_another_part_than_the_one_asked_for_is_refused() -> None:
    async with scripted_client({f"GET {BLOBS}": [says(206, BLOB[:924], Content_Range="bytes 0-923/1024")]}) as it:
        with pytest.raises(UnavailableError, match="another part of a blob"):
            await it.blob(100)


async def test_a_blob_that_is_announced_too_short_is_not_whole() -> None:
    async with scripted_client({f"GET {BLOBS}": [says(200, BLOB[:1000])]}) as it:
        with pytest.raises(UnavailableError, match="sent only 1000 of the 1024 bytes of a blob, after"):
            await it.blob()


async def test_a_blob_with_more_bytes_than_it_should_have_is_refused_before_they_are_handed_on() -> None:
    async with scripted_client({f"GET {BLOBS}": [says(200, BLOB + b"!")]}) as it:
        with pytest.raises(BlobError, match="more than the 1024 bytes"):
            await it.blob()


async def test_a_transfer_that_stands_still_is_taken_up_again() -> None:
    async def stands_still(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(BLOB)
        await response.prepare(request)
        await response.write(BLOB[:300])
        return await hangs(request)

    async with (
        scripted_client({f"GET {BLOBS}": [stands_still, ranged]}, timeouts=RegistryTimeouts(idle=0.1)) as it,
        asyncio.timeout(30),
    ):
        assert await it.blob() == BLOB


async def test_a_transfer_that_drips_is_given_up() -> None:
    async def drips(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(BLOB)
        await response.prepare(request)
        await response.write(BLOB[:1])
        return await hangs(request)

    async with scripted_client({f"GET {BLOBS}": [drips]}, timeouts=RegistryTimeouts(small=0.1, slowest=1 << 20)) as it:
        with pytest.raises(UnavailableError, match=r"sent only 1 B of a blob of 1.0 kB in 0 s"):
            await it.blob()
