"""A misbehaving proxy in front of a real registry: passes everything on, but for what a test wants to go wrong."""

from __future__ import annotations

import contextlib
import fnmatch
import json
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
    """What stands before a registry; see :func:`misbehaving`.

    Attributes:
        faults: ``"METHOD path"``, with ``*`` in it or not -> replies, each for one request. What has no reply left is passed on.
        token: who does not show it is sent to ``/token``, which gives it out; nobody is, where it is None.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__({})
        self._upstream = upstream
        self.faults: dict[str, list[Reply]] = {}
        self.token: str | None = None

    def always(self, route: str, reply: Reply) -> None:
        """This reply to every request."""
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
        """The registry's answer."""
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
            return web.Response(status=answer.status, body=body, headers=kept)

    def changed(self, change: Callable[[bytes], bytes], **headers: str) -> Reply:
        """The registry's answer with another body, and some other headers."""

        async def reply(request: web.BaseRequest) -> web.StreamResponse:
            answer = await self.forward(request)
            if isinstance(answer.body, bytes):
                answer.body = change(answer.body)
            answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
            return answer

        return reply

    def cut(self, share: float = 0.5, announced: float = 1.0) -> Reply:
        """A part of the answer's body, though ``announced`` of it is announced; the connection is closed after it."""

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
        """A list of tags in pages of at most ``size``, with a ``Link`` made from a template; ``then``: page -> another reply."""

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
    """A proxy before a registry, in a thread of its own, so that programs in plain order can be tested with it."""
    with BackgroundLoop() as background:
        proxy = Proxy(registry.address)
        background.submit(proxy.__aenter__()).result()
        try:
            yield proxy
        finally:
            background.submit(proxy.__aexit__(None, None, None)).result()
