"""An answer whose body is still to be read, in bounds."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from publisher.net.http_errors import HttpRefusal, host_of, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp
    from multidict import CIMultiDictProxy


class HttpResponse:
    """An answer as it comes.

    Attributes:
        host: who answered, ``host:port``.
        status: of HTTP.
    """

    def __init__(self, response: aiohttp.ClientResponse, refusal: HttpRefusal) -> None:
        self._response = response
        self._refusal = refusal
        self.host = host_of(response.url)
        self.status = response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """All headers."""
        return self._response.headers

    @property
    def retry_after(self) -> float | None:
        """Seconds that it asks us to stay away, None where it does not say."""
        return seconds(self.headers.get("Retry-After"), time.time)

    async def read(self) -> bytes:
        """The next bytes of the body, at most the session's ``read_bufsize`` twice; ``b""`` at its end. Raises TransientError."""
        with translated(self.host, self._refusal):
            return await self._response.content.readany()

    async def body(self, most: int) -> bytes:
        """The whole body.

        Raises:
            TransientError: it broke off, or is shorter than it was said to be.
            PublisherError: it has more than ``most`` bytes.
        """
        whole = bytearray()
        while piece := await self.read():
            whole += piece
            if len(whole) > most:
                reason = f"{self.host} answers with more than the {most} bytes that such an answer may have"
                raise self._refusal.error(reason)
        return bytes(whole)


def seconds(value: str | None, now: Callable[[], float]) -> float | None:
    """``Retry-After``: seconds or a date (RFC 9110, section 10.2.3); what is neither is as good as absent."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now())
    except ValueError:
        return None
