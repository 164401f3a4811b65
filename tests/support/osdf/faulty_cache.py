"""A server of objects that misbehaves as caches of real federations do, and records its requests."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from email.message import Message
    from types import TracebackType
    from typing import Self

STATUSES = {"401": 401, "403": 403, "404": 404, "416": 416, "429": 429, "500": 500, "504": 504}
FAULTS = (
    *("truncated", "short", "longer", "endless", "corrupted", "mixed", "stalled", "trickling", "slow-head", "silent"),
    *("looping", "elsewhere", "whole", "shifted", "empty", "reset", "garbage", *STATUSES),
)
"""Faults of a server:

- ``truncated``: half of the body, then the end of the connection.
- ``short``, ``longer``: an object of another size, with consistent headers.
- ``endless``: a body without a Content-Length that never ends.
- ``corrupted``: one wrong byte.
- ``mixed``: the first half belongs to an older object.
- ``stalled``: half of the body, then silence.
- ``trickling``: some bytes of the body, then one at a time.
- ``slow-head``: a header line that never ends.
- ``silent``: no response.
- ``looping``, ``elsewhere``: a redirect to itself, to a file.
- ``whole``: ranges are ignored.
- ``shifted``: another range than requested.
- ``empty``: a success without a body.
- ``reset``: the connection is closed at once.
- ``garbage``: a response that is not HTTP.
- a status: a response with that status.
"""


class Asked:
    """A GET request: path with query, and the headers ``Range``, ``Authorization``, ``Proxy-Authorization`` (empty if absent)."""

    def __init__(self, path: str, headers: Message) -> None:
        self.path = path
        self.range, self.authorization, self.proxy_authorization = (
            headers.get(name, "") for name in ("Range", "Authorization", "Proxy-Authorization")
        )


class FaultyServer:
    """A server on loopback, as a context manager.

    Args:
        objects: path -> content.
        tls: serve TLS with this context's certificate; None for plain HTTP.

    Attributes:
        asked: all requests so far.
        faults: the faults of the next requests, one each; an empty string for none.
        always: the fault of all other requests.
        held: prefix of paths that are served only after ``released`` is set; empty for none.
        retry_after: the header ``Retry-After`` of faults that are a status; empty for none.
        elsewhere: URL of the server to which ``moved`` (a redirect, which is not a fault) leads.
    """

    def __init__(self, objects: Mapping[str, bytes], tls: ssl.SSLContext | None = None) -> None:
        self.objects = dict(objects)
        self.asked: list[Asked] = []
        self.faults: list[str] = []
        self.always = self.elsewhere = self.retry_after = ""
        self.held = ""
        self.released = threading.Event()
        self._over = threading.Event()
        self._scheme = "http" if tls is None else "https"
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    server.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 300

            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore clients that close the connection."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self._server.server_address[1]}"

    @property
    def ranges(self) -> list[str]:
        """The header ``Range`` of each request so far, empty if absent."""
        return [asked.range for asked in self.asked]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        ranged = request.headers.get("Range", "")
        self.asked.append(Asked(request.path, request.headers))
        fault = self.faults.pop(0) if self.faults else self.always
        if self.held and request.path.startswith(self.held):
            self.released.wait()
        content = self.objects.get(request.path.partition("?")[0])
        if content is None:
            _head(request, 404, {"Content-Length": "0"})
        elif fault in STATUSES:
            asked = {"Retry-After": self.retry_after} if self.retry_after else {}
            _head(request, STATUSES[fault], {"Content-Length": "5", **asked})
            request.wfile.write(b"sorry")
        elif fault in ("looping", "elsewhere", "moved"):
            to = {"looping": "", "elsewhere": "file://", "moved": self.elsewhere}[fault] + request.path
            _head(request, 302, {"Location": to, "Content-Length": "0"})
        elif fault in ("silent", "slow-head", "reset", "garbage"):
            self._without_head(request, fault)
        else:
            self._send(request, content, ranged, fault)

    def _without_head(self, request: BaseHTTPRequestHandler, fault: str) -> None:
        if fault == "garbage":
            request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif fault == "slow-head":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self._one_at_a_time(request)
        elif fault == "silent":
            self._over.wait()

    def _send(self, request: BaseHTTPRequestHandler, content: bytes, ranged: str, fault: str) -> None:
        content = _other(content, fault)
        status, headers, body = 200, {}, content
        if ranged and fault != "whole":
            first, last = (int(number) for number in ranged.removeprefix("bytes=").split("-"))  # both ends, or this server fails
            first += fault == "shifted"
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, body = 206, content[first : last + 1]
        if fault == "empty":
            body = b""
        if fault != "endless":
            headers["Content-Length"] = str(len(content) if fault == "empty" and not ranged else len(body))
        _head(request, status, headers)
        if fault in ("truncated", "stalled"):
            request.wfile.write(body[: len(body) // 2])
        elif fault == "trickling":
            request.wfile.write(body[:1000])
            self._one_at_a_time(request)
        else:
            request.wfile.write(body)
        if fault == "stalled":
            request.wfile.flush()
            self._over.wait()
        while fault == "endless":
            request.wfile.write(bytes(1000))

    def _one_at_a_time(self, request: BaseHTTPRequestHandler) -> None:
        while not self._over.wait(0.02):
            request.wfile.write(b"x")
            request.wfile.flush()


def _other(content: bytes, fault: str) -> bytes:
    """Return the object that is served instead."""
    half = len(content) // 2
    if fault == "short":
        return content[:half]
    if fault == "longer":
        return content + b"more"
    if fault == "corrupted":
        return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    if fault == "mixed":
        return content[:40] + bytes(half - 40) + content[half:]
    return content


def _head(request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Connection", "close")
    request.end_headers()
