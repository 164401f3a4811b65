"""The answer of a Pelican director: which servers have an object, and for which namespace the answer is valid.

A director answers ``GET <path>`` with status 307; the header ``Link`` lists the servers in order of preference (``pri``), and
``X-Pelican-Namespace`` names the namespace. https://docs.pelicanplatform.org, director/ of PelicanPlatform/pelican.
"""

from __future__ import annotations

import urllib.parse

from publisher.resolver.errors import AbsentError, AccessDeniedError, FetchError
from publisher.resolver.transfer import http

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPResponse

_MAX_SERVERS = 20
_REDIRECTS = (200, 302, 307)


class DirectorError(FetchError):
    """An unusable answer of a director for one path; it says nothing about other paths or about the director itself."""


class DirectorResponse:
    """A director's answer.

    Attributes:
        namespace: path prefix for which the answer is valid, ``/ospool/ap20``.
        servers: URLs of the servers in the director's order; the path of an object is appended to them.
        private: whether reading needs a token.
        issuers: URLs of the issuers whose tokens the namespace accepts.
    """

    def __init__(self, namespace: str, servers: list[str], *, private: bool, issuers: list[str]) -> None:
        self.namespace = namespace
        self.servers = servers
        self.private = private
        self.issuers = issuers

    @classmethod
    def parse(cls, response: HTTPResponse, path: str) -> DirectorResponse:
        """Return the answer in a response to a request for ``path``.

        Raises:
            AbsentError: the director does not know the path.
            AccessDeniedError: the director refuses.
            DirectorError: any other unusable answer.
        """
        if response.status not in _REDIRECTS:
            error = http.status_error(response.status, response.reason)
            raise error if isinstance(error, (AbsentError, AccessDeniedError)) else DirectorError(str(error))
        links = response.headers.get_all("Link") or [f"<{response.headers.get('Location', '')}>"]
        servers = list(dict.fromkeys(_servers(", ".join(links), path)))
        if not servers:
            raise DirectorError("the director names no server")
        fields = _parse_fields(response.headers.get("X-Pelican-Namespace", ""))
        namespace = fields.get("namespace", "").rstrip("/")
        if not namespace.startswith("/") or not f"{path}/".startswith(f"{namespace}/"):
            namespace = path  # without a valid namespace the answer counts for this object only
        issuers = list(dict.fromkeys(_issuers(response.headers.get_all("X-Pelican-Authorization") or [])))
        private = fields.get("require-token", "").lower() == "true"
        return cls(namespace, servers[:_MAX_SERVERS], private=private, issuers=issuers[:_MAX_SERVERS])


def _issuers(headers: list[str]) -> Iterator[str]:
    """Yield the issuers in ``X-Pelican-Authorization: issuer=URL, issuer=URL``."""
    for part in ",".join(headers).split(","):
        name, _, issuer = part.partition("=")
        if name.strip().lower() == "issuer":
            yield issuer.strip().rstrip("/")


def _servers(header: str, path: str) -> Iterator[str]:
    """Yield the URLs in a ``Link`` header that end in the path, without it."""
    for url in _link_targets(header):
        base = url.partition("?")[0]
        for end in (urllib.parse.quote(path), path):
            if base.startswith(("https://", "http://")) and base.endswith(end):
                yield base[: -len(end)]
                break


def _link_targets(header: str) -> Iterator[str]:
    """Yield the targets of a ``Link`` header (RFC 8288), those with the lowest ``pri`` first, otherwise in order."""
    targets = []
    for part in header.split("<")[1:]:
        url, _, rest = part.partition(">")
        priority = _parse_fields(rest.replace(";", ",")).get("pri", "").strip('"')
        targets.append((int(priority) if priority.isascii() and priority.isdigit() else len(header), url))
    yield from (url for _, url in sorted(targets, key=lambda pair: pair[0]))


def _parse_fields(text: str) -> dict[str, str]:
    """Return the fields of a header value such as ``a=1, b=2``; names are in lower case."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
