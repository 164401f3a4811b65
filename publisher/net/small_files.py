"""Small requests for callers without an event loop: a file is fetched, or a text posted, at an allowed address only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from yarl import URL

from publisher.net.http_library import aiohttp
from publisher.net.http_session import HttpSession
from publisher.net.proxies import Proxies
from publisher.net.response import HttpResponse
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.abc import AbstractResolver

    from publisher.net.addresses import AddressPolicy
    from publisher.net.http_errors import HttpRefusal
    from publisher.net.http_session import SocketFactory

    Resolver = AbstractResolver


class SmallFiles:
    """Fetches small files, and posts small texts. No redirect is followed, and nothing is tried again.

    Args:
        refusal: the errors to raise.
        policy: which addresses requests may be sent to.
        proxies: the proxies of the environment, as :class:`Proxies` takes them.
        timeout: seconds for one request.
        resolver: looks up the addresses of names; None for the host's own.
    """

    def __init__(
        self,
        refusal: HttpRefusal,
        policy: AddressPolicy,
        *,
        proxies: Mapping[str, str],
        timeout: float = 20.0,
        resolver: Resolver | None = None,
    ) -> None:
        self._refusal = refusal
        self._policy = policy
        self._proxies = Proxies(proxies)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._resolver = resolver

    def get(self, url: str, limit: int) -> tuple[int, bytes]:
        """Return the status of the response for a URL, and its body.

        Raises:
            PublisherError: of the type in the refusal: the address is not allowed, there is no response in time, or it has more
                than ``limit`` bytes.
            ValueError: the text is not the URL of a server.
        """
        return self._run("GET", url, {}, None, limit)

    def post(self, url: str, headers: Mapping[str, str], content: bytes, limit: int) -> tuple[int, bytes]:
        """Post a body to a URL; return the status of the response, and its body. Raises as :meth:`get`."""
        return self._run("POST", url, headers, content, limit)

    def _run(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, limit: int) -> tuple[int, bytes]:
        parsed = URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise ValueError("not the URL of a server")
        try:
            return asyncio.run(self._request(method, parsed, headers, content, limit))
        except TransientError as error:
            raise self._refusal.error(error.reason) from None

    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], content: bytes | None, limit: int
    ) -> tuple[int, bytes]:
        session = HttpSession(self._proxies, self._refusal, self._connector, self._policy)
        try:
            response = await session.request(method, url, headers, body=content, timeouts=self._timeout)
            try:
                return response.status, await HttpResponse(response, self._refusal).body(limit)
            finally:
                response.release()
        finally:
            await session.close()

    def _connector(self, new_socket: SocketFactory) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(resolver=self._resolver, socket_factory=new_socket)
