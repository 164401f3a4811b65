"""The addresses that requests may be sent to.

The list of images is open to proposals, and registries name token services and redirect to blob stores. None of them may make
this host send requests to its own services, to a private network, or to the metadata service of a cloud. So only public addresses
are connected to, and those that the operator has configured. The check is made when a socket is made for an address: it is that
of the connection, whatever a name server said before or says later.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from aiohttp import AddrInfoType
    from yarl import URL

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.IPv6Network("::/96")


class RefusedAddressError(OSError):
    """An attempt to connect to an address that is neither public nor configured."""


class AddressPolicy:
    """Which addresses requests may be sent to.

    Args:
        hosts: ``host`` or ``host:port`` of servers that the operator has configured; they may have any address.
        networks: networks whose addresses are allowed although they are not public.
        discreet: errors about servers that are not configured do not say what happened to the connection. They are shown to
            whoever proposed the server, and must not tell which ports are open.
    """

    def __init__(self, hosts: Collection[str] = (), networks: Collection[Network] = (), *, discreet: bool = False) -> None:
        self._hosts = frozenset(hosts)
        self._networks = tuple(networks)
        self._discreet = discreet

    def is_configured(self, url: URL) -> bool:
        """Return whether the operator has configured the server of a URL."""
        host = f"[{url.host}]" if ":" in (url.host or "") else str(url.host)
        names = {f"{host}:{url.port}", *([host] if url.is_default_port() else [])}
        return not names.isdisjoint(self._hosts)

    def is_discreet(self, url: URL) -> bool:
        """Return whether an error must not say what happened to the connection to the server of a URL."""
        return self._discreet and not self.is_configured(url)

    def allows(self, address: str) -> bool:
        """Return whether an IP address may be connected to."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks) or all(map(_is_public, (parsed, *_embedded(parsed))))

    def check_literal(self, url: URL) -> None:
        """Check a URL whose server a proxy connects to, if it has an IP address instead of a name. Raises RefusedAddressError."""
        try:
            ipaddress.ip_address(url.host or "")
        except ValueError:
            return
        if not self.is_configured(url) and not self.allows(str(url.host)):
            raise RefusedAddressError

    def new_socket(self, info: AddrInfoType) -> socket.socket:
        """Return a new socket for an address. Raises RefusedAddressError."""
        if not self.allows(str(info[4][0])):
            raise RefusedAddressError
        return any_socket(info)


def any_socket(info: AddrInfoType) -> socket.socket:
    """Return a new socket for any address."""
    family, kind, protocol, _, _ = info
    return socket.socket(family, kind, protocol)


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not getattr(address, "is_site_local", False)


def _embedded(address: Address) -> Iterator[Address]:
    """Yield the IPv4 addresses that an IPv6 address leads to, where it is translated or tunnelled."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64 or address in _V4_COMPATIBLE:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
