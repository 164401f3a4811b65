"""Files below a URL: a cache or an origin of a federation, or a mirror.

Range requests name both ends: XRootD 5.5 answers an open range with no bytes.
"""

from __future__ import annotations

import urllib.parse

from publisher.resolver.errors import CorruptError, FetchError, RangeError
from publisher.resolver.transfer import http
from publisher.resolver.transfer.sources import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPResponse

    from publisher.resolver.transfer.sources import NetworkOptions
    from publisher.resolver.transfer.watchdog import TransferDeadline

_CHUNK = 1 << 18  # bytes: what is lost when a transfer stalls; larger chunks are not faster
_OK, _PARTIAL = 200, 206


class HttpSource(Source):
    """The files below a URL. A query of the URL is sent with every request, such as ``?directread`` to a federation's director.

    Args:
        address: the URL.
        network: how the network is used.
        token: a bearer token for the host of the URL, None for none.
    """

    timeout = 10.0
    local = False

    def __init__(self, address: str, network: NetworkOptions, token: str | None = None) -> None:
        super().__init__(address)
        self.network = network
        self._token = token
        self.uses_token = token is not None
        self._kept: http.KeptConnections | None = None

    def keep_connections(self) -> None:
        """Use one connection to each server for all requests until :meth:`close`."""
        self._kept = http.KeptConnections()

    def close(self) -> None:
        """Close the connections."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def stream(
        self,
        name: str,
        start: int,
        size: int | None,
        deadline: TransferDeadline | None = None,
        stop: int | None = None,
    ) -> Iterator[memoryview]:
        """Yield the content of a file; see :meth:`Source.stream`. All pieces share one buffer; skipped bytes count."""
        base, mark, query = self.address.partition("?")
        address = f"{base.rstrip('/')}/{urllib.parse.quote(name)}{mark}{query}"
        last = (size if stop is None else stop) or 0
        headers = {"Range": f"bytes={start}-{last - 1}"} if (start or stop) and last else {}
        buffer = memoryview(bytearray(_CHUNK))
        try:
            with http.get(
                address, self.network, headers=headers, token=self._token, deadline=deadline, kept=self._kept
            ) as response:
                surplus = _surplus(response, start, size, stop)
                while count := response.readinto(buffer):
                    skipped = min(surplus, count)
                    if skipped:
                        surplus -= skipped
                        if deadline is not None:
                            deadline.add(skipped)
                    if skipped < count:
                        yield buffer[skipped:count]
        except FetchError as error:
            named = type(error)(f"{name}: {error}")
            named.retry_after = error.retry_after
            raise named from None


def _surplus(response: HTTPResponse, start: int, size: int | None, stop: int | None) -> int:
    """Return how many bytes of the body precede byte ``start``: all of them if the server does not support ranges.

    Raises:
        RangeError: the range is another one, or there is none although only the bytes before ``stop`` were requested.
        FetchError: the status is not a success, or the file has another size.
    """
    if response.status == _OK:
        _check_size(response.headers.get("Content-Length"), size)
        if stop is not None:
            raise RangeError("the server ignores ranges")
        return start
    if response.status != _PARTIAL:
        raise http.status_error(response.status, response.reason, response.headers.get("Retry-After"))
    part, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first, _, last = part.partition("-")
    if first != str(start):
        raise RangeError(f"the server sent the file from byte {first or '?'} on, not from the requested byte {start} on")
    if stop is not None and last != str(stop - 1):
        raise RangeError(f"the server sent the file up to byte {last or '?'}, not up to the requested byte {stop - 1}")
    _check_size(total, size)
    return 0


def _check_size(actual: str | None, size: int | None) -> None:
    if size is not None and actual is not None and actual.isdigit() and int(actual) != size:
        raise CorruptError(f"has {actual} bytes, but the manifest says {size}")
