"""A web server on loopback that serves a directory with ranges, records its requests, and misbehaves on demand."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from pathlib import Path
    from types import TracebackType
    from typing import Self


class FileServer:
    """A server of the directory ``root``, as a context manager; it serves TLS if it gets a context.

    Attributes:
        requests: path and range (empty if absent) of each request, in order.
        faults: the faults of the next requests for files below ``sif/``, one each: ``cut`` (half of the body, then the end),
            ``stall`` (half of the body, then silence until ``released`` is set), ``wrong`` (other bytes), ``long`` (one byte
            too many), ``error`` (status 500), ``whole`` (ranges are ignored), ``shifted`` (another range than requested),
            ``to-file`` (a redirect to a ``file://`` URL), ``moved`` (a redirect to the same file),
            ``moved-on`` (the same, with a query).
        clients: address of the client of each request, in order.
        stalled: set when a request stalls.
        released: ends the stalls.
    """

    def __init__(self, root: Path, tls: ssl.SSLContext | None = None) -> None:
        self.root = root
        self.requests: list[tuple[str, str]] = []
        self.clients: list[object] = []
        self._connections: list[socket.socket] = []
        self.faults: list[str] = []
        self.stalled = threading.Event()
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            do_HEAD = do_GET  # noqa: N815 - the base class's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def downloads(self) -> int:
        """Return the number of requests for SIFs so far."""
        return sum(path.startswith("/sif/") for path, _ in self.requests)

    def close_connections(self) -> None:
        """Close the connections of all requests so far, as a server does with idle ones."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.requests.append((request.path, asked))
        self.clients.append(request.client_address)
        self._connections.append(request.connection)
        path = self.root / request.path.partition("?")[0].lstrip("/")
        fault = self.faults.pop(0) if self.faults and request.path.startswith("/sif/") else ""
        if not path.is_file():
            _send(request, 404, b"")
        elif fault == "error":
            _send(request, 500, b"<html>something is wrong</html>")
        elif fault == "to-file":
            _send(request, 302, b"", Location=path.as_uri())
        elif fault == "stall":
            content = path.read_bytes()
            _send(request, 200, content, sent=len(content) // 2)
            self.stalled.set()
            self.released.wait()
        elif fault == "moved":
            _send(request, 302, b"", Location=f"{self.url}{request.path}")
        elif fault == "moved-on":
            _send(request, 302, b"", Location=f"{request.path}?moved")
        else:
            _send_file(request, path.read_bytes(), "" if fault == "whole" else asked, fault)


def _send_file(request: BaseHTTPRequestHandler, content: bytes, asked: str, fault: str) -> None:
    if fault == "wrong":
        content = bytes(byte ^ 1 for byte in content)
    if fault == "long":
        content += b"!"
    status, headers = 200, {}
    if asked:
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))  # both ends, or this server fails
        first += fault == "shifted"
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        status, content = 206, content[first : last + 1]
    _send(request, status, content, sent=len(content) // 2 if fault == "cut" else None, **headers)


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, *, sent: int | None = None, **headers: str) -> None:
    """Send a response; if ``sent`` is given, send only so many bytes of the body and close the connection."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(b"" if request.command == "HEAD" else body[:sent])
    request.close_connection = sent is not None
