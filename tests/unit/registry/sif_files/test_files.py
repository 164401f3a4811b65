"""SIFs at URLs, with a scripted server in the place of the web and of a federation."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from aiohttp import web

from publisher.contract.reference import Reference
from publisher.errors import BlobError, DeniedError, NotFoundError, UnavailableError
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.oci import SIF_LAYER, Descriptor
from publisher.registry.credentials import Credentials
from publisher.registry.sif_files.files import SifFileClient
from publisher.registry.transport import RegistryTimeouts, RegistryTransport
from tests.support.registries.name_server import NameServer
from tests.support.registries.scripted_http import breaks_off, endless, says
from tests.support.registries.scripted_registry import ScriptedClient, scripted_client

SIF = bytes(range(256)) * 8
SHA256 = f"sha256:{hashlib.sha256(SIF).hexdigest()}"
WANTED = Descriptor(SIF_LAYER, SHA256, len(SIF))


def at(it: ScriptedClient, scheme: str = "https") -> Reference:
    return Reference(it.registry.address if scheme == "https" else "", "lab/x.sif", None, SHA256, scheme)


async def fetched(it: ScriptedClient, reference: Reference, wanted: Descriptor = WANTED, offset: int = 0) -> bytes:
    received = bytearray()

    async def sink(chunk: bytes) -> None:
        received.extend(chunk)

    await it.client.blob(reference, wanted, sink, offset)
    return bytes(received)


async def test_a_sif_is_described_and_fetched_without_credentials() -> None:
    routes = {"HEAD /lab/x.sif": [says(200, SIF)], "GET /lab/x.sif": [says(200, SIF)]}
    async with scripted_client(routes, credentials=Credentials("me", "word")) as it:
        assert await it.client.head(at(it)) == WANTED
        assert await fetched(it, at(it)) == SIF
        assert not await it.client.sees_private_images(at(it))
        assert [name for asked in it.registry.asked for name in asked.headers if name == "authorization"] == []
        assert it.client.use().received == len(SIF)


async def test_a_transfer_that_breaks_off_goes_on_where_it_stopped() -> None:
    rest = says(206, SIF[100:], Content_Range=f"bytes 100-{len(SIF) - 1}/{len(SIF)}")
    async with scripted_client({"GET /lab/x.sif": [breaks_off(SIF, 100), rest]}) as it:
        assert await fetched(it, at(it)) == SIF
        assert it.registry.asked[-1].headers["range"] == "bytes=100-"


async def test_a_server_without_ranges_sends_again_what_is_there_and_it_is_skipped() -> None:
    async with scripted_client({"GET /lab/x.sif": [says(200, SIF)]}) as it:
        assert await fetched(it, at(it), offset=100) == SIF[100:]


async def test_another_part_than_the_requested_one_is_refused() -> None:
    other = says(206, SIF[50:], Content_Range=f"bytes 50-{len(SIF) - 1}/{len(SIF)}")
    async with scripted_client({"GET /lab/x.sif": [other]}) as it:
        with pytest.raises(UnavailableError, match="another part"):
            await fetched(it, at(it), offset=100)


async def test_no_more_bytes_are_taken_than_the_size_says() -> None:
    sent: list[int] = []
    async with scripted_client({"GET /lab/x.sif": [endless(sent)]}) as it:
        with pytest.raises(BlobError, match="sent more than the 2048 bytes"):
            await fetched(it, at(it))


async def test_a_slow_transfer_ends() -> None:
    timeouts = RegistryTimeouts(small=0.01, slowest=1 << 40)
    async with scripted_client({"GET /lab/x.sif": [breaks_off(SIF, 0)]}, timeouts=timeouts) as it:
        with pytest.raises(UnavailableError, match=r"the server of https://.* sent only 0 B|after 4 attempts"):
            await fetched(it, at(it))


@pytest.mark.parametrize(
    ("status", "kind", "problem"),
    [
        (404, NotFoundError, "has no lab/x.sif"),
        (410, NotFoundError, "has no lab/x.sif"),
        (401, DeniedError, "denies access to lab/x.sif"),
        (403, DeniedError, "denies access to lab/x.sif"),
        (405, UnavailableError, "answered 405 to a request for lab/x.sif"),
        (503, UnavailableError, "answered 503, after 4 attempts"),
    ],
)
async def test_a_status_says_what_is_wrong(status: int, kind: type[Exception], problem: str) -> None:
    async with scripted_client({"HEAD /lab/x.sif": [says(status)]}) as it:
        with pytest.raises(kind, match=problem):
            await it.client.head(at(it))


async def test_a_server_that_does_not_say_the_size_cannot_be_used() -> None:
    async def unsized(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write_eof()
        return response

    async with scripted_client({"HEAD /lab/x.sif": [unsized]}) as it:
        with pytest.raises(UnavailableError, match="does not say how large"):
            await it.client.head(at(it))


async def test_osdf_is_read_through_the_director_which_is_asked_for_once() -> None:
    async with scripted_client({}) as it:
        here = f"http://{it.registry.address}"
        it.registry.routes |= {
            "GET /.well-known/pelican-configuration": [says(200, json.dumps({"director_endpoint": f"{here}/director/"}))],
            "HEAD /director/lab/x.sif": [says(307, Location=f"{here}/cache/x.sif")],
            "HEAD /cache/x.sif": [says(200, SIF)],
            "GET /director/lab/x.sif": [says(307, Location=f"{here}/cache/x.sif")],
            "GET /cache/x.sif": [says(200, SIF)],
        }
        assert await it.client.head(at(it, "osdf")) == WANTED
        assert await fetched(it, at(it, "osdf")) == SIF
        assert it.registry.lines.count("GET /.well-known/pelican-configuration") == 1


@pytest.mark.parametrize(
    ("status", "document", "problem"),
    [
        (200, "{}", "is not a federation"),
        (404, "", "is not a federation"),
        (200, '{"director_endpoint": 5}', "is not a federation"),
        (200, '{"director_endpoint": "ftp://x/"}', "not at an https URL"),
        (200, '{"director_endpoint": "https://me@x/"}', "not at an https URL"),
    ],
)
async def test_what_is_no_federation_is_not_read(status: int, document: str, problem: str) -> None:
    async with scripted_client({"GET /.well-known/pelican-configuration": [says(status, document)]}) as it:
        with pytest.raises(UnavailableError, match=problem):
            await it.client.head(at(it, "osdf"))


@pytest.mark.parametrize("address", ["10.1.2.3", "169.254.169.254", "127.0.0.1", "192.168.1.1"])
@pytest.mark.parametrize("scheme", ["https", "osdf"])
async def test_no_private_address_is_connected_to(address: str, scheme: str) -> None:
    names = NameServer([address])
    transport = RegistryTransport(RegistryTimeouts(), Proxies({}), AddressPolicy(), names)
    files = SifFileClient(transport, RetryPolicy(), RegistryTimeouts(), insecure=(), federation="federation.example")
    try:
        with pytest.raises(UnavailableError, match="has no public address, so no request is sent to it"):
            await files.head(Reference("server.example" if scheme == "https" else "", "x.sif", None, SHA256, scheme))
    finally:
        await transport.close()
    assert names.asked == 1


async def test_a_redirect_to_a_private_address_is_not_followed() -> None:
    async with scripted_client({}) as it:
        it.registry.routes["HEAD /lab/x.sif"] = [says(307, Location="http://10.1.2.3/x.sif")]
        with pytest.raises(UnavailableError, match="has no public address, so no request is sent to it"):
            await it.client.head(at(it))


def test_the_descriptor_is_of_a_sif() -> None:
    assert WANTED.is_sif
    assert not replace(WANTED, media_type="application/vnd.oci.image.layer.v1.tar").is_sif
