"""The director of a federation: which origin stores a path, from a redirect that is read and never followed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from yarl import URL

from publisher.errors import OriginError
from publisher.net.http_errors import host_of
from publisher.net.retry import TransientError
from publisher.targets.pelican import status
from publisher.targets.pelican.federation.discovery import trusted_url

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from publisher.targets.pelican.transport import OriginResponse, OriginTransport

_REDIRECTS = (302, 307)
_METHOD_NOT_ALLOWED = 405
_LINK = re.compile(r"<([^>]*)>((?:\s*;\s*[a-z]+=(?:\"[^\"]*\"|[^,;\"]*))*)", re.IGNORECASE)
_PRIORITY = re.compile(r";\s*pri=\"?([0-9]{1,6})", re.IGNORECASE)
_LOWEST_PRIORITY = 1 << 20  # the priority of a server that has none


class ObjectLocation(NamedTuple):
    """Where the objects of a prefix are stored.

    Attributes:
        server: the https URL of the origin, without a path.
        path: the prefix as a path at the origin, with ``/`` at its beginning only.
        base: the path that the scopes of the namespace's tokens are relative to.
    """

    server: URL
    path: str
    base: str

    def url(self, name: str) -> URL:
        """Return the URL of an object; no character of its name or of the prefix needs quoting."""
        return URL(f"{self.server}{self.path}/{name}", encoded=True)


async def locate_origin(
    transport: OriginTransport, director: URL, path: str, allowed_hosts: Collection[str], token: str | None
) -> ObjectLocation:
    """Ask a director which origin stores the objects below ``path``.

    Args:
        transport: sends the request.
        director: the director's URL.
        path: begins with ``/``.
        allowed_hosts: ``host`` or ``host:port`` of the origins that are accepted; any if empty.
        token: sent only if the director refuses to answer without one.

    Raises:
        OriginError: the director does not know the path, or no origin that it can be written to, or names a server that is not
            accepted.
        TransientError: no response now.
    """
    url = URL(f"{str(director).rstrip('/')}{path}", encoded=True)
    authorization: Mapping[str, str] = {}
    while True:
        async with transport.open("PUT", url, {**authorization, "Content-Length": "0"}) as response:
            if response.status in status.DENIED and token is not None and not authorization:
                authorization = {"Authorization": f"Bearer {token}"}
                continue
            if response.status not in _REDIRECTS:
                raise await _refusal(response, path)
            return _location(response.headers, path, host_of(url), allowed_hosts)


async def _refusal(response: OriginResponse, path: str) -> Exception:
    refusal = await status.read_refusal(response)
    action = f"say where {path} is stored"
    if response.status == _METHOD_NOT_ALLOWED:
        reason = f"{path} cannot be written to: {response.host} reports that its namespace lacks the capability"
        return OriginError(reason, hint=refusal.message or None)
    is_director = response.headers.get("Server", "").startswith("pelican/") or "json" in response.headers.get("Content-Type", "")
    if response.status == status.NOT_FOUND and not is_director:  # another server in front of a director that is down
        reason = f"{response.host} does not {action}: status {response.status}, and not from a director"
        return TransientError(reason, refusal.retry_after)
    return status.to_error(refusal, action)


def _location(headers: Mapping[str, str], path: str, director: str, allowed_hosts: Collection[str]) -> ObjectLocation:
    servers = parse_link(headers.get("Link", "")) or [headers.get("Location", "")]
    url = trusted_url(servers[0], f"the origin that {director} names for {path}")
    if url.raw_path != path:
        raise OriginError(f"{director} was asked for {path} and names another path at {host_of(url)}")
    if allowed_hosts and not {host_of(url), f"{url.host}:{url.port}"} & set(allowed_hosts):
        raise OriginError(f"{director} redirects to {host_of(url)}, which is not in the setting origin_hosts")
    return ObjectLocation(url.origin(), path, _scope_base(headers, path))


def parse_link(link: str) -> list[str]:
    """Return the URLs of a ``Link`` header, best first: ``<URL>; rel="duplicate"; pri=1; depth=2, …`` (RFC 6249)."""
    servers = []
    for match in _LINK.finditer(link):
        priority = _PRIORITY.search(match[2])
        servers.append((_LOWEST_PRIORITY if priority is None else int(priority[1]), match[1]))
    return [url for _, url in sorted(servers, key=lambda server: server[0])]


def _scope_base(headers: Mapping[str, str], path: str) -> str:
    """Return the path that scopes are relative to: the base path or the namespace in the headers if it is above ``path``."""
    for header, key in (("X-Pelican-Token-Generation", "base-path"), ("X-Pelican-Namespace", "namespace")):
        base = _fields(headers.get(header, "")).get(key, "").rstrip("/")
        if base and f"{path}/".startswith(f"{base}/"):
            return base
    return "/"


def _fields(header: str) -> dict[str, str]:
    """Parse ``name=value, name=value``; if a name occurs twice, the first value counts."""
    pairs = (part.strip().partition("=") for part in reversed(header.split(",")))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
