"""The HTTP session that registries and origins share: no cookies, redirects or decompression, own proxies, allowed addresses.

Nothing logged or raised here contains a query, a header or a password: signed URLs and tokens must not reach a log.
"""

from __future__ import annotations

import functools
import logging
import ssl
import time
from typing import TYPE_CHECKING

from publisher.contract.errors import os_reason
from publisher.errors import PublisherError
from publisher.net.addresses import any_socket
from publisher.net.http_errors import HttpRefusal, host_of, translated
from publisher.net.http_library import aiohttp
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from yarl import URL

    from publisher.net.addresses import AddressPolicy
    from publisher.net.proxies import Proxies

    SocketFactory = Callable[[aiohttp.AddrInfoType], socket.socket]

READ_BUFFER = 1 << 18
"""Bytes of a response that are buffered; a read returns at most twice as many."""

_log = logging.getLogger(__name__)


class HttpSession:
    """Sends single requests; the first of them opens the session, which then belongs to its event loop.

    Args:
        proxies: which requests go through which proxy.
        refusal: the errors to raise for failures that a retry does not fix.
        connector: makes a connection pool whose sockets are made by a function.
        policy: which addresses requests may be sent to.
        ca_file: PEM file of certificate authorities that are trusted besides the host's own; None for none.
    """

    def __init__(
        self,
        proxies: Proxies,
        refusal: HttpRefusal,
        connector: Callable[[SocketFactory], aiohttp.TCPConnector],
        policy: AddressPolicy,
        ca_file: Path | None = None,
    ) -> None:
        self._proxies = proxies
        self._refusal = refusal
        self._connector = connector
        self._policy = policy
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._ca_file = ca_file

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def request(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: Mapping[str, str] | AsyncIterator[bytes] | bytes | None = None,
        timeouts: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request and return its response, whose body is still to be read; the caller releases it.

        Args:
            method: the HTTP or WebDAV method.
            url: where to send it.
            headers: its headers.
            body: the fields of a form, a body, or the pieces of one.
            timeouts: for connecting, between two pieces, and for the whole; None for none.

        Raises:
            TransientError: no connection, no response in time, or the connection broke off.
            PublisherError: of the type in the refusal: an untrusted certificate, no TLS, an invalid host name, an address that is
                not allowed, or a proxy that refuses.
        """
        proxy, credentials = self._proxies.through(url), {}
        if proxy is not None and proxy.authorization is not None:
            credentials = {"Proxy-Authorization": proxy.authorization}
        is_encrypted = url.scheme == "https"
        uses_tls = is_encrypted or (proxy is not None and proxy.url.scheme == "https")
        host, start = host_of(url), time.monotonic()
        try:
            via, discreet = "" if proxy is None else host_of(proxy.url), self._policy.is_discreet(url)
            with translated(host, self._refusal, via, discreet=discreet):
                if proxy is not None:
                    self._policy.check_literal(url)  # the proxy looks up names
                session = self._session(guarded=proxy is None and not self._policy.is_configured(url))
                response = await session.request(
                    method,
                    url,
                    headers=headers if is_encrypted else {**headers, **credentials},  # the proxy reads plain requests
                    data=body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout() if timeouts is None else timeouts,
                    ssl=self._ssl_context if uses_tls else True,
                    proxy=None if proxy is None else proxy.url,
                    proxy_headers=credentials if is_encrypted else None,
                )
        except (TransientError, PublisherError) as error:
            _log.debug("%s %s%s failed after %.0f ms: %s", method, host, url.raw_path, _ms_since(start), error)
            raise
        _log.debug("%s %s%s: status %d after %.0f ms", method, host, url.raw_path, response.status, _ms_since(start))
        return response

    def _session(self, *, guarded: bool) -> aiohttp.ClientSession:
        """Return the session whose connections the policy guards, or the one for proxies and for servers that are configured."""
        if guarded not in self._sessions:
            self._sessions[guarded] = self._new_session(self._policy.new_socket if guarded else any_socket)
        return self._sessions[guarded]

    def _new_session(self, new_socket: SocketFactory) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector(new_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ospool-image-publisher", "Accept-Encoding": "identity"},
            auto_decompress=False,  # digests are of the bytes as they come
            read_bufsize=READ_BUFFER,
        )

    @functools.cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        """The host's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name now; aiohttp's own are read at its import."""
        context = ssl.create_default_context()
        if self._ca_file is not None:
            try:
                context.load_verify_locations(self._ca_file)
            except OSError as error:  # SSLError is one
                raise self._refusal.error(
                    f"{self._ca_file} contains no readable certificates: {os_reason(error, str(self._ca_file))}"
                ) from None
        return context


def _ms_since(start: float) -> float:
    return 1000 * (time.monotonic() - start)
