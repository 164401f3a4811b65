"""One HTTP request: with deadlines, bounds, and redirects that carry no credentials to another host.

Reasons name hosts, never URLs: those of blob stores are signed, and whoever reads one may use it.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from publisher.errors import UnavailableError
from publisher.net import response as answers
from publisher.net.http_errors import HttpRefusal, host_of, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from publisher.net.proxies import Proxies

_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_CHUNK = 1 << 18
_NAMES_KEPT = 300  # seconds that a host's address is remembered
_REFUSAL = HttpRefusal(
    UnavailableError,
    untrusted="if a private authority has signed it: SSL_CERT_FILE=FILE names the authorities that are trusted",
    plain="a registry that speaks plain http has to be named with --insecure-registry",
)


@dataclass(frozen=True)
class RegistryTimeouts:
    """How long things may take.

    Attributes:
        connect: seconds to connect.
        idle: seconds between two pieces of an answer.
        small: seconds for a whole small request.
        listing: seconds for all pages of a list of tags, all tries together.
        slowest: bytes per second; a blob may take ``small`` and what its size takes at this speed, all tries together.
    """

    connect: float = 15
    idle: float = 60
    small: float = 90
    listing: float = 900
    slowest: int = 100_000


class RegistryResponse(answers.HttpResponse):
    """An answer of a registry, or of whom it sent us to.

    Attributes:
        away: it is not the host that was asked, but one that it sent us to.
    """

    def __init__(self, response: aiohttp.ClientResponse, *, away: bool) -> None:
        super().__init__(response, _REFUSAL)
        self.away = away


class RegistryTransport:
    """Sends requests through one session; certificates are checked by the host's own authorities.

    Args:
        deadlines: how long everything may take.
        proxies: which requests go through which proxy.
    """

    def __init__(self, deadlines: RegistryTimeouts, proxies: Proxies) -> None:
        self._deadlines = deadlines
        self._proxies = proxies
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=_NAMES_KEPT),  # the client counts, per registry
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ospool-image-publisher", "Accept-Encoding": "identity"},
            auto_decompress=False,  # digests are of the bytes as they come
            read_bufsize=_CHUNK,
        )

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
        """Send a request and follow redirects; a request with a ``form`` (it holds secrets) is never redirected.

        Args:
            method: GET, HEAD, or POST with ``form``.
            url: where; plain http only if the caller wants it, and then redirects may be plain too.
            headers: ``Authorization`` is dropped for good by the first redirect to another scheme, host or port.
            form: fields of a POST.
            small: the deadline for small requests covers the whole answer.

        Raises:
            TransientError: no connection, or no answer in time.
            UnavailableError: certificates, or redirects without end or to places that are not followed.
        """
        limits = aiohttp.ClientTimeout(
            total=self._deadlines.small if small else None, connect=self._deadlines.connect, sock_read=self._deadlines.idle
        )
        sent, here, away = dict(headers), url, False
        for _ in range(_REDIRECTS + 1):
            response = await self._send(method, here, sent, form, limits)
            try:
                if response.status not in _MOVED or form is not None:
                    yield RegistryResponse(response, away=away)
                    return
                target = _target(here, response.headers.get("Location", ""), plain=url.scheme == "http")
            finally:
                response.release()  # closes the connection where the body was not read to its end
            if target.origin() != here.origin():
                sent.pop("Authorization", None)
                away = True
            here = target
        raise UnavailableError(f"{host_of(url)} redirects more than {_REDIRECTS} times")

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], form: Mapping[str, str] | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        proxy, shown = self._proxies.through(url), {}
        if proxy is not None and proxy.authorization is not None:
            shown = {"Proxy-Authorization": proxy.authorization}
        encrypted = url.scheme == "https"
        with translated(host_of(url), _REFUSAL, via="" if proxy is None else host_of(proxy.url)):
            return await self._session.request(
                method,
                url,
                headers=headers if encrypted else {**headers, **shown},  # a plain request is the proxy's to read
                data=form,
                allow_redirects=False,
                timeout=limits,
                ssl=self._authorities if encrypted or (proxy is not None and proxy.url.scheme == "https") else True,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=shown if encrypted else None,
            )

    @functools.cached_property
    def _authorities(self) -> ssl.SSLContext:
        """The system's, or those that SSL_CERT_FILE and SSL_CERT_DIR name now; aiohttp's own are those of its import."""
        return ssl.create_default_context()


def _target(here: URL, location: str, *, plain: bool) -> URL:
    """Where a redirect leads. ``encoded``: quoting a signed URL anew would break its signature."""
    try:
        target = here.join(URL(location, encoded=True))
        if not location or not target.host or target.scheme not in (("https", "http") if plain else ("https",)):
            raise ValueError  # noqa: TRY301 - one message for all that is not followed
        return target.with_user(None).with_fragment(None)
    except ValueError:
        raise UnavailableError(f"{host_of(here)} redirects to a place that is not followed (only https is)") from None
