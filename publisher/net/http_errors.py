"""Failures of aiohttp in our words. They name hosts, never URLs: whoever reads a signed one, or a token in one, may use it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yarl import URL

    from publisher.errors import PublisherError

_SERVER_ERRORS = 500


@dataclass(frozen=True)
class HttpRefusal:
    """What a failure is that no further try mends.

    Attributes:
        error: its type.
        untrusted: the next step where a certificate is not trusted.
        plain: the next step where there is no TLS, None for none.
    """

    error: type[PublisherError]
    untrusted: str
    plain: str | None = None


def host_of(url: URL) -> str:
    """``host``, or ``host:port`` where the port is not the usual one."""
    host = f"[{url.host}]" if ":" in (url.host or "") else str(url.host)
    return host if url.is_default_port() else f"{host}:{url.port}"


@contextlib.contextmanager
def translated(host: str, refusal: HttpRefusal, via: str = "") -> Iterator[None]:
    """A block that sends or reads. ``from None``: aiohttp's texts may hold a URL.

    Args:
        host: who is asked.
        refusal: what is raised where another try does not help.
        via: the proxy between, ``""`` for none.

    Raises:
        TransientError: no connection, no answer in time, or it broke off.
        PublisherError: the refusal's: certificates, no TLS, no host name, or a proxy that does not want to.
    """
    try:
        yield
    except aiohttp.ClientConnectorCertificateError:
        raise refusal.error(f"{host} cannot be spoken to: its certificate is not trusted", hint=refusal.untrusted) from None
    except aiohttp.ClientSSLError:
        raise refusal.error(f"{host} cannot be spoken to: no TLS there", hint=refusal.plain) from None
    except aiohttp.ClientHttpProxyError as error:
        reason = f"the proxy {via} does not let us through to {host}: it answers {error.status}"
        raise (TransientError if error.status >= _SERVER_ERRORS else refusal.error)(reason) from None
    except aiohttp.ClientProxyConnectionError as error:
        raise TransientError(f"the proxy {via} cannot be reached: {_why(error)}") from None
    except UnicodeError:  # of the codec "idna": a part of the name is too long
        raise refusal.error(f"{host} cannot be found: that is no host name") from None
    except (TimeoutError, ConnectionError, aiohttp.ClientError) as error:
        raise TransientError(_reason(host, error)) from None


def _reason(host: str, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return late(host)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{host} cannot be found: its name has no address"
    if isinstance(error, aiohttp.ClientOSError | ConnectionError):
        return f"{host} cannot be reached: {_why(error)}"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return f"{host} broke off its answer"
    return f"{host} does not speak sound HTTP"


def late(host: str) -> str:
    """The reason of a deadline that passed."""
    return f"{host} did not answer in time"


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "no connection"
