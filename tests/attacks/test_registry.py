"""A registry that leads the publisher host to addresses which only this host can reach. Everything here listens on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from publisher.contract.reference import Reference
from publisher.errors import UnavailableError
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.registry.client import RegistryClient
from publisher.registry.transport import RegistryTimeouts, RegistryTransport
from tests.support.registries.name_server import NameServer
from tests.support.registries.scripted_http import ScriptedServer, Tunnel, says
from tests.support.registries.scripted_registry import DIGEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFUSED = "has no public address, so no request is sent to it"


class Listener:
    """A service of this host that counts connections and answers none."""

    def __init__(self) -> None:
        self.connections = 0

    def accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@contextlib.asynccontextmanager
async def listening(address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[Listener, int]]:
    service = Listener()
    server = await asyncio.start_server(service.accept, address, port)
    async with server:
        yield service, server.sockets[0].getsockname()[1]


def client_of(registry: ScriptedServer) -> RegistryClient:
    async def no_wait(_: float) -> None:
        await asyncio.sleep(0)

    return RegistryClient(insecure=frozenset({registry.address}), retry=RetryPolicy(sleep=no_wait))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.0.0.1", "[::ffff:127.0.0.1]"])
async def test_a_redirect_to_this_host_is_not_followed(host: str) -> None:
    """aiohttp refuses some spellings of the address itself."""
    async with listening() as (service, port), ScriptedServer({"GET /v2/": [says()]}) as registry, client_of(registry) as client:
        registry.routes[f"HEAD /v2/a/b/manifests/{DIGEST}"] = [says(307, Location=f"http://{host}:{port}/latest/meta-data")]
        with pytest.raises(UnavailableError, match=f"{REFUSED}|does not speak valid HTTP"):
            await client.head(Reference(registry.address, "a/b", None, DIGEST))
        assert service.connections == 0


async def test_a_token_service_on_this_host_is_not_asked() -> None:
    async with listening() as (service, port), ScriptedServer({}) as registry, client_of(registry) as client:
        realm = f'Bearer realm="http://127.0.0.1:{port}/token",service="s"'
        registry.routes["GET /v2/"] = [says(401, WWW_Authenticate=realm)]
        with pytest.raises(UnavailableError, match=REFUSED):
            await client.head(Reference(registry.address, "a/b", "1"))
        assert service.connections == 0


async def ask(names: NameServer, port: int, policy: AddressPolicy) -> int:
    """Return the status of a request to a name that the attacker's name server knows."""
    transport = RegistryTransport(RegistryTimeouts(), Proxies({}), policy, names)
    try:
        async with transport.open("GET", URL(f"http://blobs.example:{port}/"), {}) as response:
            return response.status
    finally:
        await transport.close()


async def test_a_name_that_leads_to_this_host_is_not_connected_to() -> None:
    async with listening() as (service, port):
        with pytest.raises(UnavailableError, match=REFUSED):
            await ask(NameServer(["127.0.0.1"]), port, AddressPolicy())
        with pytest.raises(UnavailableError, match=REFUSED):
            await ask(NameServer(["127.0.0.1", "127.0.0.2"]), port, AddressPolicy())
        assert service.connections == 0


async def test_of_several_addresses_only_the_allowed_one_is_connected_to() -> None:
    """As if a name had a public and a private address, in both orders."""
    policy = AddressPolicy(networks=[ipaddress.ip_network("127.0.0.1/32")])
    async with ScriptedServer({"GET /": [says(204)]}) as public:
        port = int(public.address.rpartition(":")[2])
        async with listening("127.0.0.2", port) as (private, _):
            for addresses in (["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]):
                assert await ask(NameServer(addresses), port, policy) == 204
            assert private.connections == 0


async def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked() -> None:
    policy = AddressPolicy(networks=[ipaddress.ip_network("127.0.0.1/32")])
    async with ScriptedServer({"GET /": [says(204)]}) as public:
        port = int(public.address.rpartition(":")[2])
        async with listening("127.0.0.2", port) as (private, _):
            names = NameServer(["127.0.0.1"], ["127.0.0.2"])
            assert (await ask(names, port, policy), names.asked) == (204, 1), "what was checked is not looked up again"
            with pytest.raises(UnavailableError, match=REFUSED):
                await ask(names, port, policy)
            assert private.connections == 0


async def test_a_proxy_is_not_asked_for_a_private_address() -> None:
    async with ScriptedServer({}) as server, Tunnel(server.address) as proxy:
        proxies = Proxies({"https": f"http://{proxy.address}"})
        transport = RegistryTransport(RegistryTimeouts(), proxies, AddressPolicy())
        for host in ("169.254.169.254", "10.0.0.1", "[fd00::1]"):
            with pytest.raises(UnavailableError, match=REFUSED):
                async with transport.open("GET", URL(f"https://{host}/"), {}):
                    pass
        await transport.close()
        assert proxy.asked == []


async def test_what_the_operator_configured_is_asked() -> None:
    async with ScriptedServer({"GET /": [says(204)]}) as server:
        url = URL(f"http://{server.address}/")
        for policy in (AddressPolicy([server.address]), AddressPolicy(networks=[ipaddress.ip_network("127.0.0.0/8")])):
            transport = RegistryTransport(RegistryTimeouts(), Proxies({}), policy)
            async with transport.open("GET", url, {}) as response:
                assert response.status == 204
            await transport.close()
        host = server.address.partition(":")[0]
        transport = RegistryTransport(RegistryTimeouts(), Proxies({}), AddressPolicy([host, f"{host}:1"]))
        with pytest.raises(UnavailableError, match=REFUSED):
            async with transport.open("GET", url, {}):
                pass
        await transport.close()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.1", "224.0.0.1"),
        *("255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:a00:1::", "no address"),
    ],
)
def test_no_address_of_a_private_network_is_allowed(address: str) -> None:
    assert not AddressPolicy().allows(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1", "64:ff9b::5db8:d70e", "2002:5db8:d70e::"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert AddressPolicy().allows(address) or address.startswith("2002:"), "6to4 is no public network for every Python"


def test_an_allowed_network_allows_its_own_addresses_alone() -> None:
    policy = AddressPolicy(networks=[ipaddress.ip_network("10.1.0.0/16")])
    assert policy.allows("10.1.2.3")
    assert policy.allows("::ffff:10.1.2.3")
    assert not policy.allows("10.2.0.1")
    assert not policy.allows("169.254.169.254")


def test_the_connector_of_aiohttp_makes_its_sockets_where_addresses_are_checked() -> None:
    """A floor for the dependency: older versions know no ``socket_factory`` and would connect unchecked."""
    assert "socket_factory" in aiohttp.TCPConnector.__init__.__annotations__
