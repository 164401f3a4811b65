"""Failures of aiohttp as this program's errors. Messages name hosts, never URLs, which may be signed or contain a token."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.net.addresses import RefusedAddressError
from publisher.net.http_library import aiohttp
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from yarl import URL

    from publisher.errors import PublisherError

_log = logging.getLogger(__name__)
_SERVER_ERRORS = 500


@dataclass(frozen=True)
class HttpRefusal:
    """What to raise for a failure that a retry cannot fix.

    Attributes:
        error: the type of the error.
        untrusted: the hint if a certificate is not trusted.
        plain: the hint if the host does not speak TLS, None for no hint.
        unknown: makes the error from the name of a host that does not exist; None if that is worth a retry.
    """

    error: type[PublisherError]
    untrusted: str
    plain: str | None = None
    unknown: Callable[[str], PublisherError] | None = None


def host_of(url: URL) -> str:
    """Return ``host``, or ``host:port`` if the port is not the default of the URL's scheme."""
    host = f"[{url.host}]" if ":" in (url.host or "") else str(url.host)
    return host if url.is_default_port() else f"{host}:{url.port}"


@contextlib.contextmanager
def translated(host: str, refusal: HttpRefusal, via: str = "", *, discreet: bool = False) -> Iterator[None]:
    """Translate the exceptions of a block that sends or reads.

    Args:
        host: the host that the request goes to.
        refusal: what to raise if a retry cannot help.
        via: the proxy between, ``""`` if there is none.
        discreet: whether the errors do not say what happened to the connection.

    Raises:
        TransientError: there was no connection or no answer in time, or the answer broke off.
        PublisherError: (the class of ``refusal``) bad certificate, no TLS, invalid host name, an address that is not allowed, or
            the proxy refuses; and what ``refusal.unknown`` makes.
    """
    try:
        yield
    except (TimeoutError, ConnectionError, RefusedAddressError, UnicodeError, aiohttp.ClientError) as error:
        _log.debug("%s: %s", host, type(error).__name__, extra={"host": host, "via": via})
        if isinstance(getattr(error, "os_error", error), RefusedAddressError):
            raise refusal.error(
                f"{host} has no public address, so no request is sent to it",
                hint="if requests may be sent there, the operator names its network in allowed_networks",
            ) from None
        if discreet and not isinstance(error, UnicodeError | aiohttp.ClientConnectorDNSError):
            raise TransientError(f"{host} gave no usable answer") from None
        raise _translation(host, refusal, via, error) from None  # aiohttp's texts may contain a URL


def _translation(host: str, refusal: HttpRefusal, via: str, error: Exception) -> Exception:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return refusal.error(f"{host} has a certificate that is not trusted", hint=refusal.untrusted)
    if isinstance(error, aiohttp.ClientSSLError):
        return refusal.error(f"{host} does not accept a TLS connection", hint=refusal.plain)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        reason = f"the proxy {via} refuses the connection to {host} with status {error.status}"
        return TransientError(reason) if error.status >= _SERVER_ERRORS else refusal.error(reason)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return TransientError(f"the proxy {via} cannot be reached: {_cause(error)}")
    if isinstance(error, UnicodeError):  # of the codec "idna": a part of the name is too long
        return refusal.error(f"{host} cannot be found: it is not a valid host name")
    return refusal.unknown(host) if refusal.unknown and _is_unknown(error) else TransientError(_transient_reason(host, error))


def _is_unknown(error: Exception) -> bool:
    """Return whether the name servers say that a name does not exist; one that does not answer says nothing."""
    return isinstance(error, aiohttp.ClientConnectorDNSError) and error.os_error.errno == socket.EAI_NONAME


def _transient_reason(host: str, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return timed_out(host)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{host} cannot be found: its name has no address"
    if isinstance(error, aiohttp.ClientOSError | ConnectionError):
        return f"{host} cannot be reached: {_cause(error)}"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return f"{host} broke off its answer"
    return f"{host} does not speak valid HTTP"


def timed_out(host: str) -> str:
    """Return the reason of a request whose deadline passed."""
    return f"{host} did not answer in time"


def _cause(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "no connection"
