"""An HTTP server on loopback that says what a test wants it to say, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    Reply = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """A request: method, path, query as it came, headers with names in small letters, body."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Web:
    """An asynchronous context manager around a server with scripted replies.

    Args:
        routes: ``"METHOD path"`` -> replies, one after the other, the last of them again and again. Others get a bare 404.

    Attributes:
        address: ``host:port``.
        asked: all requests so far.
    """

    def __init__(self, routes: Mapping[str, list[Reply]]) -> None:
        self.routes = {route: list(replies) for route, replies in routes.items()}
        self.asked: list[Asked] = []

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._runner.cleanup()

    @property
    def lines(self) -> list[str]:
        """``METHOD path`` of all requests."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.method, request.path, request.rel_url.raw_query_string, headers, await request.read()))
        replies = self.routes.get(f"{request.method} {request.path}", [says(404)])
        return await (replies.pop(0) if len(replies) > 1 else replies[0])(request)


def says(status: int = 200, body: bytes | str = b"", **headers: str) -> Reply:
    """A reply; ``Retry_After="1"`` is the header Retry-After."""
    content = body.encode() if isinstance(body, str) else body

    async def reply(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            status=status, body=content, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return reply


def breaks_off(body: bytes, after: int, status: int = 200, **headers: str) -> Reply:
    """Announces ``body``, sends ``after`` bytes of it and closes the connection."""

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
    """Sends zeros for as long as they are taken, and notes how many; announces ``length``, or nothing."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(1 << 16))
                sent.append(1 << 16)
        return response

    return reply


async def hangs(_: web.BaseRequest) -> web.StreamResponse:
    """Takes the request and never answers."""
    await asyncio.Event().wait()
    raise AssertionError
