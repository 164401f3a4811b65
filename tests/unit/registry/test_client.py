from __future__ import annotations

import asyncio
import contextlib
import socket
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from publisher import oci
from publisher.contract.reference import Reference
from publisher.errors import BlobError, DeniedError, NotFoundError, UnavailableError, UnknownHostError
from publisher.net import response
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import TransientError
from publisher.registry.endpoints import Endpoints
from publisher.registry.transport import RegistryTimeouts, RegistryTransport
from tests.support.registries.scripted_http import breaks_off, hangs, says
from tests.support.registries.scripted_registry import BLOB, BLOBS, BODY, BY_DIGEST, DIGEST, HERE, MANIFEST, scripted_client

if TYPE_CHECKING:
    from aiohttp import web

    from tests.support.registries.scripted_http import Reply

UNKNOWN = '{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'


# --- what a tag points at


async def test_a_tag_costs_one_head_and_the_registry_is_asked_once_what_it_wants_to_see() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(200, BODY, **HERE)]}) as it:
        assert await it.head() == oci.Descriptor(oci.OCI_MANIFEST, DIGEST, len(BODY))
        await asyncio.gather(*(it.head() for _ in range(5)))
        assert it.registry.lines == ["GET /v2/", *[f"HEAD {MANIFEST}"] * 6]
        accepted = it.registry.asked[1].headers["accept"]
        for media_type in (oci.OCI_INDEX, oci.OCI_MANIFEST, oci.DOCKER_LIST, oci.DOCKER_MANIFEST):
            assert media_type in accepted


@pytest.mark.parametrize(
    "answer",
    [
        says(200, BODY),
        says(200, BODY, Docker_Content_Digest="sha512:0a"),
        says(405),
    ],
)
async def test_a_registry_whose_head_tells_no_digest_is_asked_for_the_body(answer: Reply) -> None:
    async with scripted_client(
        {f"HEAD {MANIFEST}": [answer], f"GET {MANIFEST}": [says(200, BODY, Content_Type=oci.OCI_MANIFEST)]}
    ) as it:
        assert await it.head() == oci.Descriptor(oci.OCI_MANIFEST, DIGEST, len(BODY))


async def test_a_reference_with_a_digest_is_asked_for_by_it_and_another_answer_is_refused() -> None:
    other = "sha256:" + "0a" * 32
    routes = {f"HEAD {BY_DIGEST}": [says(200, BODY, **HERE), says(200, BODY, Docker_Content_Digest=other)]}
    async with scripted_client(routes) as it:
        it.reference = Reference(it.registry.address, "a/b", "1", DIGEST)
        assert (await it.head()).digest == DIGEST
        with pytest.raises(UnavailableError, match="answered with sha256:0a0a"):
            await it.head()


# --- not there, or could not tell


@pytest.mark.parametrize(
    "routes",
    [
        {f"HEAD {MANIFEST}": [says(404, Docker_Distribution_Api_Version="registry/2.0")]},
        {f"HEAD {MANIFEST}": [says(404)], f"GET {MANIFEST}": [says(404, UNKNOWN, Content_Type="application/json")]},
        {f"HEAD {MANIFEST}": [says(404)], f"GET {MANIFEST}": [says(404, '{"errors": [{"code": "NAME_UNKNOWN"}, {"code": 1}]}')]},
    ],
)
async def test_an_image_is_not_there_only_when_a_registry_says_so(routes: dict[str, list[Reply]]) -> None:
    async with scripted_client(routes) as it:
        with pytest.raises(NotFoundError, match=r"/a/b:1: 127\.0\.0\.1:\d+ has no a/b:1$"):
            await it.head()


@pytest.mark.parametrize(
    "body",
    ["<html>not found</html>", "", '{"errors": []}', '{"errors": [{"code": "UNAUTHORIZED"}]}', '{"errors": 1}', "[" * 5000],
)
async def test_a_404_of_something_else_than_a_registry_says_nothing_about_the_image(body: str) -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(404)], f"GET {MANIFEST}": [says(404, body)]}) as it:
        with pytest.raises(UnavailableError, match="not one of a registry"):
            await it.head()


async def test_a_forbidden_image_is_denied_and_not_asked_for_again() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(403)]}) as it:
        with pytest.raises(DeniedError, match="denies access to a/b:1"):
            await it.head()
        assert it.registry.lines.count(f"HEAD {MANIFEST}") == 1


async def test_an_answer_that_means_nothing_is_could_not_tell() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(400)]}) as it:
        with pytest.raises(UnavailableError, match="answered 400 to a request for a/b:1"):
            await it.head()
        assert it.pauses == []


# --- patience


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_busy_registry_is_asked_again_after_growing_pauses(status: int) -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(status), says(status), says(status), says(200, BODY, **HERE)]}) as it:
        assert (await it.head()).digest == DIGEST
        assert it.registry.lines.count(f"HEAD {MANIFEST}") == 4
        if status != 429:  # that one quiets the whole host as well, see test_rate_limit.py
            assert all(least <= pause <= least + 0.5 for least, pause in zip([0.5, 1, 2], it.pauses, strict=True))


async def test_patience_ends_after_four_tries_and_the_reason_names_host_and_answer() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(503)]}) as it:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+ answered 503, after 4 attempts"):
            await it.head()
        assert it.registry.lines.count(f"HEAD {MANIFEST}") == 4


async def test_retry_after_is_honoured_up_to_a_minute() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(429, Retry_After="42"), says(200, BODY, **HERE)]}) as it:
        await it.head()
        assert it.pauses == [42]


async def test_a_registry_that_wants_more_than_a_minute_of_peace_gets_it() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(429, Retry_After="3600"), says(200, BODY, **HERE)]}) as it:
        with pytest.raises(UnavailableError, match="answered 429 and asks to retry after 3600 s"):
            await it.head()
        assert (it.pauses, it.registry.lines.count(f"HEAD {MANIFEST}")) == ([], 1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (formatdate(1_000_030, usegmt=True), 30.0),
        (formatdate(999_000, usegmt=True), 0.0),
        ("soon", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert response.parse_retry_after(value, lambda: 1_000_000) == seconds


async def test_a_registry_that_never_answers_is_given_up_at_its_deadline() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [hangs]}, timeouts=RegistryTimeouts(small=0.1)) as it:
        with pytest.raises(UnavailableError, match="did not answer in time, after 4 attempts"):
            await it.head()


async def test_a_registry_that_hangs_at_once_is_waited_for_once_by_all() -> None:
    async with scripted_client({"GET /v2/": [hangs]}, timeouts=RegistryTimeouts(small=0.1)) as it:
        outcomes = await asyncio.gather(*(it.head() for _ in range(16)), return_exceptions=True)
        assert {type(outcome).__name__ for outcome in outcomes} == {"RetriesExhaustedError"}
        assert it.registry.lines == ["GET /v2/"] * 4


async def test_a_refused_connection_is_could_not_tell() -> None:
    async with scripted_client({}) as it:
        await it.registry.__aexit__(None, None, None)
        with pytest.raises(UnavailableError, match="cannot be reached: Connection refused, after 4 attempts"):
            await it.head()


@pytest.mark.parametrize(
    ("registry", "why"),
    [
        (f"{'a' * 64}.example", "it is not a valid host name"),
        ("a.example:70000", "is not a valid registry"),
        (".".join(["a" * 60] * 5), "cannot be found: no host has this name"),
        ("[::1]:1", r"\[::1\]:1 cannot be reached"),
    ],
)
async def test_a_host_that_cannot_be_is_could_not_tell(registry: str, why: str) -> None:
    async with scripted_client({}) as it:
        with pytest.raises(UnavailableError, match=why):
            await it.client.head(Reference(registry, "a/b", "1"))


async def test_what_does_not_speak_http_is_could_not_tell() -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with scripted_client({}) as it, await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        it.client._endpoints = Endpoints(frozenset({f"{host}:{port}"}), {})
        with pytest.raises(UnavailableError, match="does not speak valid HTTP, after 4 attempts"):
            await it.client.head(Reference(f"{host}:{port}", "a/b", "1"))


async def test_connecting_has_a_timeout_of_its_own() -> None:
    """The host drops packets: its queue of connections is full."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        host, port = full.getsockname()
        for _ in range(2):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex((host, port))
        async with scripted_client({}, timeouts=RegistryTimeouts(connect=0.1, small=3600, idle=3600)) as it, asyncio.timeout(60):
            it.client._endpoints = Endpoints(frozenset({f"{host}:{port}"}), {})
            with pytest.raises(UnavailableError, match=f"{port} did not answer in time, after 4 attempts"):
                await it.client.head(Reference(f"{host}:{port}", "a/b", "1"))


async def test_a_registry_that_fails_five_times_in_a_row_is_left_alone_for_a_minute() -> None:
    now = 0.0
    async with scripted_client({f"HEAD {MANIFEST}": [says(500)]}, clock=lambda: now) as it:
        for _ in range(5):
            with pytest.raises(UnavailableError, match="answered 500, after 4 attempts"):
                await it.head()
        with pytest.raises(UnavailableError, match="failed 5 times in a row, so no requests are sent to it"):
            await it.head()
        assert it.registry.lines.count(f"HEAD {MANIFEST}") == 20
        now = 61.0
        it.registry.routes[f"HEAD {MANIFEST}"] = [says(200, BODY, **HERE)]
        assert [(await it.head()).digest for _ in range(2)] == [DIGEST] * 2


async def test_one_registry_gets_no_more_requests_at_a_time_than_it_may() -> None:
    under_way, most, go = 0, 0, asyncio.Event()

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            asyncio.get_running_loop().call_later(0.05, go.set)  # time for a third to come, if it may
        await go.wait()
        under_way -= 1
        return await says(200, BODY, **HERE)(request)

    async with scripted_client({f"HEAD {MANIFEST}": [reply]}, concurrency=2) as it:
        await asyncio.gather(*(it.head() for _ in range(6)))
        assert most == 2


# --- manifests


async def test_a_manifest_is_handed_out_when_its_digest_is_right() -> None:
    async with scripted_client({f"GET {BY_DIGEST}": [says(200, BODY, Content_Type=f"{oci.OCI_MANIFEST}; charset=utf-8")]}) as it:
        assert await it.manifest() == (oci.OCI_MANIFEST, BODY)


async def test_a_manifest_of_another_digest_is_refused_after_a_second_look() -> None:
    async with scripted_client({f"GET {BY_DIGEST}": [says(200, BODY + b" ")]}) as it:
        with pytest.raises(BlobError, match=f"sent a manifest that does not match {DIGEST}"):
            await it.manifest()
        assert it.registry.lines.count(f"GET {BY_DIGEST}") == 2
        it.registry.routes[f"GET {BY_DIGEST}"] = [says(200, b"oops"), says(200, BODY)]
        assert (await it.manifest())[1] == BODY


async def test_a_manifest_without_end_is_given_up() -> None:
    async with scripted_client({f"GET {BY_DIGEST}": [says(200, bytes(oci.MANIFEST_LIMIT + 1))]}) as it:
        with pytest.raises(UnavailableError, match="more than the 4194304 bytes"):
            await it.manifest()


async def test_a_manifest_that_breaks_off_is_asked_for_again() -> None:
    async with scripted_client({f"GET {BY_DIGEST}": [breaks_off(BODY, 7), says(200, BODY)]}) as it:
        assert (await it.manifest())[1] == BODY


async def test_a_host_that_does_not_exist_is_another_error_than_a_name_server_that_does_not_answer() -> None:
    """Only the first one is a misspelt registry. Neither is a 404, so nothing is removed for it."""

    class NameServer(AbstractResolver):
        def __init__(self, code: int) -> None:
            self._code = code

        async def resolve(self, *_: object, **__: object) -> list[ResolveResult]:
            raise socket.gaierror(self._code, "no address")

        async def close(self) -> None:
            pass

    async def failure(code: int) -> Exception:
        transport = RegistryTransport(RegistryTimeouts(), Proxies({}), AddressPolicy(), NameServer(code))
        with pytest.raises((UnavailableError, TransientError)) as caught:
            async with transport.open("GET", URL("https://ghrc.example/v2/"), {}):
                pass
        await transport.close()
        return caught.value

    unknown = await failure(socket.EAI_NONAME)
    assert isinstance(unknown, UnknownHostError)
    assert (unknown.host, unknown.reason) == ("ghrc.example", "ghrc.example cannot be found: no host has this name")
    assert isinstance(await failure(socket.EAI_AGAIN), TransientError)


async def test_requests_bytes_and_the_remaining_pulls_are_counted() -> None:
    limits = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": "76;w=21600"}
    routes = {f"HEAD {MANIFEST}": [says(200, BODY, **HERE, **limits)], f"GET {BLOBS}": [says(200, BLOB)]}
    async with scripted_client(routes) as it:
        await it.head()
        assert await it.blob() == BLOB
        use, name = it.client.use(), it.registry.address
        assert (use.requests[name], use.received) == (2, len(BLOB))
        assert use.remaining[name] == pytest.approx(76, abs=2)
