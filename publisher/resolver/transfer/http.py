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
_STATUS_ERRORS = {401: AccessDeniedError, 403: AccessDeniedError, 404: AbsentError, 410: AbsentError, 416: CorruptError}


@contextlib.contextmanager
def get(
    address: str,
    network: NetworkOptions,
    *,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    deadline: TransferDeadline | None = None,
    follow: bool = True,
) -> Iterator[HTTPResponse]:
    """Yield the response to a GET request, whatever its status is.

    Args:
        address: URL with http or https.
        network: how the network is used.
        headers: headers of the request.
        token: a bearer token for the host of the URL; it is sent over TLS only.
        deadline: ends a slow request, also while the response is being read.
        follow: follow redirects.

    Raises:
        FetchError: the request failed, the response broke off (also while it is read), or a redirect loops or is not allowed.
    """
    with contextlib.ExitStack() as stack:
        response = _send(stack, address, network, headers=headers or {}, token=token, deadline=deadline)
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
            stack.close()
            response = _send(stack, address, network, headers=headers or {}, token=token, deadline=deadline)
        if follow and response.status in _REDIRECTS:
            raise FetchError(f"too many redirects (status {response.status})")
        yield response


def status_error(status: int, reason: str) -> FetchError:
    """Return the error for a status that is not a success."""
    return _STATUS_ERRORS.get(status, FetchError)(f"status {status} {reason}".rstrip())


def _send(
    stack: contextlib.ExitStack,
    address: str,
    network: NetworkOptions,
    *,
    headers: Mapping[str, str],
    token: str | None,
    deadline: TransferDeadline | None,
) -> HTTPResponse:
    """Send one request and return its response; ``stack`` closes the connection."""
    stack.enter_context(_as_fetch_errors())
    url = urllib.parse.urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise FetchError("the URL is not http or https")
    connection, target, more_headers = _connection(url, network)
    stack.callback(connection.close)
    connection._create_connection = _connector(stack, network, deadline)  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to see the socket before a proxy or TLS uses it
    if token is not None and url.scheme == "https":
        more_headers["Authorization"] = f"Bearer {token}"
    connection.request("GET", target, headers={"User-Agent": _USER_AGENT, "Connection": "close", **headers, **more_headers})
    response = connection.getresponse()
    stack.callback(response.close)
    log.debug("GET %s://%s%s: status %d %s", url.scheme, url.netloc, url.path, response.status, response.reason)
    return response


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
        try:
            connection = _connect(address, min(network.silence, left / (len(addresses) - number)))
        except OSError as error:
            log.debug("cannot connect to %s: %s", address[4][0], error)
            problem = error
            continue
        connection.settimeout(network.silence if deadline is None else max(_MIN_TIMEOUT, min(network.silence, deadline.left())))
        return connection
    raise problem


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
