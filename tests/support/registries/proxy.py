"""A faulty proxy in front of a real registry: it forwards every request, except those for which a test sets a fault."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from publisher.net.loop import BackgroundLoop
from tests.support.registries.scripted_http import ScriptedServer, breaks_off, says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.registries.registry import RegistryServer
    from tests.support.registries.scripted_http import Reply

_HOP = ("connection", "transfer-encoding", "content-length", "date", "server", "content-type")


class Proxy(ScriptedServer):
    """The proxy; see :func:`misbehaving`.

    Attributes:
        faults: ``"METHOD path"``, optionally with ``*`` -> replies, each for one request. Other requests are forwarded.
        token: the token that requests need and ``/token`` issues; None if requests need no token.
        ahead: seconds by which the registry's clock is ahead of this host's, as its ``Date`` says.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__({})
        self._upstream = upstream
        self.faults: dict[str, list[Reply]] = {}
        self.token: str | None = None
        self.ahead = 0.0

    def always(self, route: str, reply: Reply) -> None:
        """Give this reply to every request of a route."""
        self.faults[route] = [reply] * 10_000

    def _reply(self, request: web.BaseRequest) -> Reply:
        if self.token is not None and request.path == "/token":
            return says(200, json.dumps({"token": self.token, "expires_in": 300}))
        for route, replies in self.faults.items():
            if replies and fnmatch.fnmatchcase(f"{request.method} {request.path}", route):
                return replies.pop(0)
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return says(401, WWW_Authenticate=f'Bearer realm="http://{self.address}/token",service="test"')
        return self.forward

    async def forward(self, request: web.BaseRequest) -> web.Response:
        """Return the registry's response."""
        headers = {name: request.headers[name] for name in ("Accept", "Range") if name in request.headers}
        url = f"http://{self._upstream}{request.rel_url.raw_path_qs}"
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, headers=headers) as answer,
        ):
            body = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            kept |= {name: answer.headers[name] for name in ("Content-Type",) if name in answer.headers}
            if request.method == "HEAD":
                kept["Content-Length"] = answer.headers["Content-Length"]
            if self.ahead:
                kept["Date"] = formatdate(time.time() + self.ahead, usegmt=True)
            return web.Response(status=answer.status, body=body, headers=kept)

    def changed(self, change: Callable[[bytes], bytes], **headers: str) -> Reply:
        """Return a reply with the registry's response, but with a changed body and additional headers."""

        async def reply(request: web.BaseRequest) -> web.StreamResponse:
            answer = await self.forward(request)
            if isinstance(answer.body, bytes):
                answer.body = change(answer.body)
            answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
            return answer

        return reply

    def cut(self, share: float = 0.5, announced: float = 1.0) -> Reply:
        """Return a reply that sends ``share`` of the body, announces ``announced`` of it, and then closes the connection."""

        async def reply(request: web.BaseRequest) -> web.StreamResponse:
            answer = await self.forward(request)
            whole = answer.body if isinstance(answer.body, bytes) else b""
            length = int(len(whole) * announced)
            kind = answer.headers.get("Content-Type", "")
            return await breaks_off(whole.ljust(length)[:length], int(len(whole) * share), Content_Type=kind)(request)

        return reply

    def pages(
        self, size: int, then: dict[int, Reply] | None = None, link: str = "/v2/{name}/tags/list?last={last}&n={n}"
    ) -> Reply:
        """Return a reply that lists tags in pages.

        Args:
            size: the largest number of tags in a page.
            then: the number of a page -> another reply for it.
            link: a template for the ``Link`` header.
        """

        async def reply(request: web.BaseRequest) -> web.StreamResponse:
            answer = await self.forward(request)
            if not isinstance(answer.body, bytes):
                raise TypeError
            listed = json.loads(answer.body)
            tags = sorted(listed["tags"])
            last = request.query.get("last") or request.query.get("next_page", "")
            start = tags.index(last) + 1 if last else 0
            if then is not None and start // size in then:
                return await then[start // size](request)
            page = tags[start : start + size]
            headers = {}
            if start + size < len(tags):
                target = link.format(name=listed["name"], last=page[-1], n=size, host=request.host)
                headers["Link"] = f'<{target}>; rel="next"'
            return await says(200, json.dumps(listed | {"tags": page}), **headers)(request)

        return reply


@contextlib.contextmanager
def misbehaving(registry: RegistryServer) -> Iterator[Proxy]:
    """Run a faulty proxy in a thread of its own, so that synchronous programs can be tested with it."""
    with BackgroundLoop() as background:
        proxy = Proxy(registry.address)
        background.submit(proxy.__aenter__()).result()
        try:
            yield proxy
        finally:
            background.submit(proxy.__aexit__(None, None, None)).result()
