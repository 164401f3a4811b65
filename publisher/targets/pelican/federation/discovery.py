"""Discovery of a federation's director: its configuration document, as Pelican's clients read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import OriginError
from publisher.net.http_errors import host_of
from publisher.targets.pelican.status import read_refusal, to_error

if TYPE_CHECKING:
    from publisher.targets.pelican.transport import OriginTransport

_DOCUMENT = "/.well-known/pelican-configuration"
_MAX_SIZE = 1 << 16
_OK = 200


async def discover_director(transport: OriginTransport, federation: str) -> URL:
    """Return the URL of a federation's director.

    Args:
        transport: sends the request; redirects are not followed.
        federation: ``host`` or ``host:port``.

    Raises:
        OriginError: the host is not a federation, or its director cannot be trusted.
        TransientError: no response now.
    """
    url = URL(f"https://{federation}{_DOCUMENT}")
    async with transport.open("GET", url, {}) as response:
        if response.status != _OK:
            raise to_error(await read_refusal(response), "name its director")
        content = await response.body(_MAX_SIZE)
    try:
        director = json.loads(content)["director_endpoint"]
    except (ValueError, KeyError, TypeError):
        raise OriginError(f"{host_of(url)} is not a federation: its configuration names no director") from None
    return trusted_url(director, f"the director of {federation}")


def trusted_url(text: object, label: str) -> URL:
    """Return the URL of a server that a token may be sent to: https, with a host and without a user.

    Raises:
        OriginError: it is not such a URL; the message does not show it, because it may contain a token.
    """
    try:
        url = URL(text, encoded=True) if isinstance(text, str) else URL()
    except ValueError:
        url = URL()
    if url.scheme != "https" or url.host is None or url.user is not None:
        raise OriginError(f"{label} is not at an https URL, so it is not used")
    return url
