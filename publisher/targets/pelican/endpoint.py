"""Where requests go: one origin for a whole run, so that what was uploaded and what gives it its name meet at one server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from yarl import URL

from publisher.targets.pelican.director import ObjectLocation, locate
from publisher.targets.pelican.discovery import director_of
from publisher.targets.pelican.tokens import CREATE, TokenScope

if TYPE_CHECKING:
    from collections.abc import Collection

    from publisher.targets.pelican.address import OriginAddress
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.transport import OriginTransport


class OriginEndpoint(Protocol):
    """Knows the origin."""

    async def where(self) -> ObjectLocation:
        """The origin.

        Raises:
            OriginError: there is none.
            TransientError: it could not be told now.
        """

    def forget(self) -> None:
        """It does not answer: look for it anew the next time."""


class DirectEndpoint:
    """A server that is known. Scopes are relative to its root, unless the settings say otherwise."""

    def __init__(self, address: OriginAddress) -> None:
        self._located = ObjectLocation(URL(f"https://{address.host}"), address.prefix, "/")

    async def where(self) -> ObjectLocation:
        """See :meth:`OriginEndpoint.where`."""
        return self._located

    def forget(self) -> None:
        """See :meth:`OriginEndpoint.forget`: there is no other."""


class DirectedEndpoint:
    """What a federation's director names.

    Args:
        transport: sends the requests.
        address: of a federation.
        hosts: ``host:port`` of the origins that it may name; any when empty.
        tokens: for a director that does not answer without.
    """

    def __init__(self, transport: OriginTransport, address: OriginAddress, hosts: Collection[str], tokens: TokenSource) -> None:
        self._transport = transport
        self._address = address
        self._hosts = hosts
        self._tokens = tokens
        self._director: URL | None = None
        self._located: ObjectLocation | None = None

    async def where(self) -> ObjectLocation:
        """See :meth:`OriginEndpoint.where`."""
        if self._located is None:
            if self._director is None:
                self._director = await director_of(self._transport, self._address.host)
            path = self._address.prefix
            token = self._tokens.bearer([TokenScope(CREATE, path)], "/")
            self._located = await locate(self._transport, self._director, path, self._hosts, token)
        return self._located

    def forget(self) -> None:
        """See :meth:`OriginEndpoint.forget`."""
        self._located = self._director = None
