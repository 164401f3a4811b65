"""Endpoints: the origin that requests are sent to.

It is one origin for a whole run, so that an upload and the request that renames it reach the same server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from yarl import URL

from publisher.targets.pelican.federation.director import ObjectLocation, locate_origin
from publisher.targets.pelican.federation.discovery import discover_director
from publisher.targets.pelican.tokens import CREATE, TokenScope

if TYPE_CHECKING:
    from collections.abc import Collection

    from publisher.targets.pelican.federation.address import OriginAddress
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.transport import OriginTransport


class OriginEndpoint(Protocol):
    """Knows or finds the origin."""

    async def locate(self) -> ObjectLocation:
        """Return the location of the origin.

        Raises:
            OriginError: there is none.
            TransientError: it could not be found now.
        """

    def forget(self) -> None:
        """Find the origin anew next time, because it does not respond."""


class DirectEndpoint:
    """A server with a known address. Scopes are relative to its root, unless the settings say otherwise."""

    def __init__(self, address: OriginAddress) -> None:
        self._location = ObjectLocation(URL(f"https://{address.host}"), address.prefix, "/")

    async def locate(self) -> ObjectLocation:
        """See :meth:`OriginEndpoint.locate`."""
        return self._location

    def forget(self) -> None:
        """Do nothing: there is no other server."""


class DirectedEndpoint:
    """The origin that a federation's director names.

    Args:
        transport: sends the requests.
        address: the address in a federation.
        allowed_hosts: ``host:port`` of the origins that the director may name; any if empty.
        tokens: for a director that does not answer without a token.
    """

    def __init__(
        self, transport: OriginTransport, address: OriginAddress, allowed_hosts: Collection[str], tokens: TokenSource
    ) -> None:
        self._transport = transport
        self._address = address
        self._allowed_hosts = allowed_hosts
        self._tokens = tokens
        self._director: URL | None = None
        self._location: ObjectLocation | None = None

    async def locate(self) -> ObjectLocation:
        """See :meth:`OriginEndpoint.locate`."""
        if self._location is None:
            if self._director is None:
                self._director = await discover_director(self._transport, self._address.host)
            path = self._address.prefix
            token = self._tokens.bearer([TokenScope(CREATE, path)], "/")
            self._location = await locate_origin(self._transport, self._director, path, self._allowed_hosts, token)
        return self._location

    def forget(self) -> None:
        """See :meth:`OriginEndpoint.forget`."""
        self._location = self._director = None
