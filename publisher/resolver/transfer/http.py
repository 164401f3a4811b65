"""GET requests over HTTP; no other module of the resolver opens a connection to the network.

Proxies come from the environment (``http_proxy``, ``https_proxy``, ``no_proxy``). Trusted authorities are those of the system or
``SSL_CERT_FILE``, and those of the setting ``ca``. Redirects are followed to http and https only, never from https to http, and a
token is not sent to another host. No message has the query of a URL, since there may be a token in it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import math
import os
import socket
import ssl
import time
import urllib.parse
import urllib.request

from publisher.resolver.errors import AbsentError, AccessDeniedError, CorruptError, FetchError
from publisher.resolver.system import log
from publisher.resolver.transfer.watchdog import Watchdog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from http.client import HTTPConnection, HTTPResponse
    from typing import Any
    from urllib.parse import SplitResult

    from publisher.resolver.transfer.sources import NetworkOptions
    from publisher.resolver.transfer.watchdog import TransferDeadline

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MIN_TIMEOUT = 0.1  # seconds; 0 would make the socket non-blocking
_USER_AGENT = "image-resolver"
_MAX_REDIRECT_BODY = 1 << 16  # bytes of a redirect that are read so that its connection can be used again
_STALE = (ConnectionError, http.client.BadStatusLine, http.client.NotConnected, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What a kept connection fails with if the server has closed it meanwhile."""
_BUSY = (429, 503)
_LONGEST_RETRY = 900.0  # seconds that a busy server is left alone for at most
_STATUS_ERRORS = {401: AccessDeniedError, 403: AccessDeniedError, 404: AbsentError, 410: AbsentError, 416: CorruptError}


class KeptConnections:
    """Connections that stay open after a response that was read to its end: one for each server."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], tuple[HTTPConnection, socket.socket]] = {}
        self._free: set[tuple[str, str]] = set()

    def add(self, origin: tuple[str, str], connection: HTTPConnection, duplicate: socket.socket) -> None:
        """Keep a new connection, and a duplicate of its socket, which TLS leaves alone; it is in use."""
        self.drop(origin)
        self._open[origin] = (connection, duplicate)

    def take(self, origin: tuple[str, str]) -> tuple[HTTPConnection, socket.socket] | None:
        """Return the free connection to a server, with the duplicate of its socket; it is in use then. None without one."""
        if origin not in self._free:
            return None
        self._free.discard(origin)
        return self._open[origin]

    def release(self, origin: tuple[str, str], response: HTTPResponse) -> None:
        """Make a connection free if it can be used again after this response."""
        if origin in self._open and response.isclosed() and not response.will_close:
            self._free.add(origin)

    def drop_used(self, origin: tuple[str, str]) -> None:
        """Close a connection that was not released."""
        if origin not in self._free:
            self.drop(origin)

    def drop(self, origin: tuple[str, str]) -> None:
        """Close the connection to a server, if there is one."""
        self._free.discard(origin)
        for each in self._open.pop(origin, ()):
            each.close()

    def close(self) -> None:
        """Close all connections."""
        for origin in tuple(self._open):
            self.drop(origin)


@contextlib.contextmanager
def get(
    address: str,
    network: NetworkOptions,
    *,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    deadline: TransferDeadline | None = None,
    follow: bool = True,
    kept: KeptConnections | None = None,
) -> Iterator[HTTPResponse]:
    """Yield the response to a GET request, whatever its status is.

    Args:
        address: URL with http or https.
        network: how the network is used.
        headers: headers of the request.
        token: a bearer token for the host of the URL; it is sent over TLS only.
        deadline: ends a slow request, also while the response is being read.
        follow: follow redirects.
        kept: connections to use and to keep; None to close each connection.

    Raises:
        FetchError: the request failed, the response broke off (also while it is read), or a redirect loops or is not allowed.
    """
    with contextlib.ExitStack() as stack:
        response = _send(stack, address, network, headers=headers or {}, token=token, deadline=deadline, kept=kept)
        for _ in range(_MAX_REDIRECTS if follow else 0):
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                break
            target = urllib.parse.urljoin(address, location)
            if target == address:
                break
            origin, target_origin = _origin(address), _origin(target)
            if (origin[0], target_origin[0]) == ("https", "http"):
                raise FetchError("redirected from https to http")
            if target_origin != origin:
                token = None
            address = target
            if kept is not None:
                response.read(_MAX_REDIRECT_BODY)
                kept.release(origin, response)
            stack.close()
            response = _send(stack, address, network, headers=headers or {}, token=token, deadline=deadline, kept=kept)
        if follow and response.status in _REDIRECTS:
            raise FetchError(f"too many redirects (status {response.status})")
        yield response
        if kept is not None:
            kept.release(_origin(address), response)


def status_error(status: int, reason: str, retry_after: str | None = None) -> FetchError:
    """Return the error for a status that is not a success; ``retry_after`` is the header ``Retry-After``, if there is one."""
    error = _STATUS_ERRORS.get(status, FetchError)(f"status {status} {reason}".rstrip())
    if status in _BUSY and retry_after is not None:
        error.retry_after = _seconds(retry_after)
    return error


def _seconds(header: str) -> float:
    """Return the seconds of ``Retry-After``, a number or a date (RFC 9110, section 10.2.3); 0 if it is neither."""
    if header.isascii() and header.isdigit():
        return min(float(header), _LONGEST_RETRY)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - caches send a number

    try:
        return min(max(0.0, parsedate_to_datetime(header).timestamp() - time.time()), _LONGEST_RETRY)
    except (TypeError, ValueError):  # TypeError: Python 3.9
        return 0.0


def _send(
    stack: contextlib.ExitStack,
    address: str,
    network: NetworkOptions,
    *,
    headers: Mapping[str, str],
    token: str | None,
    deadline: TransferDeadline | None,
    kept: KeptConnections | None,
) -> HTTPResponse:
    """Send one request and return its response; ``stack`` closes the connection, unless it is kept."""
    stack.enter_context(_as_fetch_errors())
    url = urllib.parse.urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise FetchError("the URL is not http or https")
    connection, target, more_headers = _connection(url, network)
    if token is not None and url.scheme == "https":
        more_headers["Authorization"] = f"Bearer {token}"
    if kept is None:
        more_headers["Connection"] = "close"
    headers = {"User-Agent": _USER_AGENT, **headers, **more_headers}
    response = None if kept is None else _send_again(stack, kept, _origin(address), (target, headers), network, deadline=deadline)
    if response is None:
        connect = _connector(stack, network, deadline)
        if kept is None:
            stack.callback(connection.close)
        else:
            stack.callback(kept.drop_used, _origin(address))
            connect = _keeping(connect, kept, _origin(address), connection)
        connection._create_connection = connect  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to see the socket before a proxy or TLS uses it
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
    stack.callback(response.close)
    log.debug("GET %s://%s%s: status %d %s", url.scheme, url.netloc, url.path, response.status, response.reason)
    return response


def _send_again(
    stack: contextlib.ExitStack,
    kept: KeptConnections,
    origin: tuple[str, str],
    request: tuple[str, dict[str, str]],
    network: NetworkOptions,
    *,
    deadline: TransferDeadline | None,
) -> HTTPResponse | None:
    """Send a request, target and headers, through a kept connection; return None if there is none that works."""
    found = kept.take(origin)
    if found is None:
        return None
    connection, duplicate = found
    stack.callback(kept.drop_used, origin)
    if deadline is not None:
        connection.sock.settimeout(_timeout(network, deadline))
        stack.enter_context(_watched(Watchdog(deadline, duplicate.dup())))
    try:
        connection.request("GET", request[0], headers=request[1])
        return connection.getresponse()
    except _STALE as error:
        log.debug("a kept connection to %s cannot be used any more: %s", origin[1], error)
        return None


def _keeping(
    connect: Callable[..., socket.socket], kept: KeptConnections, origin: tuple[str, str], connection: HTTPConnection
) -> Callable[..., socket.socket]:
    """Return a function like ``connect`` whose connection is kept."""

    def connect_and_keep(address: tuple[str, int], *rest: Any) -> socket.socket:
        made = connect(address, *rest)
        connection.auto_open = 0  # of http.client: once it is closed, another one is made
        kept.add(origin, connection, made.dup())
        return made

    return connect_and_keep


@contextlib.contextmanager
def _as_fetch_errors() -> Iterator[None]:
    """Turn the errors of sockets and of http.client into FetchErrors."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, http.client.InvalidURL) or not isinstance(error, (OSError, http.client.HTTPException)):
            raise FetchError("the URL is not valid") from None  # the original message repeats the URL with its query
        raise FetchError(str(getattr(error, "strerror", "") or error) or type(error).__name__) from None


def _connector(
    stack: contextlib.ExitStack, network: NetworkOptions, deadline: TransferDeadline | None
) -> Callable[..., socket.socket]:
    """Return a replacement of ``socket.create_connection``; the watchdog watches its connection from the first byte on."""

    def connect(address: tuple[str, int], *_: Any) -> socket.socket:
        connection = _connect_any(socket.getaddrinfo(*address, 0, socket.SOCK_STREAM), network, deadline)
        if deadline is not None:
            stack.enter_context(_watched(Watchdog(deadline, connection.dup())))
        return connection

    return connect


@contextlib.contextmanager
def _watched(watchdog: Watchdog) -> Iterator[None]:
    """Raise FetchError with the watchdog's reason if it ended the connection, even if that looks like an early end."""
    with watchdog:
        try:
            yield
        except (OSError, ValueError, http.client.HTTPException):
            if watchdog.problem is None:
                raise
    if watchdog.problem is not None:
        raise FetchError(watchdog.problem)


def _connect_any(addresses: Sequence[Any], network: NetworkOptions, deadline: TransferDeadline | None) -> socket.socket:
    """Connect to the first address that accepts; each address gets its share of the time that is left.

    Args:
        addresses: results of ``socket.getaddrinfo``.
        network: how the network is used.
        deadline: limits the time.

    Raises:
        OSError: no address accepts in time.
    """
    problem = OSError("the host name has no address")
    for number, address in enumerate(addresses):
        left = math.inf if deadline is None else deadline.left()
        if left <= 0:
            raise TimeoutError("timed out")
        begun = time.monotonic()
        try:
            connection = _connect(address, min(network.silence, left / (len(addresses) - number)))
        except OSError as error:
            log.debug("cannot connect to %s: %s", address[4][0], error)
            problem = error
            continue
        network.round_trip = min(network.round_trip or math.inf, time.monotonic() - begun)
        connection.settimeout(_timeout(network, deadline))
        return connection
    raise problem


def _timeout(network: NetworkOptions, deadline: TransferDeadline | None) -> float:
    """Return the seconds without a byte after which a request fails."""
    return network.silence if deadline is None else max(_MIN_TIMEOUT, min(network.silence, deadline.left()))


def _connect(address: Any, timeout: float) -> socket.socket:
    """Connect to one result of ``socket.getaddrinfo``."""
    family, kind, protocol, _, socket_address = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(timeout)
        connection.connect(socket_address)
    except OSError:
        connection.close()
        raise
    return connection


def _connection(url: SplitResult, network: NetworkOptions) -> tuple[HTTPConnection, str, dict[str, str]]:
    """Return a connection that is not yet open, the target of the request line, and headers for a proxy."""
    target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
    proxy = _proxy(url)
    host, port = url.hostname, url.port
    if proxy is None:
        if url.scheme == "https":
            return http.client.HTTPSConnection(str(host), port, context=_tls(network)), target, {}
        return http.client.HTTPConnection(str(host), port), target, {}
    if not proxy.hostname:
        raise FetchError("the proxy in the environment has no host name")
    authorization = _proxy_authorization(proxy)
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(proxy.hostname, proxy.port, context=_tls(network))
        connection.set_tunnel(str(host), port, authorization)
        return connection, target, {}
    absolute = urllib.parse.urlunsplit((url.scheme, url.netloc, url.path or "/", url.query, ""))
    return http.client.HTTPConnection(proxy.hostname, proxy.port), absolute, authorization


def _proxy(url: SplitResult) -> SplitResult | None:
    """Return the URL of the proxy for a URL, or None if there is none."""
    proxies = urllib.request.getproxies_environment()
    text = proxies.get(url.scheme) or proxies.get("all")
    if not text or urllib.request.proxy_bypass_environment(url.netloc, proxies):  # type: ignore[attr-defined]  # not in the stubs
        return None
    return urllib.parse.urlsplit(text if "://" in text else f"http://{text}")


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    """Return the headers that authorize at a proxy, empty if its URL has no user."""
    if proxy.username is None:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _tls(network: NetworkOptions) -> ssl.SSLContext:
    """Return the TLS context of all connections, created at the first call."""
    if network.tls is None:
        network.tls = ssl.create_default_context()
        network.tls.set_alpn_protocols(["http/1.1"])
        if network.ca:
            argument = "capath" if os.path.isdir(network.ca) else "cafile"
            try:
                network.tls.load_verify_locations(**{argument: network.ca})
            except OSError as error:
                network.tls = None
                raise FetchError(f"cannot read the certificates in {network.ca}: {error.strerror}") from None
    return network.tls


def _origin(address: str) -> tuple[str, str]:
    """Return the scheme and the host with port of a URL."""
    url = urllib.parse.urlsplit(address)
    return url.scheme, url.netloc
