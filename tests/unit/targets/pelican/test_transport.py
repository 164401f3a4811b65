"""Requests to an origin: through proxies, to invalid host names, to hosts with untrusted certificates, and their log."""

from __future__ import annotations

import logging
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from publisher.errors import OriginError
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import TransientError
from publisher.targets.pelican import status as statuses
from publisher.targets.pelican.transport import OriginTimeouts, OriginTransport
from tests.support.loopback import LOOPBACK
from tests.support.registries.scripted_http import ScriptedServer, Tunnel, certificate, hangs, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ALLOWED = AddressPolicy(networks=LOOPBACK)
NAME = "origin.test"
THERE = URL(f"https://{NAME}/a")
SHOWN = "Basic " + b64encode(b"me:pr0xy-pass").decode()


async def ask(transport: OriginTransport, method: str = "GET", url: URL = THERE, body: list[bytes] | None = None) -> bytes:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in body or ():
            yield piece

    headers = {"Content-Length": str(sum(map(len, body)))} if body else {}
    try:
        async with transport.open(method, url, headers, body=pieces() if body else None) as answer:
            return await answer.body(1 << 20)
    finally:
        await transport.close()


async def test_an_upload_goes_through_the_proxy_and_only_the_proxy_sees_its_password(tmp_path: Path) -> None:
    authority, context = certificate(tmp_path, NAME)
    async with ScriptedServer({"PUT /a": [says(201, b"taken")]}, tls=context) as origin, Tunnel(origin.address) as proxy:
        proxies = Proxies({"https": f"http://me:pr0xy-pass@{proxy.address}"})
        assert await ask(OriginTransport(OriginTimeouts(), proxies, authority, ALLOWED), "PUT", body=[b"12", b"345"]) == b"taken"
        assert [asked.body for asked in origin.asked] == [b"12345"]
        assert "proxy-authorization" not in origin.asked[0].headers
        assert f"Proxy-Authorization: {SHOWN}" in proxy.asked[0]
        with pytest.raises(OriginError, match=r"a certificate that is not trusted \(.*origin_authority"):
            await ask(OriginTransport(OriginTimeouts(), proxies, policy=ALLOWED))


@pytest.mark.parametrize(("status", "error"), [(407, OriginError), (502, TransientError)])
async def test_a_proxy_that_lets_nobody_through_is_named_without_its_password(status: int, error: type[Exception]) -> None:
    async with Tunnel("127.0.0.1:1", status) as proxy:
        proxies = Proxies({"https": f"http://me:pr0xy-pass@{proxy.address}"})
        with pytest.raises(error, match=f"the proxy {proxy.address} refuses the connection to {NAME} with status {status}"):
            await ask(OriginTransport(OriginTimeouts(), proxies, policy=ALLOWED))
    with pytest.raises(TransientError, match=f"the proxy {proxy.address} cannot be reached: Connection refused"):
        await ask(OriginTransport(OriginTimeouts(), proxies, policy=ALLOWED))


async def test_a_name_that_no_host_can_have_is_said_to_be_none() -> None:
    with pytest.raises(OriginError, match="it is not a valid host name"):
        await ask(OriginTransport(OriginTimeouts(), Proxies({}), policy=ALLOWED), url=URL(f"https://{'a' * 64}.test/"))


async def test_a_silent_host_times_out_and_a_response_that_is_too_large_is_refused(tmp_path: Path) -> None:
    authority, context = certificate(tmp_path, "localhost")
    # two paths: on a busy machine the first request may time out before the server has seen it
    too_large = says(200, bytes((1 << 20) + 1))
    async with ScriptedServer({"GET /silent": [hangs], "GET /a": [too_large]}, tls=context) as origin:
        url = URL(f"https://localhost:{origin.address.rpartition(':')[2]}/a")
        with pytest.raises(TransientError, match="did not answer in time"):
            await ask(OriginTransport(OriginTimeouts(idle=0.2), Proxies({}), authority, ALLOWED), url=url.with_path("/silent"))
        with pytest.raises(OriginError, match="more than the 1048576 bytes"):
            await ask(OriginTransport(OriginTimeouts(), Proxies({}), authority, ALLOWED), url=url)


async def test_a_refusal_is_reported_without_the_token_and_with_its_retry_after(tmp_path: Path) -> None:
    authority, context = certificate(tmp_path, "localhost")
    token = "opaque-" + "x" * 40
    async with ScriptedServer({"GET /a": [says(429, f"{token} comes too often", Retry_After="7")]}, tls=context) as origin:
        url = URL(f"https://localhost:{origin.address.rpartition(':')[2]}/a")
        transport = OriginTransport(OriginTimeouts(), Proxies({}), authority, ALLOWED)
        async with transport.open("GET", url, {"Authorization": f"Bearer {token}"}) as answer:
            refused = await statuses.read_refusal(answer)
        await transport.close()
    assert refused[1:] == (429, "TOKEN comes too often", 7.0)
    failure = statuses.to_error(refused, "give a")
    assert isinstance(failure, TransientError)
    assert failure.retry_after == 7.0


async def test_requests_are_logged_without_query_and_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, context = certificate(tmp_path, "localhost")
    async with ScriptedServer({"GET /a": [says(200, b"")]}, tls=context) as origin:
        host = f"localhost:{origin.address.rpartition(':')[2]}"
        transport = OriginTransport(OriginTimeouts(), Proxies({}), authority, ALLOWED)
        with caplog.at_level(logging.DEBUG, "publisher"):
            async with transport.open("GET", URL(f"https://{host}/a?authz=s3cret"), {"Authorization": "Bearer s3cret"}):
                pass
            with pytest.raises(TransientError):
                await ask(transport, url=URL("https://localhost:1/a?authz=s3cret"))
    assert f"GET {host}/a: status 200 after " in caplog.text
    assert "GET localhost:1/a failed after " in caplog.text
    assert "localhost:1 cannot be reached: Connection refused" in caplog.text
    assert "s3cret" not in caplog.text
