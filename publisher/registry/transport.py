"""One request to a registry: with timeouts, bounds, and redirects that carry no credentials to another host.

Messages name hosts, never URLs: those of blob stores are signed, and whoever reads one may use it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import UnavailableError, UnknownHostError
from publisher.net.http_errors import HttpRefusal, host_of
from publisher.net.http_library import aiohttp
from publisher.net.http_session import HttpSession
from publisher.net.response import HttpResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp.abc import AbstractResolver

    from publisher.net.addresses import AddressPolicy
    from publisher.net.http_session import SocketFactory
    from publisher.net.proxies import Proxies

_MAX_REDIRECTS = 5
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_DNS_CACHE = 300  # seconds that a host's address is remembered
_REFUSAL = HttpRefusal(
    UnavailableError,
    untrusted="if a private authority has signed it, name that authority's certificate with SSL_CERT_FILE=FILE",
    plain="name a registry that serves plain http with --insecure-registry",
    unknown=UnknownHostError,
)


@dataclass(frozen=True)
class RegistryTimeouts:
    """How long requests to a registry may take.

    Attributes:
        connect: seconds to connect.
        idle: seconds between two pieces of a response.
        small: seconds for a whole small request.
        listing: seconds for all pages of a list of tags, retries included.
        slowest: bytes per second; a blob may take ``small`` plus the time for its size at this speed, retries included.
    """

    connect: float = 15
    idle: float = 60
    small: float = 90
    listing: float = 900
    slowest: int = 100_000


class RegistryResponse(HttpResponse):
    """A response of a registry, or of a host that the registry redirected the request to.

    Attributes:
        is_redirected: the response is not of the host that was asked.
    """

    def __init__(self, response: aiohttp.ClientResponse, *, is_redirected: bool) -> None:
        super().__init__(response, _REFUSAL)
        self.is_redirected = is_redirected


class RegistryTransport:
    """Sends requests to registries; certificates are checked by the host's own authorities.

    Args:
        timeouts: how long requests may take.
        proxies: which requests go through which proxy.
        policy: which addresses requests may be sent to.
        resolver: looks up the addresses of names; None for the host's own.
    """

    def __init__(
        self, timeouts: RegistryTimeouts, proxies: Proxies, policy: AddressPolicy, resolver: AbstractResolver | None = None
    ) -> None:
        self._timeouts = timeouts
        self._resolver = resolver
        self._session = HttpSession(proxies, _REFUSAL, self._connector, policy)

    def _connector(self, new_socket: SocketFactory) -> aiohttp.TCPConnector:
        """Return a connection pool without a limit: the client limits requests per registry."""
        return aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_CACHE, resolver=self._resolver, socket_factory=new_socket)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        form: Mapping[str, str] | None = None,
        small: bool = True,
    ) -> AsyncIterator[RegistryResponse]:
        """Send a request and follow redirects; a request with a ``form``, which contains secrets, is never redirected.

        Args:
            method: GET, HEAD, or POST with ``form``.
            url: where to send it; a redirect may lead to plain http only if this is plain http.
            headers: its headers; the first redirect to another scheme, host or port drops ``Authorization`` for good.
            form: the fields of a POST.
            small: whether the timeout for small requests covers the whole response.

        Raises:
            TransientError: no connection, or no response in time.
            UnavailableError: an untrusted certificate, too many redirects, or a redirect that is not followed.
        """
        timeouts = aiohttp.ClientTimeout(
            total=self._timeouts.small if small else None, connect=self._timeouts.connect, sock_read=self._timeouts.idle
        )
        sent, current, is_redirected = dict(headers), url, False
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._session.request(method, current, sent, body=form, timeouts=timeouts)
            try:
                if response.status not in _REDIRECT_STATUSES or form is not None:
                    yield RegistryResponse(response, is_redirected=is_redirected)
                    return
                target = _redirect_target(current, response.headers.get("Location", ""), plain=url.scheme == "http")
            finally:
                response.release()  # closes the connection if the body was not read to its end
            if target.origin() != current.origin():
                sent.pop("Authorization", None)
                is_redirected = True
            current = target
        raise UnavailableError(f"{host_of(url)} redirects more than {_MAX_REDIRECTS} times")


def _redirect_target(current: URL, location: str, *, plain: bool) -> URL:
    """Return where a redirect leads. It stays ``encoded``: quoting a signed URL anew would break its signature."""
    try:
        target = current.join(URL(location, encoded=True))
        if not location or not target.host or target.scheme not in (("https", "http") if plain else ("https",)):
            raise ValueError  # noqa: TRY301 - one message for every redirect that is not followed
        return target.with_user(None).with_fragment(None)
    except ValueError:
        raise UnavailableError(f"{host_of(current)} redirects to a URL that is not followed (only https is)") from None
