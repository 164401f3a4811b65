"""Which origin a path is stored at: a director's answer to a PUT, which is read and never followed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from yarl import URL

from publisher.errors import OriginError
from publisher.net.http_errors import host_of
from publisher.net.retry import TransientError
from publisher.targets.pelican import status
from publisher.targets.pelican.discovery import trusted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from publisher.targets.pelican.transport import OriginResponse, OriginTransport

_REDIRECTS = (302, 307)
_INCAPABLE = 405
_LINK = re.compile(r"<([^>]*)>((?:\s*;\s*[a-z]+=(?:\"[^\"]*\"|[^,;\"]*))*)", re.IGNORECASE)
_PRIORITY = re.compile(r";\s*pri=\"?([0-9]{1,6})", re.IGNORECASE)
_LAST = 1 << 20  # the priority of a server that has none


class ObjectLocation(NamedTuple):
    """Where a prefix is stored.

    Attributes:
        server: https URL of the origin, without a path.
        path: the prefix as a path there, ``/`` in front and none at its end.
        base: the path that the scopes of the namespace's tokens are relative to.
    """

    server: URL
    path: str
    base: str

    def url(self, name: str) -> URL:
        """Of an object; its name and the prefix have only characters that stand for themselves in a URL."""
        return URL(f"{self.server}{self.path}/{name}", encoded=True)


async def locate(
    transport: OriginTransport, director: URL, path: str, hosts: Collection[str], token: str | None
) -> ObjectLocation:
    """Ask where what is stored below ``path`` goes.

    Args:
        transport: sends the request.
        director: its URL.
        path: ``/`` in front.
        hosts: ``host`` or ``host:port`` of the origins that it may name; any when empty.
        token: shown only where the director refuses to answer without one.

    Raises:
        OriginError: it knows no such path, or none that can be written to, or names a server that is not spoken to.
        TransientError: no answer now.
    """
    url = URL(f"{str(director).rstrip('/')}{path}", encoded=True)
    shown: Mapping[str, str] = {}
    while True:
        async with transport.open("PUT", url, {**shown, "Content-Length": "0"}) as answer:
            if answer.status in status.REFUSED and token is not None and not shown:
                shown = {"Authorization": f"Bearer {token}"}
                continue
            if answer.status not in _REDIRECTS:
                raise await _refusal(answer, path)
            return _located(answer.headers, path, host_of(url), hosts)


async def _refusal(answer: OriginResponse, path: str) -> Exception:
    refused = await status.refused(answer)
    doing = f"say where {path} is stored"
    if answer.status == _INCAPABLE:
        return OriginError(
            f"{path} cannot be written to: {answer.host} says that its namespace lacks the capability", hint=refused.said or None
        )
    ours = answer.headers.get("Server", "").startswith("pelican/") or "json" in answer.headers.get("Content-Type", "")
    if answer.status == status.MISSING and not ours:  # some other server that stands before a director which is away
        return TransientError(f"{answer.host} does not {doing}: status {answer.status}, and not from a director", refused.later)
    return status.failure(refused, doing)


def _located(headers: Mapping[str, str], path: str, director: str, hosts: Collection[str]) -> ObjectLocation:
    named = servers(headers.get("Link", "")) or [headers.get("Location", "")]
    url = trusted(named[0], f"the origin that {director} names for {path}")
    if url.raw_path != path:
        raise OriginError(f"{director} was asked for {path} and names another path at {host_of(url)}")
    if hosts and not {host_of(url), f"{url.host}:{url.port}"} & set(hosts):
        raise OriginError(f"{director} sends us to {host_of(url)}, which origin_hosts does not have")
    return ObjectLocation(url.origin(), path, _base(headers, path))


def servers(link: str) -> list[str]:
    """The URLs of a ``Link`` header, the best first: ``<URL>; rel="duplicate"; pri=1; depth=2, …`` (RFC 6249)."""
    found = [(match[1], _PRIORITY.search(match[2])) for match in _LINK.finditer(link)]
    return [url for url, _ in sorted(found, key=lambda one: int(one[1][1]) if one[1] is not None else _LAST)]


def _base(headers: Mapping[str, str], path: str) -> str:
    """The base of scopes that the director tells, or the namespace, whichever it has said that holds the path."""
    for header, key in (("X-Pelican-Token-Generation", "base-path"), ("X-Pelican-Namespace", "namespace")):
        base = _fields(headers.get(header, "")).get(key, "").rstrip("/")
        if base and f"{path}/".startswith(f"{base}/"):
            return base
    return "/"


def _fields(header: str) -> dict[str, str]:
    """``name=value, name=value``; of a name that stands twice, the first."""
    pairs = (part.strip().partition("=") for part in reversed(header.split(",")))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
