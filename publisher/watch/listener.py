"""The HTTP server that takes push events: authenticated, rate-limited, with bounded bodies. aiohttp serves."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aiohttp import web

from publisher.errors import UsageError
from publisher.watch.authentication import is_secret, is_signed
from publisher.watch.events import EventError, pushed_images
from publisher.watch.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from publisher.contract.reference import Reference

_log = logging.getLogger(__name__)
LARGEST_BODY = 1 << 20
"""Bytes of a request."""
_STRANGERS_PER_MINUTE = 60
_BODY_DEADLINE = 10.0
_SIGNATURE = "X-Hub-Signature-256"
_SECRET, _SIGNED, _STRANGER = "secret", "signed", "stranger"


@dataclass(frozen=True)
class ListenerOptions:
    """How the listener works.

    Attributes:
        host, port: where it listens; port 0 is a free one.
        secrets: each of which authenticates a request.
        per_minute: requests per minute with a secret, and as many with a signature.
    """

    host: str
    port: int
    secrets: Sequence[str]
    per_minute: int


class Listener:
    """An asynchronous context manager around the server.

    Args:
        options: how it works.
        add: takes pushed images; returns False if too many are waiting.
        clock: returns seconds, monotonic.

    Attributes:
        port: the port that it listens on.
    """

    def __init__(self, options: ListenerOptions, add: Callable[[Iterable[Reference]], bool], clock: Callable[[], float]) -> None:
        self._options = options
        self._add = add
        self._buckets = {
            _SECRET: TokenBucket(options.per_minute, clock),
            _SIGNED: TokenBucket(options.per_minute, clock),
            _STRANGER: TokenBucket(_STRANGERS_PER_MINUTE, clock),  # strangers do not use up what registries may ask
        }

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/events", self._handle)
        app.router.add_post("/events/{secret}", self._handle)
        self._runner = web.AppRunner(app, access_log=None)  # its lines would have the secrets of paths
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._options.host, self._options.port).start()
        except OSError as error:
            await self._runner.cleanup()
            where = f"{self._options.host}:{self._options.port}"
            raise UsageError(f"nothing can listen at {where}: {error.strerror or error}", hint="set watch_listen") from None
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        kind = self._kind(request)
        wait = self._buckets[kind].take()
        if wait:
            return web.Response(status=429, text="too many requests\n", headers={"Retry-After": str(math.ceil(wait))})
        if kind == _STRANGER:
            return self._refused(request)
        try:
            async with asyncio.timeout(_BODY_DEADLINE):
                content = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="the body did not come in time\n")
        if kind == _SIGNED and not is_signed(request.headers[_SIGNATURE], content, self._options.secrets):
            return self._refused(request)
        return self._accept(content, request.query.get("registry"))

    def _kind(self, request: web.Request) -> str:
        secrets = self._options.secrets
        given = [request.match_info.get("secret", ""), request.headers.get("Authorization", "")]
        if any([is_secret(text, secrets) for text in given]):  # noqa: C419 - both are compared
            return _SECRET
        return _SIGNED if _SIGNATURE in request.headers else _STRANGER

    def _accept(self, content: bytes, registry: str | None) -> web.Response:
        try:
            images = pushed_images(content, registry)
        except EventError as error:
            _log.info("a registry sent something else: %s", error)
            return web.Response(status=400, text=f"{error}\n")
        for image in images:
            _log.debug("%s was pushed", image)
        if images and not self._add(images):
            return web.Response(status=503, text="too many images are waiting\n", headers={"Retry-After": "60"})
        return web.Response(status=202, text=f"{len(images)} image(s)\n")

    @staticmethod
    def _refused(request: web.Request) -> web.Response:
        _log.debug("a request from %s without a valid secret or signature is refused", request.remote)
        return web.Response(status=401, text="a secret or a signature is missing or wrong\n")
