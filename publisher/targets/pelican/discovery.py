"""Which director a federation has: its configuration document, as Pelican's clients read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import OriginError
from publisher.net.http_errors import host_of
from publisher.targets.pelican import status

if TYPE_CHECKING:
    from publisher.targets.pelican.transport import OriginTransport

_DOCUMENT = "/.well-known/pelican-configuration"
_LARGEST = 1 << 16
_OK = 200


async def director_of(transport: OriginTransport, federation: str) -> URL:
    """The URL of a federation's director.

    Args:
        transport: sends the request; redirects are not followed.
        federation: ``host`` or ``host:port``.

    Raises:
        OriginError: it is no federation, or names no director that can be trusted.
        TransientError: no answer now.
    """
    url = URL(f"https://{federation}{_DOCUMENT}")
    async with transport.open("GET", url, {}) as answer:
        if answer.status != _OK:
            raise status.failure(await status.refused(answer), "tell its director")
        content = await answer.body(_LARGEST)
    try:
        named = json.loads(content)["director_endpoint"]
    except (ValueError, KeyError, TypeError):
        raise OriginError(f"{host_of(url)} is no federation: its configuration names no director") from None
    return trusted(named, f"the director of {federation}")


def trusted(text: object, what: str) -> URL:
    """A server's URL that a token may be sent to: https, a host, no user.

    Raises:
        OriginError: it is none; the text is not shown, there may be a token in it.
    """
    try:
        url = URL(text, encoded=True) if isinstance(text, str) else URL()
    except ValueError:
        url = URL()
    if url.scheme != "https" or url.host is None or url.user is not None:
        raise OriginError(f"{what} is not at an https URL, and is not spoken to")
    return url
