"""One HTTPS request to a federation or origin: timed out if nothing moves, never redirected, with a streamed body.

Messages name hosts, never URLs or headers: a director puts tokens into the URLs that it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import OriginError
from publisher.net.addresses import AddressPolicy
from publisher.net.http_errors import HttpRefusal, host_of, timed_out
from publisher.net.http_library import aiohttp
from publisher.net.http_session import READ_BUFFER, HttpSession
from publisher.net.response import HttpResponse
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from yarl import URL

    from publisher.net.http_session import SocketFactory
    from publisher.net.proxies import Proxies

CHUNK_SIZE = 2 * READ_BUFFER
"""Bytes that are read, sent and hashed at a time."""

_log = logging.getLogger(__name__)
_CLOSING = 2.0  # seconds to wait for connections to close
_REFUSAL = HttpRefusal(
    OriginError,
    untrusted="if a private authority has signed it, name that authority's certificate in the setting origin_authority",
)


@dataclass(frozen=True)
class OriginTimeouts:
    """How long requests to an origin may take.

    Attributes:
        idle: seconds without a byte, or until a connection is established.
        small: seconds for a small request.
        slowest: bytes per second; a large request may take ``small`` plus the time for its size at this speed.
    """

    idle: float = 60
    small: float = 60
    slowest: int = 1_000_000

    def for_size(self, size: int) -> float:
        """Return the seconds for a request that transfers ``size`` bytes."""
        return self.small + size / self.slowest


class OriginResponse(HttpResponse):
    """A response whose body is read within the request's timeouts.

    Attributes:
        bearer: the token that the request was sent with, None if it had none.
    """

    def __init__(self, response: aiohttp.ClientResponse, watch: _ProgressWatch, bearer: str | None) -> None:
        super().__init__(response, _REFUSAL)
        self._watch = watch
        self.bearer = bearer

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises TransientError if it is shorter than announced."""
        while chunk := await self.read():
            yield chunk

    async def read(self) -> bytes:
        """Return the next bytes of the body, ``b""`` at its end; they count as progress. Raises TransientError."""
        chunk = await super().read()
        self._watch.progress()
        return chunk


class OriginTransport:
    """Sends requests to a federation and its origin.

    Args:
        timeouts: how long requests may take.
        proxies: which requests go through which proxy.
        ca_file: PEM file of a certificate authority that is trusted besides the host's own, None for none.
        policy: which addresses requests may be sent to; None for public ones.
    """

    def __init__(
        self, timeouts: OriginTimeouts, proxies: Proxies, ca_file: Path | None = None, policy: AddressPolicy | None = None
    ) -> None:
        self.timeouts = timeouts
        self._session = HttpSession(proxies, _REFUSAL, self._connector, policy or AddressPolicy(), ca_file)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    async def close(self) -> None:
        """Close all connections, and wait until they are closed: the session does not wait for the servers' TLS shutdown."""
        await self._session.close()
        for open_socket in self._sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                while any(open_socket.fileno() != -1 for open_socket in self._sockets):  # noqa: ASYNC110 - there is no event
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
        """Send a request; its timeouts cover the block.

        Args:
            method: the HTTP or WebDAV method.
            url: an https URL.
            headers: the headers; with a body, they include ``Content-Length``.
            body: the body. ``Expect: 100-continue`` is not used: XRootD's interim response says ``Connection: Close``, and HTTP
                parsers then refuse what follows on that connection.
            total: seconds for the whole request; those for a small request if None.
            idle: seconds without a byte; those of the transport's timeouts if None.

        Raises:
            TransientError: no connection, no response in time, or the connection broke off.
            OriginError: an untrusted certificate, or no TLS.
        """
        total = self.timeouts.small if total is None else total
        with _translated_timeout(method, url):
            async with asyncio.timeout(total) as limit:
                watch = _ProgressWatch(limit, self.timeouts.idle if idle is None else idle)
                response = await self._session.request(method, url, headers, body=None if body is None else watch.over(body))
                async with response:
                    watch.progress()
                    bearer = headers.get("Authorization", "").removeprefix("Bearer ") or None
                    yield OriginResponse(response, watch, bearer)

    def _connector(self, new_socket: SocketFactory) -> aiohttp.TCPConnector:
        def remembered_socket(address: aiohttp.AddrInfoType) -> socket.socket:
            made = new_socket(address)
            self._sockets.add(made)
            return made

        return aiohttp.TCPConnector(socket_factory=remembered_socket)


class _ProgressWatch:
    """Ends a request that makes no progress: any progress grants it ``idle`` seconds more, within its whole time."""

    def __init__(self, limit: asyncio.Timeout, idle: float) -> None:
        self._limit = limit
        self._idle = idle
        self._end = limit.when() or 0.0
        self.progress()

    def progress(self) -> None:
        """Grant the request ``idle`` seconds from now."""
        self._limit.reschedule(min(asyncio.get_running_loop().time() + self._idle, self._end))

    async def over(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks of a body; each one that is sent is progress."""
        async for chunk in body:
            self.progress()
            yield chunk
        self.progress()


@contextlib.contextmanager
def _translated_timeout(method: str, url: URL) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        reason = timed_out(host_of(url))
        _log.debug("%s %s%s failed: %s", method, host_of(url), url.raw_path, reason)
        raise TransientError(reason) from None
