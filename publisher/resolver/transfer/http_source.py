"""Files below a URL: a federation's cache or origin, a mirror.

Ranges are asked for with both ends: XRootD 5.5 answers an open one with nothing.
"""

from __future__ import annotations

import urllib.parse

from publisher.resolver.errors import CorruptError, FetchError
from publisher.resolver.transfer import http
from publisher.resolver.transfer.sources import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPResponse

    from publisher.resolver.transfer.sources import NetworkOptions
    from publisher.resolver.transfer.watchdog import TransferDeadline

_CHUNK = 1 << 18  # bytes: what a stall costs, and no slower than more
_OK, _PARTIAL = 200, 206


class HttpSource(Source):
    """What stands below a URL; its query, if it has one, goes with every request (``?directread`` at a federation's director).

    Args:
        address: the URL.
        network: how the network is used.
        token: a bearer token for this host, None for none.
    """

    patience = 10.0
    local = False

    def __init__(self, address: str, network: NetworkOptions, token: str | None = None) -> None:
        super().__init__(address)
        self.network = network
        self._token = token

    def pieces(self, name: str, start: int, size: int | None, pace: TransferDeadline | None = None) -> Iterator[memoryview]:
        """See :meth:`Source.pieces`; all pieces are in the same buffer. What comes and is skipped is told to ``pace`` here."""
        base, mark, query = self.address.partition("?")
        address = f"{base.rstrip('/')}/{urllib.parse.quote(name)}{mark}{query}"
        headers = {"Range": f"bytes={start}-{size - 1}"} if start and size else {}
        buffer = memoryview(bytearray(_CHUNK))
        try:
            with http.got(address, self.network, headers=headers, token=self._token, pace=pace) as response:
                surplus = _surplus(response, start, size)
                while count := response.readinto(buffer):
                    skipped = min(surplus, count)
                    if skipped:
                        surplus -= skipped
                        if pace is not None:
                            pace.add(skipped)
                    if skipped < count:
                        yield buffer[skipped:count]
        except FetchError as error:
            raise type(error)(f"{name}: {error}") from None


def _surplus(response: HTTPResponse, start: int, size: int | None) -> int:
    """How many bytes of the body stand before byte ``start``: all of them where a server knows no ranges.

    Raises:
        FetchError: it is no success, another part than was asked for, or of a file of another size.
    """
    if response.status == _OK:
        _check_size(response.headers.get("Content-Length"), size)
        return start
    if response.status != _PARTIAL:
        raise http.status_error(response.status, response.reason)
    part, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    begins = part.partition("-")[0]
    if begins != str(start):
        raise FetchError(f"asked for it from byte {start} on, got it from byte {begins or '?'} on")
    _check_size(whole, size)
    return 0


def _check_size(said: str | None, size: int | None) -> None:
    if size is not None and said is not None and said.isdigit() and int(said) != size:
        raise CorruptError(f"has {said} bytes, and the manifest says {size}")
