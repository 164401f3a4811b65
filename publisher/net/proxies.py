"""HTTP proxies as the environment names them: HTTPS_PROXY, HTTP_PROXY, NO_PROXY, in small letters too.

Not by aiohttp's ``trust_env``: that reads ``~/.netrc`` as well, and would show its passwords to registries.
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
    """A proxy: where it is, and the value of its ``Proxy-Authorization`` header, None where it wants none."""

    url: URL
    authorization: str | None = field(default=None, repr=False)


class Proxies:
    """Which requests go through which proxy.

    Args:
        named: scheme -> URL, and ``no`` -> hosts and networks, as :func:`urllib.request.getproxies_environment` reads them.

    Raises:
        UsageError: what is named is no proxy's URL; it is not printed, there may be a password in it.
    """

    def __init__(self, named: Mapping[str, str]) -> None:
        self._named = dict(named)
        self._networks = [one for text in named.get("no", "").split(",") if (one := _network(text.strip())) is not None]
        self._proxies = {scheme: _proxy(scheme, named[scheme]) for scheme in ("http", "https") if named.get(scheme)}

    def through(self, url: URL) -> Proxy | None:
        """The proxy for a URL; none for this machine itself, as with most programs."""
        proxy = self._proxies.get(url.scheme)
        if proxy is None or url.host is None or self._is_near(url.host):
            return None
        return None if self._bypass(f"{url.host}:{url.port}", self._named) else proxy

    def _is_near(self, host: str) -> bool:
        """This machine, or an address in a network that is named (10.0.0.0/8), which is how Go's and curl's programs read it."""
        if host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self._networks)

    @staticmethod
    def _bypass(host: str, named: Mapping[str, str]) -> bool:
        return bool(urllib.request.proxy_bypass_environment(host, named))  # type: ignore[attr-defined]  # typeshed lacks it


def _proxy(scheme: str, text: str) -> Proxy:
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise UsageError(f"{scheme.upper()}_PROXY in the environment is no URL of a proxy", hint="write http://HOST:PORT")
    authorization = None
    if url.user is not None:
        authorization = "Basic " + base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode("ascii")
    return Proxy(url.origin(), authorization)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
