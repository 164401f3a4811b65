"""HTTP proxies and private certificate authorities that the environment names."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from publisher.contract.reference import Reference
from publisher.errors import UnavailableError, UsageError
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.registry.client import RegistryClient
from tests.support.registries.scripted_http import ScriptedServer, Tunnel, certificate, says
from tests.support.registries.scripted_registry import BODY, DIGEST, HERE, MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

NAME = "registry.test"
ROUTES = {"GET /v2/": [says()], f"HEAD {MANIFEST}": [says(200, BODY, **HERE)]}
SHOWN = "Basic " + b64encode(b"me:pr0xy-pass").decode()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def no_sleep(_: float) -> None:
    pass


async def head(*, insecure: bool = False) -> str:
    client = RegistryClient(insecure=frozenset({NAME} if insecure else ()), retry=RetryPolicy(sleep=no_sleep))
    async with client:
        return (await client.head(Reference(NAME, "a/b", "1"))).digest


async def test_a_plain_registry_is_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer(ROUTES) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:pr0xy-pass@{proxy.address}")
        assert await head(insecure=True) == DIGEST
        assert {asked.headers["host"] for asked in proxy.asked} == {NAME}
        assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {SHOWN}


async def test_tls_goes_through_the_proxy_to_the_end_and_a_private_authority_is_trusted_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, context = certificate(tmp_path, NAME)
    async with ScriptedServer(ROUTES, tls=context) as registry, Tunnel(registry.address) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pr0xy-pass@{proxy.address}")
        with pytest.raises(UnavailableError, match=r"registry\.test has a certificate that is not trusted \(.*SSL_CERT_FILE"):
            await head()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert await head() == DIGEST
        assert proxy.asked[-1].startswith(f"CONNECT {NAME}:443 ")
        assert f"Proxy-Authorization: {SHOWN}" in proxy.asked[-1]
        assert all("proxy-authorization" not in asked.headers for asked in registry.asked)


async def test_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    async with ScriptedServer(ROUTES) as proxy:
        netrc.write_text(f"machine {NAME} login me password s3cret\nmachine 127.0.0.1 login me password s3cret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        assert await head(insecure=True) == DIGEST
        assert not {"authorization", "proxy-authorization"} & {name for asked in proxy.asked for name in asked.headers}


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (403, 1), (502, 4)])
async def test_a_proxy_that_lets_nobody_through_is_could_not_tell(
    status: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tunnel("127.0.0.1:1", status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pr0xy-pass@{proxy.address}")
        reason = rf"the proxy {proxy.address} refuses the connection to registry\.test with status {status}"
        with pytest.raises(UnavailableError, match=reason) as failure:
            await head()
        assert len(proxy.asked) == tries
        assert "pr0xy" not in str(failure.value)


async def test_a_proxy_that_is_down_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Tunnel("127.0.0.1:1") as proxy:
        address = proxy.address
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:pr0xy-pass@{address}")
    with pytest.raises(UnavailableError, match=f"the proxy {address} cannot be reached: Connection refused") as failure:
        await head()
    assert "pr0xy" not in str(failure.value)


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("https://a.example/v2/", "http://p:3128"),
        ("http://a.example/v2/", "http://q"),
        ("https://inner.example/v2/", None),
        ("https://deep.inner.example:5000/v2/", None),
        ("https://outer-inner.example.org/v2/", "http://p:3128"),
        ("https://only.port:5000/", None),
        ("https://only.port/", "http://p:3128"),
        ("http://localhost:5000/", None),
        ("http://127.0.0.1:5000/", None),
        ("http://[::1]:5000/", None),
        ("https://10.1.2.3:5000/", None),
        ("https://11.1.2.3/", "http://p:3128"),
        ("https://[fd00:1::7]/", None),
        ("https://[fd01::7]/", "http://p:3128"),
        ("https://10.example/", "http://p:3128"),
    ],
)
def test_hosts_that_are_named_in_no_proxy_and_this_one_are_asked_directly(url: str, through: str | None) -> None:
    proxies = Proxies({"https": "p:3128", "http": "http://q", "no": "inner.example, only.port:5000,10.1.0.0/8, fd00::/16,no/net"})
    found = proxies.through(URL(url))
    assert (None if found is None else found.url) == (None if through is None else URL(through))


@pytest.mark.parametrize("named", ["socks5://s3cret@p:1", "http://", "http://me:s3cret@[::1", "http://p:s3cret"])
def test_what_is_no_proxy_is_refused_without_being_printed(named: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY in the environment is not the URL of a proxy") as failure:
        Proxies({"https": named})
    assert "s3cret" not in str(failure.value)


def test_a_proxys_password_is_not_printed() -> None:
    assert "s3cret" not in repr(Proxies({"https": "http://me:s3cret@p:1"}).through(URL("https://a")))
