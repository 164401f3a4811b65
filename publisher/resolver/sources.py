"""Places that files are read from: a directory (a mounted repository, an origin's disk), or an http(s) URL.

The one door to the network. A place is asked for names that our own manifest made; what it answers is somebody else's and is
bounded, and checked by whoever asked.
"""

from __future__ import annotations

import os

from publisher.resolver.errors import FetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPResponse

_CHUNK = 1 << 20
_SILENCE = 20.0  # seconds without a byte, or until the connection stands
_OK, _PARTIAL = 200, 206


class Source:
    """A place: ``text`` is what it was given as, a directory's path or a URL; ``patience`` its seconds for one small file."""

    patience = 2.0

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, name: str, most: int) -> bytes:
        """The content of a small file.

        Args:
            name: relative, with ``/``.
            most: bytes beyond which it is refused.

        Raises:
            FetchError: absent, refused, broken off or too large.
        """
        content = b""
        for chunk in self.pieces(name, 0, None):
            content += chunk
            if len(content) > most:
                raise FetchError(f"{name} has more than the {most} bytes that it may have")
        return content

    def pieces(self, name: str, start: int, size: int | None) -> Iterator[bytes]:
        """The content of a file from byte ``start`` on, piece by piece.

        Args:
            name: relative, with ``/``.
            start: byte to begin with; below ``size``.
            size: the whole file's, None where that is not known (then ``start`` is 0).

        Raises:
            FetchError: absent, refused or broken off; a body that merely ends early is not noticed here.
        """
        raise NotImplementedError


class Directory(Source):
    """A directory's files."""

    def pieces(self, name: str, start: int, size: int | None) -> Iterator[bytes]:  # noqa: ARG002 - a file ends by itself
        """See :meth:`Source.pieces`."""
        try:
            with open(os.path.join(self.text, name), "rb", buffering=0) as file:
                file.seek(start)
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise FetchError(f"{name}: {error.strerror}") from None


class Web(Source):
    """What stands below a URL; its query, if it has one, goes with every request (``?directread`` at a federation's director).

    Ranges are asked for with both ends: XRootD 5.5 answers an open one with nothing.
    """

    patience = 10.0

    def pieces(self, name: str, start: int, size: int | None) -> Iterator[bytes]:
        """See :meth:`Source.pieces`."""
        import http.client  # noqa: PLC0415 - 25 ms with TLS, and most answers need no network

        headers = {"Range": f"bytes={start}-{size - 1}"} if start and size else {}
        try:
            with _opened(self._address(name), headers) as response:
                surplus = _surplus(response, name, start)
                while chunk := response.read1(_CHUNK):
                    yield chunk[surplus:]
                    surplus = max(0, surplus - len(chunk))
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
            raise FetchError(f"{name}: {getattr(error, 'reason', '') or str(error) or type(error).__name__}") from None

    def _address(self, name: str) -> str:
        import urllib.parse  # noqa: PLC0415 - as above

        base, mark, query = self.text.partition("?")
        return f"{base.rstrip('/')}/{urllib.parse.quote(name)}{mark}{query}"


def source(text: str) -> Source:
    """The place that a text names: a URL by its ``http://`` or ``https://``, else a directory."""
    return Web(text) if text.startswith(("http://", "https://")) else Directory(text)


def _opened(address: str, headers: dict[str, str]) -> HTTPResponse:
    """The response to a GET: redirects to http and https are followed, nothing else is; proxies as the environment says."""
    import urllib.request as web  # noqa: PLC0415 - as above

    opener = web.OpenerDirector()
    for handler in (
        web.ProxyHandler,
        web.HTTPHandler,
        web.HTTPSHandler,
        web.HTTPRedirectHandler,
        web.HTTPDefaultErrorHandler,
        web.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "image-resolver")]
    response: HTTPResponse | None = opener.open(web.Request(address, headers=headers), timeout=_SILENCE)  # noqa: S310 - see source()
    if response is None:
        raise FetchError(f"{address} leads to something that is not http")
    return response


def _surplus(response: HTTPResponse, name: str, start: int) -> int:
    """How many bytes of the body stand before byte ``start``: all of them where a server knows no ranges."""
    if response.status == _OK:
        return start
    begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if response.status != _PARTIAL or begins != str(start):
        raise FetchError(f"{name}: asked for it from byte {start} on, got status {response.status} from byte {begins or 0} on")
    return 0
