"""An HTTP response whose body is read on demand and within a size limit."""

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
    """An HTTP response whose body has not been read yet.

    Attributes:
        host: the host that answered, as :func:`host_of` returns it.
        status: the HTTP status.
    """

    def __init__(self, response: aiohttp.ClientResponse, refusal: HttpRefusal) -> None:
        self._response = response
        self._refusal = refusal
        self.host = host_of(response.url)
        self.status = response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers of the response."""
        return self._response.headers

    @property
    def retry_after(self) -> float | None:
        """The seconds of ``Retry-After``, None if the response has no valid one."""
        return parse_retry_after(self.headers.get("Retry-After"), time.time)

    async def read(self) -> bytes:
        """Return the next bytes of the body, at most twice the session's ``read_bufsize``; ``b""`` at its end.

        Raises:
            TransientError: the connection failed.
        """
        with translated(self.host, self._refusal):
            return await self._response.content.readany()

    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            TransientError: the body broke off, or is shorter than its announced size.
            PublisherError: the body has more than ``limit`` bytes.
        """
        body = bytearray()
        while chunk := await self.read():
            body += chunk
            if len(body) > limit:
                raise self._refusal.error(f"{self.host} answered with more than the {limit} bytes that are allowed here")
        return bytes(body)


def parse_retry_after(value: str | None, now: Callable[[], float]) -> float | None:
    """Return the seconds of a ``Retry-After`` header, a number or a date (RFC 9110, section 10.2.3); None if it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now())
    except ValueError:
        return None
