"""One HTTPS request: within its time, never redirected, and with a body that is made while it is sent.

Reasons name hosts, never URLs or headers: a director puts tokens into the URLs that it hands out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from publisher.errors import OriginError
from publisher.net import response as answers
from publisher.net.http_errors import HttpRefusal, host_of, late, translated
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from yarl import URL

    from publisher.net.proxies import Proxies

PIECE = 1 << 19
"""Bytes that are read, sent and hashed at a time."""

_GOOD_BYE = 2.0  # seconds
_REFUSAL = HttpRefusal(
    OriginError, untrusted="if a private authority has signed it: the setting origin_authority names its certificate"
)


@dataclass(frozen=True)
class OriginTimeouts:
    """How long things may take.

    Attributes:
        idle: seconds without a byte, or until a connection stands.
        small: seconds for a small request.
        slowest: bytes a second; a large one may take ``small`` and what its size takes at this speed.
    """

    idle: float = 60
    small: float = 60
    slowest: int = 1_000_000

    def whole(self, size: int) -> float:
        """Seconds for a request that moves ``size`` bytes."""
        return self.small + size / self.slowest


class OriginResponse(answers.HttpResponse):
    """An answer whose body is read within the request's time.

    Attributes:
        bearer: the token that was shown, None for none.
    """

    def __init__(self, response: aiohttp.ClientResponse, pulse: _ProgressWatch, bearer: str | None) -> None:
        super().__init__(response, _REFUSAL)
        self._pulse = pulse
        self.bearer = bearer

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as it comes. One that is shorter than it was said to be is a TransientError."""
        while piece := await self.read():
            yield piece

    async def read(self) -> bytes:
        """The next bytes of the body; each of them is a sign of life."""
        piece = await super().read()
        self._pulse.beat()
        return piece


class OriginTransport:
    """Sends requests through one session, which is opened by the first of them and belongs to its event loop.

    Args:
        deadlines: how long everything may take.
        proxies: which requests go through which proxy.
        authority: PEM file of an authority that is trusted beside the host's own, None for none.
    """

    def __init__(self, deadlines: OriginTimeouts, proxies: Proxies, authority: Path | None = None) -> None:
        self.deadlines = deadlines
        self._proxies = proxies
        self._authority = authority
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    async def close(self) -> None:
        """Close all connections, and see them closed: those that await a server's good-bye are not the session's any more."""
        if self._session is None:
            return
        await self._session.close()
        for open_socket in self._sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOOD_BYE):
                while any(one.fileno() != -1 for one in self._sockets):  # noqa: ASYNC110 - nobody tells when they are
                    await asyncio.sleep(0.001)

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: AsyncIterator[bytes] | None = None,
        total: float | None = None,
        idle: float | None = None,
    ) -> AsyncIterator[OriginResponse]:
        """Send a request; the time that it may take covers the block.

        Args:
            method: of HTTP or WebDAV.
            url: https.
            headers: sent along; with a body, ``Content-Length`` is among them.
            body: what is sent. There is no waiting for leave (``Expect: 100-continue``): XRootD's interim answer says
                ``Connection: Close``, and what follows on that connection is then refused by HTTP parsers.
            total: seconds for all of it, those of a small request when None.
            idle: seconds without a byte, those of the deadlines when None.

        Raises:
            TransientError: no connection, no answer in time, or it broke off.
            OriginError: certificates, or no TLS.
        """
        host = host_of(url)
        total = self.deadlines.small if total is None else total
        with _in_time(host):
            async with asyncio.timeout(total) as limit:
                pulse = _ProgressWatch(limit, self.deadlines.idle if idle is None else idle)
                response = await self._send(method, url, headers, None if body is None else pulse.over(body))
                async with response:
                    pulse.beat()
                    yield OriginResponse(response, pulse, headers.get("Authorization", "").removeprefix("Bearer ") or None)

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], body: AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        proxy = self._proxies.through(url)
        shown = {} if proxy is None or proxy.authorization is None else {"Proxy-Authorization": proxy.authorization}
        with translated(host_of(url), _REFUSAL, via="" if proxy is None else host_of(proxy.url)):
            return await self._opened().request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=self._trusted(),
                proxy=None if proxy is None else proxy.url,
                proxy_headers=shown,
            )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=self._socket),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "ospool-image-publisher", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=PIECE // 2,
                timeout=aiohttp.ClientTimeout(),  # the pulse is what counts
            )
        return self._session

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    def _trusted(self) -> ssl.SSLContext:
        """The host's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name, and ours."""
        if self._context is None:
            self._context = ssl.create_default_context()
            if self._authority is not None:
                try:
                    self._context.load_verify_locations(self._authority)
                except OSError as error:  # SSLError is one
                    raise OriginError(f"{self._authority} holds no certificates that can be read: {error}") from None
        return self._context


class _ProgressWatch:
    """Ends a request that nothing moves in: each beat grants it ``idle`` seconds more, within its whole time."""

    def __init__(self, limit: asyncio.Timeout, idle: float) -> None:
        self._limit = limit
        self._idle = idle
        self._end = limit.when() or 0.0
        self.beat()

    def beat(self) -> None:
        self._limit.reschedule(min(asyncio.get_running_loop().time() + self._idle, self._end))

    async def over(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in body:
            self.beat()
            yield piece
        self.beat()


@contextlib.contextmanager
def _in_time(host: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise TransientError(late(host)) from None
