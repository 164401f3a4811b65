"""The routes to an object of a federation: the caches in the director's order, then its origin, then the command ``pelican``."""

from __future__ import annotations

import os
import urllib.parse

from publisher.resolver.errors import AbsentError, AccessDeniedError, FetchError
from publisher.resolver.system import log
from publisher.resolver.transfer.director import Director
from publisher.resolver.transfer.director_response import DirectorError
from publisher.resolver.transfer.http_source import HttpSource
from publisher.resolver.transfer.sources import AUTO, BUILTIN, PELICAN, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.resolver.transfer.director_response import DirectorResponse
    from publisher.resolver.transfer.sources import NetworkOptions
    from publisher.resolver.transfer.watchdog import TransferDeadline


class UnavailableSource(Source):
    """A route that is unavailable; reading it raises the reason, so that it is reported like any other failure."""

    local = False

    def __init__(self, address: str, network: NetworkOptions, error: FetchError) -> None:
        super().__init__(address)
        self.network = network
        self._error = error

    def stream(
        self,
        name: str,  # noqa: ARG002 - there is nothing to read
        start: int,  # noqa: ARG002 - as above
        size: int | None,  # noqa: ARG002 - as above
        deadline: TransferDeadline | None = None,  # noqa: ARG002 - as above
        stop: int | None = None,  # noqa: ARG002 - as above
    ) -> Iterator[bytes]:
        """Raise the FetchError that says why the route is unavailable."""
        raise self._error


def routes(source: Source, name: str, *, small: bool, fresh: bool, refresh: bool, until: float | None) -> Iterator[Source]:
    """Yield the routes to an object; see :meth:`Source.routes`. ``fresh`` allows only the origin, since caches never update."""
    network = source.network
    host, prefix = parse_address(source.label, network)
    if not host:
        yield UnavailableSource(
            source.label, network, FetchError("no federation is set for osdf:// URLs", hint="set --federation HOST")
        )
        return
    if network.fetch_with != PELICAN or small:
        yield from _server_routes(host, prefix, source, name, fresh=fresh, refresh=refresh, until=until)
    if network.fetch_with != BUILTIN and not small:
        from publisher.resolver.transfer import pelican_cli  # noqa: PLC0415 - few sites want it

        program = pelican_cli.find_program()
        if program is not None:
            yield pelican_cli.PelicanCommand(program, f"pelican://{host}{prefix}", network)
        elif network.fetch_with != AUTO:
            yield UnavailableSource(source.label, network, FetchError("the command pelican is not installed"))


def parse_address(address: str, network: NetworkOptions) -> tuple[str, str]:
    """Return the host of the federation and the path in ``pelican://<host>/<path>`` or ``osdf:///<path>``.

    The host is empty if it is unknown. ``osdf://a/b`` means ``osdf:///a/b``, as in other clients.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "osdf":
        return network.federation, f"/{rest.strip('/')}".rstrip("/")
    host, _, path = rest.partition("/")
    return host, f"/{path.strip('/')}".rstrip("/")


def _server_routes(
    host: str, prefix: str, source: Source, name: str, *, fresh: bool, refresh: bool, until: float | None
) -> Iterator[Source]:
    """Yield a route for each server that the director names: caches first, then the origin."""
    director = Director(host, source.network)
    seen: set[str] = set()
    for direct in (True,) if fresh else (False, True):
        try:
            response = director.find(f"{prefix}/{name}", direct=direct, refresh=refresh, until=until)
        except (AbsentError, AccessDeniedError, DirectorError) as error:
            yield UnavailableSource(source.label, source.network, error)
            continue
        except FetchError as error:
            yield UnavailableSource(source.label, source.network, error)
            return  # a director that does not answer cannot name the origin either
        for server in response.servers:
            if server not in seen:
                seen.add(server)
                allowed = source.network.issuers(host, f"{prefix}/{name}")
                yield _server_route(server + urllib.parse.quote(prefix), response, source.network, allowed)


def _server_route(url: str, response: DirectorResponse, network: NetworkOptions, allowed: set[str]) -> Source:
    """Return the route through one server; ``allowed`` are the issuers whose tokens the site allows to be sent there."""
    if network.https_only and not url.startswith("https://"):
        return UnavailableSource(url, network, FetchError("the server offers only plain http, and the file has no signature"))
    if not response.private:
        return HttpSource(url, network)
    from publisher.resolver.transfer import token  # noqa: PLC0415 - few namespaces are private

    bearer = token.find(os.environ, allowed.intersection(response.issuers))
    if bearer is None:
        log.info("no token is sent to %s: there is none of an issuer that both token-issuer and the director name", url)
    return HttpSource(url, network, bearer)
