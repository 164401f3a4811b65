"""A small federation on loopback: discovery and a director, over TLS, before the servers of :mod:`tests.support.osdf.xrootd`."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.support.osdf.network_namespace import HOST

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

CONFIGURATION = "/.well-known/pelican-configuration"
_TO_ORIGIN = ("PUT", "DELETE", "COPY", "PROPFIND")
_DIRECT, _OBJECT = "/api/v1.0/director/origin", "/api/v1.0/director/object"


@dataclass(frozen=True)
class Asked:
    """A received request: its method, path with query, and headers with lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Said:
    """A response that is sent once instead of the usual one: a status, headers, a body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


ISSUER = "https://issuer.invalid"


def token_of(issuer: str = ISSUER, subject: str = "s3cret") -> str:
    """Return a token that says who issued it, with a signature that nobody checks."""
    parts = ({"alg": "ES256"}, {"iss": issuer, "sub": subject})
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "c2ln"])


class Director:
    """A context manager: a director for one namespace, and the discovery of its federation.

    Args:
        tls: what it speaks TLS with.
        namespace: below which it knows every object.
        origin: URL of the namespace's origin.
        caches: URLs of the caches, the nearest first; where there are none, reading leads to the origin.
        issuer: URL of who issues the namespace's tokens.
        public: whether reading needs no token.

    Attributes:
        host: ``host:port`` of it, the federation's name.
        asked: all requests so far.
        instead: what the next requests are answered, in this order, rather than the usual.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        namespace: str,
        origin: str,
        caches: Sequence[str] = (),
        *,
        issuer: str = ISSUER,
        public: bool = True,
    ) -> None:
        self.namespace = namespace
        self.origin = origin
        self.caches = list(caches)
        self.asked: list[Asked] = []
        self.instead: list[Said] = []
        self._issuer = issuer
        self._public = public
        director = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                director.answer(self)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_PROPFIND = do_COPY = answer  # noqa: N815 - the base class's

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.host = f"{HOST}:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"https://{self.host}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def lines(self) -> list[str]:
        """Return ``METHOD path`` of all requests so far."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.command, request.path, headers))
        if self.instead:
            said = self.instead.pop(0)
        elif request.path == CONFIGURATION:
            said = Said(200, {"Content-Type": "application/json"}, json.dumps({"director_endpoint": self.url}))
        else:
            said = self._directed(request.command, request.path)
        body = said.body.encode()
        request.send_response_only(said.status)
        for name, value in {
            "Server": "pelican/7",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **said.headers,
        }.items():
            request.send_header(name, value)
        request.end_headers()
        request.close_connection = True
        if request.command != "HEAD":
            request.wfile.write(body)

    def _directed(self, method: str, target: str) -> Said:
        """Return the headers that locate an object, as a real director sends them."""
        path, _, query = target.partition("?")
        direct = path.startswith(_DIRECT) or method in _TO_ORIGIN or "directread" in query.split("&")
        path = path.removeprefix(_DIRECT).removeprefix(_OBJECT)
        if path != self.namespace and not path.startswith(f"{self.namespace}/"):
            return Said(404, {"Content-Type": "application/json"}, '{"status": "error", "msg": "no such namespace"}')
        servers = [self.origin] if direct or not self.caches else [*self.caches, self.origin]
        links = [f'<{server}{path}>; rel="duplicate"; pri={number}; depth=1' for number, server in enumerate(servers, 1)]
        token = f"issuer={self._issuer}, base-path={self.namespace}, max-scope-depth=3, strategy=OAuth2"
        needs = f"namespace={self.namespace}, require-token={str(not self._public).lower()}, collections-url={self.origin}"
        return Said(
            307,
            {
                "Location": f"{servers[0]}{path}",
                "Link": ", ".join(links),
                "X-Pelican-Namespace": needs,
                "X-Pelican-Authorization": f"issuer={self._issuer}",
                "X-Pelican-Token-Generation": token,
            },
        )
