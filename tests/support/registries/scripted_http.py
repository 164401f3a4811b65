"""An HTTP server on loopback that sends the replies that a test sets, and records its requests."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    Reply = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that the server received; the query is not decoded, the names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class ScriptedServer:
    """An asynchronous context manager around a server with scripted replies.

    Args:
        routes: ``"METHOD path"`` -> replies, one after the other; the last one repeats. Other requests get an empty 404.
        tls: serve TLS with this context's certificate; None for plain http.

    Attributes:
        address: ``host:port``.
        asked: the requests so far.
    """

    def __init__(self, routes: Mapping[str, list[Reply]], tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.routes = {route: list(replies) for route, replies in routes.items()}
        self.asked: list[ReceivedRequest] = []

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for _ in range(4):  # turns of the loop, in which a connection is accepted that its client has left already
            await asyncio.sleep(0)
        await self._runner.cleanup()

    @property
    def lines(self) -> list[str]:
        """The requests so far, as ``METHOD path``."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(
            ReceivedRequest(request.method, request.path, request.rel_url.raw_query_string, headers, await request.read())
        )
        return await self._reply(request)(request)

    def _reply(self, request: web.BaseRequest) -> Reply:
        replies = self.routes.get(f"{request.method} {request.path}", [says(404)])
        return replies.pop(0) if len(replies) > 1 else replies[0]


def says(status: int = 200, body: bytes | str = b"", **headers: str) -> Reply:
    """Return a reply that sends a response; ``Retry_After="1"`` sets the header Retry-After."""
    content = body.encode() if isinstance(body, str) else body

    async def reply(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            status=status, body=content, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return reply


def breaks_off(body: bytes, after: int, status: int = 200, **headers: str) -> Reply:
    """Return a reply that announces ``body``, sends ``after`` bytes of it and closes the connection."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:after])
        if request.transport is not None:
            request.transport.close()
        return response

    return reply


def endless(sent: list[int], length: int | None = None) -> Reply:
    """Return a reply that sends zeros until the client closes the connection.

    Args:
        sent: receives the number of bytes of each piece.
        length: the announced length, None for none.
    """

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(1 << 16))
                sent.append(1 << 16)
                await asyncio.sleep(0)  # a write to TLS that is closing neither waits nor fails
        return response

    return reply


async def hangs(_: web.BaseRequest) -> web.StreamResponse:
    """Accept the request and never reply."""
    await asyncio.Event().wait()
    raise AssertionError


class Tunnel:
    """An asynchronous context manager around an HTTP proxy that only supports CONNECT and connects every name to one server.

    Args:
        to: the server, ``host:port``.
        status: the status of its response; 200 connects.

    Attributes:
        address: ``host:port``.
        asked: the heads of the requests so far, unchanged.
    """

    def __init__(self, to: str, status: int = 200) -> None:
        self._host, _, port = to.rpartition(":")
        self._port = int(port)
        self._status = status
        self.asked: list[str] = []

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.CancelledError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(f"HTTP/1.1 {self._status} whatever\r\n\r\n".encode())
            if self._status == 200:
                there, back = await asyncio.open_connection(self._host, self._port)
                with contextlib.closing(back):
                    await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()
    sink.close()


def certificate(where: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """Return the certificate of a private authority, and the TLS context of a server that it has signed for ``host``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, private = where / "authority.pem", where / "key.pem"
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, private)
    return authority, context
