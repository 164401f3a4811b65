"""Where the objects of a federation are read: its director, as its configuration document names it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import UnavailableError
from publisher.registry.status import raise_if_transient

if TYPE_CHECKING:
    from collections.abc import Collection

    from publisher.registry.transport import RegistryTransport

_DOCUMENT = "/.well-known/pelican-configuration"
_MAX_SIZE = 1 << 16
_OK = 200


class FederationReader:
    """The way to a federation's objects; its director is asked for once.

    Args:
        transport: sends requests.
        host: ``host`` or ``host:port`` of the federation.
        insecure: servers (exact ``host:port``) that use plain http.
    """

    def __init__(self, transport: RegistryTransport, host: str, insecure: Collection[str]) -> None:
        self._transport = transport
        self._host = host
        self._insecure = insecure
        self._director: URL | None = None

    async def url(self, path: str) -> URL:
        """Return the URL of an object at the director, which redirects to the nearest cache; ``path`` begins with ``/``.

        Raises:
            UnavailableError: the host is not a federation, or its director is not at an https URL.
            TransientError: no response now.
        """
        if self._director is None:
            self._director = await self._discover()
        return URL(f"{str(self._director).rstrip('/')}{path}", encoded=True)

    async def _discover(self) -> URL:
        scheme = "http" if self._host in self._insecure else "https"
        async with self._transport.open("GET", URL(f"{scheme}://{self._host}{_DOCUMENT}"), {}) as response:
            raise_if_transient(response)
            content = await response.body(_MAX_SIZE) if response.status == _OK else b""
        try:
            director = URL(json.loads(content)["director_endpoint"], encoded=True)
        except (ValueError, KeyError, TypeError):
            raise UnavailableError(f"{self._host} is not a federation: its configuration names no director") from None
        if director.host is None or director.user is not None or director.scheme not in {"https", scheme}:
            raise UnavailableError(f"the director of {self._host} is not at an https URL, so it is not used")
        return director
