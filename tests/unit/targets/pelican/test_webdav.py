"""The WebDAV client with a server that always does what real servers do only sometimes."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError, SpaceError
from publisher.net.retry import RetryPolicy
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.status import OriginDeniedError
from tests.support.loopback import LOOPBACK
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "manifest/index.json"
LISTED = '<multistatus xmlns="DAV:"><response><href>/%s</href><getcontentlength>%d</getcontentlength></response></multistatus>'


class Server:
    """A server that sends the next response of ``says[method]``, and the last one again and again."""

    def __init__(self, where: Path) -> None:
        self.says: dict[str, list[tuple[int, bytes]]] = {}
        self.cuts = False
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                server.asked.append(self.command)
                size = int(self.headers.get("Content-Length", 0))
                self.close_connection = True
                if size and server.cuts:
                    return
                self.rfile.read(size)
                said = server.says.get(self.command, [(404, b"")])
                status, body = said.pop(0) if len(said) > 1 else said[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_MOVE = do_PROPFIND = answer  # noqa: N815 - the base class's

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        authority, tls = certificate(where, "localhost")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        address = OriginAddress(f"localhost:{self._server.server_address[1]}", "", direct=True)
        self.origin = PelicanOrigin(
            address, UploadOptions(networks=LOOPBACK, ca_file=authority, retries=RetryPolicy(attempts=2, first_delay=0))
        )

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.close()


def listed(*sizes: int) -> list[tuple[int, bytes]]:
    return [(207, (LISTED % (NAME, size)).encode()) for size in sizes]


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(server: Server) -> None:
    """XRootD sends the new content, cut to the old size."""
    server.says = {"PROPFIND": listed(4, 6, 6), "GET": [(200, b"newe"), (200, b"newest")]}
    assert server.origin.read(NAME) == b"newest"


def test_a_file_that_is_always_another_one_is_an_error(server: Server) -> None:
    server.says = {"PROPFIND": listed(6), "GET": [(200, b"newe")]}
    with pytest.raises(OriginError, match="is replaced whenever it is read"):
        server.origin.read(NAME)


def put(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "sif"
    path.write_bytes(bytes(1 << 20))
    server.origin.put("x", path, sha256=hashlib.sha256(bytes(1 << 20)).hexdigest(), size=1 << 20)


def test_an_upload_that_is_cut_off_since_it_is_refused_is_told_from_one_that_broke_off(server: Server, tmp_path: Path) -> None:
    server.cuts = True
    server.says = {"PUT": [(403, b"no")]}
    with pytest.raises(OriginDeniedError, match="status 403: no"):
        put(server, tmp_path)
    assert server.asked.count("PUT") == 2
    server.says = {"PUT": [(201, b"")], "DELETE": [(200, b"")]}
    with pytest.raises(OriginError, match="after 2 attempts") as broken:
        put(server, tmp_path)
    assert not isinstance(broken.value, OriginDeniedError)


@pytest.mark.parametrize("said", [(507, b""), (500, b"Unable to write x; no space left on device")])
def test_an_origin_without_room_stops_the_run(server: Server, tmp_path: Path, said: tuple[int, bytes]) -> None:
    server.says = {"PUT": [said]}
    with pytest.raises(SpaceError):
        put(server, tmp_path)


@pytest.mark.parametrize(
    "use", [lambda origin: origin.size("x"), lambda origin: origin.read("x"), lambda origin: list(origin.names())]
)
def test_a_server_that_sends_us_elsewhere_is_not_followed(server: Server, use: Callable[[PelicanOrigin], object]) -> None:
    server.says = {"PROPFIND": [(302, b"")]}
    with pytest.raises(OriginError, match="it redirects the request, and redirects are not followed"):
        use(server.origin)
