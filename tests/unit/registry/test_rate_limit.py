"""Rate limits of one host: requests per second, Retry-After, and quotas of pulls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from publisher.errors import UnavailableError
from publisher.net.retry import RetryPolicy
from publisher.registry.client import RegistryClient
from publisher.registry.rate_limit import RateLimiter
from tests.support.registries.scripted_http import ScriptedServer, says
from tests.support.registries.scripted_registry import BLOBS, BODY, BY_DIGEST, DIGEST, HERE, MANIFEST, scripted_client

if TYPE_CHECKING:
    from aiohttp import web

OK = says(200, BODY, **HERE)
HEAD, GET = f"HEAD {MANIFEST}", f"GET {BY_DIGEST}"


async def test_requests_are_spread_over_time_as_the_rate_says() -> None:
    now, started = 0.0, []

    async def sleep(seconds: float) -> None:
        started.append(now + seconds)

    async with scripted_client({HEAD: [OK]}, rate=4, clock=lambda: now) as it:
        it.client._access._retry = RetryPolicy(sleep=sleep)
        await asyncio.gather(*(it.head() for _ in range(5)))
        assert started == [0.25, 0.5, 0.75, 1.0]
        now = 10.0
        await it.head()
        assert len(started) == 4


async def test_without_a_rate_nothing_waits() -> None:
    async with scripted_client({HEAD: [OK]}) as it:
        await asyncio.gather(*(it.head() for _ in range(5)))
        assert it.pauses == []


@pytest.mark.parametrize("status", [429, 503])
async def test_peace_that_a_host_wants_from_one_task_it_gets_from_all(status: int) -> None:
    now, slept = 0.0, []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    limiter = RateLimiter("host", concurrency=2, rate=None, max_wait=60, clock=lambda: now, sleep=sleep)
    async with scripted_client({HEAD: [says(status, Retry_After="30")]}) as it:
        url = f"http://{it.registry.address}{MANIFEST}"
        async with it.client._transport.open("HEAD", URL(url), {}) as answer:
            limiter.record(answer, pull=False)
    for now in (10.0, 31.0):  # noqa: B007 - the clock's
        async with limiter.slot(pull=False):
            pass
    assert slept == [20]


async def test_more_peace_than_is_waited_for_is_told_at_once_to_all() -> None:
    async with scripted_client({HEAD: [says(429, Retry_After="3600"), OK]}) as it:
        with pytest.raises(UnavailableError, match="answered 429 and asks to retry after 3600 s"):
            await it.head()
        for _ in range(3):
            with pytest.raises(UnavailableError, match=r"is rate-limited; retry after 3600 s \(nothing was changed"):
                await it.head()
        assert (it.registry.lines.count(HEAD), it.pauses) == (1, [])


async def test_peace_that_a_blob_store_wants_is_not_the_registrys() -> None:
    async with ScriptedServer({"GET /blob": [says(503, Retry_After="3600")]}) as store:
        moved = says(307, Location=f"http://{store.address}/blob")
        async with scripted_client({f"GET {BLOBS}": [moved], HEAD: [OK]}) as it:
            with pytest.raises(UnavailableError, match="asks to retry after 3600 s"):
                await it.blob()
            assert (await it.head()).digest == DIGEST


async def test_a_host_that_does_not_say_how_much_peace_it_wants_gets_ever_more_of_it() -> None:
    async with scripted_client({HEAD: [says(429)] * 3 + [OK, says(429), OK]}) as it:
        await it.head()
        quiet = it.client._access._rate_limiters[it.registry.address]
        assert sum(it.pauses) >= 1 + 2 + 4
        assert quiet._backoff == 0
        await it.head()
        assert 1 <= sum(it.pauses) - 7 <= 4


async def test_many_refusals_of_one_moment_count_once() -> None:
    async with scripted_client({HEAD: [says(429)] * 8 + [OK]}) as it:
        await asyncio.gather(*(it.head() for _ in range(8)))
        assert sum(it.pauses) < 8 * 3


# --- Docker Hub's limit on pulls


def limited(left: int, limit: int = 100, window: int = 6000) -> dict[str, str]:
    return {"RateLimit_Limit": f"{limit};w={window}", "RateLimit_Remaining": f"{left};w={window}"}


async def test_pulls_stop_before_the_limit_is_used_up_and_heads_go_on() -> None:
    async with scripted_client({HEAD: [says(200, BODY, **HERE, **limited(2, window=21600))], GET: [says(200, BODY)]}) as it:
        await it.head()
        for _ in range(2):
            assert (await it.manifest())[1] == BODY
        with pytest.raises(UnavailableError, match="is used up: 100 pulls in 6 h"):
            await it.manifest()
        assert (await it.head()).digest == DIGEST
        assert it.registry.lines.count(GET) == 2


async def test_pulls_that_come_back_soon_are_waited_for() -> None:
    async with scripted_client({HEAD: [says(200, BODY, **HERE, **limited(1, limit=600))], GET: [says(200, BODY)]}) as it:
        await it.head()
        for _ in range(3):
            await it.manifest()
        assert it.pauses == [pytest.approx(10), pytest.approx(10)]


async def test_pulls_that_are_under_way_count_though_the_host_has_not_counted_them_yet() -> None:
    go, both = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        if it.registry.lines.count(GET) == 2:
            both.set()
        await go.wait()
        return await says(200, BODY)(request)

    async with scripted_client({HEAD: [says(200, BODY, **HERE, **limited(2, window=60000))], GET: [slow]}) as it:
        await it.head()
        pulls = [asyncio.ensure_future(it.manifest()) for _ in range(2)]
        await both.wait()
        await it.head()  # still says 2
        with pytest.raises(UnavailableError, match="used up"):
            await it.manifest()
        go.set()
        await asyncio.gather(*pulls)


@pytest.mark.parametrize(
    "headers", [{}, {"RateLimit_Remaining": "0"}, {"RateLimit_Limit": "0;w=1", "RateLimit_Remaining": "0;w=1"}]
)
async def test_other_headers_are_not_taken_for_a_limit(headers: dict[str, str]) -> None:
    async with scripted_client({HEAD: [says(200, BODY, **HERE, **headers)], GET: [says(200, BODY)]}) as it:
        await it.head()
        await it.manifest()
        assert it.pauses == []


async def test_a_registry_has_64_requests_at_a_time_if_nothing_else_is_said() -> None:
    async with RegistryClient() as client:
        assert client._access._rate_limiter("x")._slots._value == 64
