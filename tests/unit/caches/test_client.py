"""What caches are asked, and what is made of their answers, those of a cache that misbehaves included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from yarl import URL

from publisher.caches import client
from publisher.caches.client import CacheClient
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.targets.pelican.transport import OriginTimeouts, OriginTransport
from tests.support.loopback import LOOPBACK
from tests.support.registries.scripted_http import ScriptedServer, certificate, endless, says

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.targets.pelican.tokens import TokenScope
    from tests.support.registries.scripted_http import Reply

PRESTAGE, EVICT = (f"GET /pelican/api/v1.0/{action}" for action in ("prestage", "evict"))
PATHS = ["/ospool/images/sif/ab/1.sif", "/ospool/images/sif/cd/2.sif"]
DONE = says(200, "status: queued\nstatus: active,offset=65536\nsuccess: ok\n")


class Named:
    """Tokens that say what they are for."""

    def bearer(self, scopes: Sequence[TokenScope], _base: str) -> str:
        return "-".join(f"{scope.capability}.{scope.path.count('/')}" for scope in scopes)


class Asked:
    """A cache with scripted answers, and what a client says of it."""

    def __init__(self, where: Path, routes: dict[str, list[Reply]], policy: AddressPolicy | None = None) -> None:
        authority, self.tls = certificate(where, "localhost")
        self.routes = routes
        self.waited: list[float] = []
        self.transport = OriginTransport(OriginTimeouts(), Proxies({}), authority, policy or AddressPolicy(networks=LOOPBACK))
        self.client = CacheClient(self.transport, Named(), Named(), RetryPolicy(attempts=2, first_delay=0, sleep=self.wait))

    async def wait(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def run(self, action: str = "prestage", paths: Sequence[str] = PATHS) -> list[str]:
        async with ScriptedServer(self.routes, self.tls) as server:
            self.cache = f"localhost:{server.address.rpartition(':')[2]}"
            try:
                return await getattr(self.client, action)([self.cache], paths)  # type: ignore[no-any-return]  # of two methods
            finally:
                self.requests = server.asked
                await self.transport.close()


async def test_each_cache_fetches_each_object(tmp_path: Path) -> None:
    asked = Asked(tmp_path, {PRESTAGE: [DONE]})
    assert await asked.run() == []
    assert [URL(f"?{one.query}").query["path"] for one in asked.requests] == PATHS
    assert asked.requests[0].headers["authorization"] == "Bearer storage.read.5"


async def test_an_eviction_is_asked_for_with_a_token_that_may_modify(tmp_path: Path) -> None:
    asked = Asked(tmp_path, {EVICT: [says(200, "Cache eviction successful")]})
    assert await asked.run("evict", PATHS[:1]) == []
    assert asked.requests[0].headers["authorization"] == "Bearer storage.modify.5"


@pytest.mark.parametrize("action", ["prestage", "evict"])
@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (says(404, "no such file"), "has no API for this: status 404"),
        (says(403, "Permission denied"), "status 403: Permission denied"),
        (says(302, Location="https://other.example/"), "redirects are not followed"),
    ],
    ids=["without the API", "refused", "redirected"],
)
async def test_a_cache_that_does_not_is_named_and_asked_for_nothing_more(
    tmp_path: Path, action: str, reply: Reply, said: str
) -> None:
    asked = Asked(tmp_path, {PRESTAGE: [reply], EVICT: [reply]})
    (line,) = await asked.run(action)
    assert line.startswith(asked.cache)
    assert said in line
    assert len(asked.requests) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("status: queued\nfailure: 404(File not found): Object does not exist\n", "failure: 404(File not found)"),
        ("status: active,offset=1\n", "status: active,offset=1"),
        ("", "it says nothing"),
    ],
)
async def test_a_prestage_that_ends_otherwise_has_failed(tmp_path: Path, body: str, said: str) -> None:
    (line,) = await Asked(tmp_path, {PRESTAGE: [says(200, body)]}).run()
    assert said in line


async def test_a_busy_cache_is_asked_again_after_the_time_that_it_asks_for(tmp_path: Path) -> None:
    asked = Asked(tmp_path, {PRESTAGE: [says(429, "queue is full", Retry_After="60"), DONE]})
    assert await asked.run(paths=PATHS[:1]) == []
    assert asked.waited == [60]
    busy = Asked(tmp_path, {PRESTAGE: [says(429, Retry_After="61")]})
    (line,) = await busy.run()
    assert "asks to retry after 61 s" in line
    assert busy.waited == []


async def test_an_answer_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LONGEST_TEXT", 1 << 18)
    sent: list[int] = []
    (line,) = await Asked(tmp_path, {PRESTAGE: [endless(sent)]}).run()
    assert "its answer does not end" in line


async def test_caches_that_do_not_answer_in_time_hold_up_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(tmp_path, {PRESTAGE: [DONE]})
    monkeypatch.setattr(client, "DEADLINE", 0.0)
    (line,) = await asked.run()
    assert line == "the caches have not answered within 0 min"


async def test_no_cache_leads_to_an_address_that_is_not_allowed(tmp_path: Path) -> None:
    (line,) = await Asked(tmp_path, {PRESTAGE: [DONE]}, AddressPolicy()).run()
    assert "has no public address" in line
