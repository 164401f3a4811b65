"""One GET over HTTP: the one door to the network.

Proxies are those of the environment (``http_proxy``, ``https_proxy``, ``no_proxy``), authorities those of the system or
``SSL_CERT_FILE``, and the setting ``ca`` besides. A redirect leads to http and https and nowhere else, not from https to http,
and takes no token along to another host. Nothing that is said names a query: there may be a token in it.
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
_MOST_REDIRECTS = 5
_SHORTEST = 0.1  # seconds of a socket's time-out: 0 would mean something else
_AGENT = "image-resolver"
_KINDS = {401: AccessDeniedError, 403: AccessDeniedError, 404: AbsentError, 410: AbsentError, 416: CorruptError}


@contextlib.contextmanager
def got(
    address: str,
    network: NetworkOptions,
    *,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    pace: TransferDeadline | None = None,
    follow: bool = True,
) -> Iterator[HTTPResponse]:
    """The response to a GET, whatever its status is.

    Args:
        address: of http or https.
        network: how the network is used.
        headers: of the request.
        token: a bearer token for this very host, and only over TLS.
        pace: ends it when it takes too long, also while it is being read.
        follow: whether redirects are followed.

    Raises:
        FetchError: it cannot be had, broke off (also while it is read), or leads in a circle or elsewhere.
    """
    with contextlib.ExitStack() as stack:
        response = _asked(stack, address, network, headers=headers or {}, token=token, pace=pace)
        for _ in range(_MOST_REDIRECTS if follow else 0):
            to = response.headers.get("Location")
            if response.status not in _REDIRECTS or to is None:
                break
            following = urllib.parse.urljoin(address, to)
            if following == address:
                break
            before, after = _host(address), _host(following)
            if (before[0], after[0]) == ("https", "http"):
                raise FetchError("redirected from https to http")
            if after != before:
                token = None
            address = following
            stack.close()
            response = _asked(stack, address, network, headers=headers or {}, token=token, pace=pace)
        if follow and response.status in _REDIRECTS:
            raise FetchError(f"redirected without end (status {response.status})")
        yield response


def status_error(status: int, reason: str) -> FetchError:
    """What a status that is no success means."""
    return _KINDS.get(status, FetchError)(f"status {status} {reason}".rstrip())


def _asked(
    stack: contextlib.ExitStack,
    address: str,
    network: NetworkOptions,
    *,
    headers: Mapping[str, str],
    token: str | None,
    pace: TransferDeadline | None,
) -> HTTPResponse:
    stack.enter_context(_explained())
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError("leads to something that is not http")
    connection, target, more = _connection(parts, network)
    stack.callback(connection.close)
    connection._create_connection = _connecting(stack, network, pace)  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to see the socket before a proxy or TLS has a say
    if token is not None and parts.scheme == "https":
        more["Authorization"] = f"Bearer {token}"
    connection.request("GET", target, headers={"User-Agent": _AGENT, "Connection": "close", **headers, **more})
    response = connection.getresponse()
    stack.callback(response.close)
    return response


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, http.client.InvalidURL) or not isinstance(error, (OSError, http.client.HTTPException)):
            raise FetchError("leads to something that is no URL") from None  # it repeats what it finds wrong, query and all
        raise FetchError(str(getattr(error, "strerror", "") or error) or type(error).__name__) from None


def _connecting(
    stack: contextlib.ExitStack, network: NetworkOptions, pace: TransferDeadline | None
) -> Callable[..., socket.socket]:
    """As ``socket.create_connection``; what it connects is watched from the first byte on."""

    def connect(address: tuple[str, int], *_: Any) -> socket.socket:
        connected = _connected(socket.getaddrinfo(*address, 0, socket.SOCK_STREAM), network, pace)
        if pace is not None:
            stack.enter_context(_watched(Watchdog(pace, connected.dup())))
        return connected

    return connect


@contextlib.contextmanager
def _watched(watch: Watchdog) -> Iterator[None]:
    """What fails because the watch ended it fails for the watch's reason, also if it looks like an early end."""
    with watch:
        try:
            yield
        except (OSError, ValueError, http.client.HTTPException):
            if watch.problem is None:
                raise
    if watch.problem is not None:
        raise FetchError(watch.problem)


def _connected(addresses: Sequence[Any], network: NetworkOptions, pace: TransferDeadline | None) -> socket.socket:
    """A connection to the first address that takes one; each has its share of the time that is left.

    Args:
        addresses: as ``socket.getaddrinfo`` gives them.
        network: how the network is used.
        pace: says how much time is left.

    Raises:
        OSError: none takes one, or not in time.
    """
    problem = OSError("its name has no address")
    for number, address in enumerate(addresses):
        left = math.inf if pace is None else pace.left()
        if left <= 0:
            raise TimeoutError("timed out")
        try:
            connected = _tried(address, min(network.silence, left / (len(addresses) - number)))
        except OSError as error:
            problem = error
            continue
        connected.settimeout(network.silence if pace is None else max(_SHORTEST, min(network.silence, pace.left())))
        return connected
    raise problem


def _tried(address: Any, timeout: float) -> socket.socket:
    family, kind, protocol, _, where = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(timeout)
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection


def _connection(parts: SplitResult, network: NetworkOptions) -> tuple[HTTPConnection, str, dict[str, str]]:
    """A connection that does not stand yet, what is asked of it, and headers that a proxy wants."""
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    proxy = _proxy(parts)
    host, port = parts.hostname, parts.port
    if proxy is None:
        if parts.scheme == "https":
            return http.client.HTTPSConnection(str(host), port, context=_tls(network)), target, {}
        return http.client.HTTPConnection(str(host), port), target, {}
    if not proxy.hostname:
        raise FetchError("the environment names no usable proxy")
    rights = _proxy_rights(proxy)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(proxy.hostname, proxy.port, context=_tls(network))
        connection.set_tunnel(str(host), port, rights)
        return connection, target, {}
    whole = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))
    return http.client.HTTPConnection(proxy.hostname, proxy.port), whole, rights


def _proxy(parts: SplitResult) -> SplitResult | None:
    proxies = urllib.request.getproxies_environment()
    text = proxies.get(parts.scheme) or proxies.get("all")
    if not text or urllib.request.proxy_bypass_environment(parts.netloc, proxies):  # type: ignore[attr-defined]  # not in the stubs
        return None
    return urllib.parse.urlsplit(text if "://" in text else f"http://{text}")


def _proxy_rights(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _tls(network: NetworkOptions) -> ssl.SSLContext:
    if network.tls is None:
        network.tls = ssl.create_default_context()
        network.tls.set_alpn_protocols(["http/1.1"])
        if network.ca:
            where = "capath" if os.path.isdir(network.ca) else "cafile"
            try:
                network.tls.load_verify_locations(**{where: network.ca})
            except OSError as error:
                network.tls = None
                raise FetchError(f"the authorities in {network.ca} cannot be read: {error.strerror}") from None
    return network.tls


def _host(address: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme, parts.netloc
