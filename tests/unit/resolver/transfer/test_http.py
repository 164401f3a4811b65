"""One GET: through proxies, along redirects, to an end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.errors import FetchError
from publisher.resolver.transfer import http
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import NetworkOptions
from publisher.resolver.transfer.watchdog import TransferDeadline
from tests.support.osdf.faulty_cache import FaultyServer
from tests.support.osdf.file_server import FileServer
from tests.support.registries.scripted_http import Tunnel, certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer({"/a": b"here"}) as running:
        yield running


def read(url: str, network: NetworkOptions | None = None) -> bytes:
    return open_source(url, network).read("a", 100)


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
def test_plain_http_goes_through_the_environments_proxy(server: FaultyServer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is asked for the whole URL."""
    with FaultyServer({"http://images.example.org:8000/a": b"by proxy"}) as proxy:
        monkeypatch.setenv(name, proxy.url)
        assert read("http://images.example.org:8000") == b"by proxy"
        assert proxy.asked[0].proxy_authorization == ""
        monkeypatch.setenv(name, proxy.url.replace("localhost", "us%40er:pa%3Ass@localhost").removeprefix("http://"))
        assert read("http://images.example.org:8000") == b"by proxy"
        assert proxy.asked[1].proxy_authorization == "Basic dXNAZXI6cGE6c3M="
        monkeypatch.setenv("no_proxy", "example.com,localhost")
        assert read(server.url) == b"here"


@pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")  # http.client leaves a refused tunnel open
async def test_https_goes_through_the_proxys_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tls = certificate(tmp_path, "images.example.org")
    with FaultyServer({"/a": b"here"}, tls) as server:
        async with Tunnel(server.url.removeprefix("https://")) as tunnel:
            monkeypatch.setenv("https_proxy", f"http://user:pass@{tunnel.address}")
            url, network = "https://images.example.org", NetworkOptions(ca=str(authority))
            assert await asyncio.to_thread(read, url, network) == b"here"
            assert "CONNECT images.example.org:443" in tunnel.asked[0]
            assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in tunnel.asked[0]
        async with Tunnel(server.url.removeprefix("https://"), status=407) as tunnel:
            monkeypatch.setenv("https_proxy", f"http://{tunnel.address}")
            with pytest.raises(FetchError, match="Tunnel connection failed: 407") as failure:
                await asyncio.to_thread(read, url, network)
            del failure
            gc.collect()


def test_a_redirect_is_followed_a_few_times(server: FaultyServer) -> None:
    with ExitStack() as stack:
        chain = [server, *(stack.enter_context(FaultyServer({"/a": b"not here"})) for _ in range(6))]
        for to, one in zip(chain, chain[1:]):
            one.always, one.elsewhere = "moved", to.url
        assert read(chain[5].url) == b"here"
        with pytest.raises(FetchError, match="a: too many redirects"):
            read(chain[6].url)


@pytest.mark.parametrize("url", ["http://", "http://[", "http://localhost:port", "http://localhost:99999"])
def test_an_invalid_url_is_a_fetch_error(url: str) -> None:
    with pytest.raises(FetchError):
        read(url)


def test_a_refused_connection_is_reported() -> None:
    with FaultyServer({}) as gone:
        pass
    with pytest.raises(FetchError, match="a: Connection refused"):
        read(gone.url)


def test_a_query_is_sent_and_is_in_no_error(server: FaultyServer) -> None:
    assert read(f"{server.url}?directread") == b"here"
    assert server.asked[0].path == "/a?directread"
    server.always = "500"
    with pytest.raises(FetchError) as failure:
        read(f"{server.url}?authz=secret")
    assert str(failure.value) == "a: status 500 Internal Server Error"


def test_a_redirect_may_lead_to_https_but_not_away_from_it(server: FaultyServer, tmp_path: Path) -> None:
    authority, tls = certificate(tmp_path, "localhost")
    with FaultyServer({"/a": b"by https"}, tls) as secure:
        server.always, server.elsewhere = "moved", secure.url
        assert read(server.url, NetworkOptions(ca=str(authority))) == b"by https"
        server.always, secure.always, secure.elsewhere = "", "moved", server.url.replace("http:", "HTTP:")
        with pytest.raises(FetchError, match="a: redirected from https to http"):
            read(secure.url, NetworkOptions(ca=str(authority)))


def test_an_invalid_redirect_is_not_repeated_in_the_error(server: FaultyServer) -> None:
    server.always, server.elsewhere = "moved", f"{server.url}/x?authz=Bearer s3cret"
    with pytest.raises(FetchError) as failure:
        read(server.url)
    assert str(failure.value) == "a: the URL is not valid"


def test_authorities_may_be_a_directory(tmp_path: Path) -> None:
    """Named by their subjects' hashes, as OpenSSL wants them."""
    authority, tls = certificate(tmp_path, "localhost")
    argv = ["openssl", "x509", "-hash", "-noout", "-in", str(authority)]
    name = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "authorities").mkdir()
    (tmp_path / "authorities" / f"{name}.0").write_bytes(authority.read_bytes())
    with FaultyServer({"/a": b"here"}, tls) as server:
        assert read(server.url, NetworkOptions(ca=str(tmp_path / "authorities"))) == b"here"


@pytest.mark.parametrize("head", [b"\x16\x03\x03\x40\x00", b""])
def test_a_handshake_does_not_outlast_the_timeout(head: bytes) -> None:
    """A record that is announced and comes byte by byte, for as long as somebody takes it; or nothing at all."""
    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.sendall(head)
                while head and not gone.wait(0.02):
                    connection.sendall(b"\0")
                gone.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        place = open_source(f"https://127.0.0.1:{listener.getsockname()[1]}", NetworkOptions(silence=60))
        place.timeout = 0.9
        try:
            with pytest.raises(FetchError, match=r"timed out|only 0 B received in time"):
                place.read("a", 100)
        finally:
            gone.set()
            listener.shutdown(socket.SHUT_RDWR)  # it waits for ever if the time was over before the connection
            thread.join()


def test_an_invalid_proxy_is_reported(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://")
    with pytest.raises(FetchError, match="the proxy in the environment has no host name"):
        read(server.url)


@pytest.fixture
def dead() -> Iterator[int]:
    """The port of a listener whose queue is full, which answers no more: as a firewall that drops what comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_connecting_does_not_outlast_the_timeout(dead: int) -> None:
    place = open_source(f"http://127.0.0.1:{dead}", NetworkOptions(silence=100))
    place.timeout = 0.9
    with pytest.raises(FetchError, match="a: timed out"):
        place.read("a", 100)


def led_to(ports: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name leads to these ports of this host, as another may to several hosts."""
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: addresses)


def test_a_name_with_dead_addresses_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    led_to([port] * 6, monkeypatch)
    readings = itertools.count()
    deadline = TransferDeadline(lambda: float(next(readings)), 4.0)
    with pytest.raises(FetchError, match="timed out"), http.get("http://a.invalid/", NetworkOptions(), deadline=deadline):
        pass


def test_a_dead_address_leaves_time_for_the_next_one(server: FaultyServer, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    led_to([dead, int(server.url.rpartition(":")[2])], monkeypatch)
    place = open_source("http://a.invalid", NetworkOptions(silence=100))
    place.timeout = 6
    assert place.read("a", 100) == b"here"


def test_a_servers_answer_may_take_longer_than_an_address_has(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    led_to([int(server.url.rpartition(":")[2])] * 100, monkeypatch)
    place = open_source("http://a.invalid", NetworkOptions(silence=100))
    place.timeout = 15
    server.held = "/a"
    answer = threading.Timer(0.5, server.released.set)
    answer.start()
    assert place.read("a", 100) == b"here"
    answer.join()


def answers(server: FileServer, kept: http.KeptConnections, *paths: str) -> list[bytes]:
    found = []
    for path in paths:
        deadline = TransferDeadline(time.monotonic, time.monotonic() + 60)
        with http.get(f"{server.url}{path}", NetworkOptions(), deadline=deadline, kept=kept) as response:
            found.append(response.read())
    return found


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "sif").mkdir()
    for name in ("a", "b"):
        (tmp_path / "sif" / name).write_text(name)
    with FileServer(tmp_path) as running:
        yield running


@pytest.fixture
def kept() -> Iterator[http.KeptConnections]:
    with contextlib.closing(http.KeptConnections()) as connections:
        yield connections


def test_a_kept_connection_serves_the_next_request(files: FileServer, kept: http.KeptConnections) -> None:
    assert answers(files, kept, "/sif/a", "/sif/b") == [b"a", b"b"]
    assert len(set(files.clients)) == 1


def test_a_connection_is_kept_along_redirects(files: FileServer, kept: http.KeptConnections) -> None:
    files.faults = ["moved-on", "", "moved-on"]
    assert answers(files, kept, "/sif/a", "/sif/b") == [b"a", b"b"]
    assert (len(files.clients), len(set(files.clients))) == (4, 1)


def test_a_kept_connection_that_the_server_has_closed_is_replaced(files: FileServer, kept: http.KeptConnections) -> None:
    answers(files, kept, "/sif/a")
    files.close_connections()
    assert answers(files, kept, "/sif/b") == [b"b"]
    assert len(set(files.clients)) == 2


def test_a_connection_with_an_unread_answer_is_not_kept(files: FileServer, kept: http.KeptConnections) -> None:
    with http.get(f"{files.url}/sif/a", NetworkOptions(), kept=kept):
        pass
    assert answers(files, kept, "/sif/b") == [b"b"]
    assert len(set(files.clients)) == 2
