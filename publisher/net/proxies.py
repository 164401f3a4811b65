"""HTTP proxies from the environment: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, also in lower case.

This module replaces aiohttp's ``trust_env``, which also reads ``~/.netrc`` and would send its passwords to registries.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Proxy:
    """A proxy: its URL, and the value of the ``Proxy-Authorization`` header (None if it needs no credentials)."""

    url: URL
    authorization: str | None = field(default=None, repr=False)


class Proxies:
    """The rules that choose a proxy for a request.

    Args:
        variables: scheme -> URL, and ``no`` -> hosts and networks, as :func:`urllib.request.getproxies_environment` returns them.

    Raises:
        UsageError: a variable is not the URL of a proxy; its value is not printed because it may contain a password.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._networks = [
            network for text in variables.get("no", "").split(",") if (network := _network(text.strip())) is not None
        ]
        self._proxies = {scheme: _proxy(scheme, variables[scheme]) for scheme in ("http", "https") if variables.get(scheme)}

    def through(self, url: URL) -> Proxy | None:
        """Return the proxy for a URL, None for a direct connection; this host itself is always reached directly."""
        proxy = self._proxies.get(url.scheme)
        if proxy is None or url.host is None or self._is_direct(url.host):
            return None
        return None if self._is_excepted(f"{url.host}:{url.port}", self._variables) else proxy

    def _is_direct(self, host: str) -> bool:
        """Return whether a host is this one, or an address in a network of NO_PROXY (10.0.0.0/8), as Go and curl read it."""
        if host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self._networks)

    @staticmethod
    def _is_excepted(host: str, variables: Mapping[str, str]) -> bool:
        """Return whether NO_PROXY names a host."""
        return bool(urllib.request.proxy_bypass_environment(host, variables))  # type: ignore[attr-defined]  # typeshed lacks it


def _proxy(scheme: str, text: str) -> Proxy:
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise UsageError(f"{scheme.upper()}_PROXY in the environment is not the URL of a proxy", hint="write http://HOST:PORT")
    authorization = None
    if url.user is not None:
        authorization = "Basic " + base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode("ascii")
    return Proxy(url.origin(), authorization)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
