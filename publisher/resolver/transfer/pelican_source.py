"""The ways to an object of a federation: the caches in the director's order, then its origin, then the command ``pelican``."""

from __future__ import annotations

import os
import urllib.parse

from publisher.resolver.errors import AbsentError, AccessDeniedError, FetchError
from publisher.resolver.transfer.director import Director, DirectorError
from publisher.resolver.transfer.http_source import HttpSource
from publisher.resolver.transfer.sources import AUTO, BUILTIN, PELICAN, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.resolver.transfer.director import DirectorResponse
    from publisher.resolver.transfer.sources import NetworkOptions
    from publisher.resolver.transfer.watchdog import TransferDeadline


class ClosedSource(Source):
    """A way that there is not, and why: it is a failure like any other's."""

    local = False

    def __init__(self, text: str, network: NetworkOptions, error: FetchError) -> None:
        super().__init__(text)
        self.network = network
        self._error = error

    def pieces(self, name: str, start: int, size: int | None, pace: TransferDeadline | None = None) -> Iterator[bytes]:  # noqa: ARG002 - there is nothing
        """Raises FetchError."""
        raise self._error


def ways(place: Source, name: str, *, small: bool, fresh: bool, again: bool, until: float | None) -> Iterator[Source]:
    """See :meth:`Source.ways`. With ``fresh`` only the origin's: what a cache has once, it has for ever."""
    network = place.network
    host, prefix = parsed(place.text, network)
    if not host:
        yield ClosedSource(place.text, network, FetchError("which federation does osdf:// mean? (--federation HOST)"))
        return
    if network.fetch_with != PELICAN or small:
        yield from _served(host, prefix, place, name, fresh=fresh, again=again, until=until)
    if network.fetch_with != BUILTIN and not small:
        from publisher.resolver.transfer import pelican_cli  # noqa: PLC0415 - few sites want it

        command = pelican_cli.command()
        if command is not None:
            yield pelican_cli.PelicanCommand(command, f"pelican://{host}{prefix}", network)
        elif network.fetch_with != AUTO:
            yield ClosedSource(place.text, network, FetchError("the command pelican is not there"))


def parsed(text: str, network: NetworkOptions) -> tuple[str, str]:
    """Host of the federation and path in it, from ``pelican://<host>/<path>`` or ``osdf:///<path>``; no host where none is known.

    ``osdf://a/b`` means ``osdf:///a/b``, as for other clients.
    """
    scheme, _, rest = text.partition("://")
    if scheme == "osdf":
        return network.federation, f"/{rest.strip('/')}".rstrip("/")
    host, _, path = rest.partition("/")
    return host, f"/{path.strip('/')}".rstrip("/")


def _served(
    host: str, prefix: str, place: Source, name: str, *, fresh: bool, again: bool, until: float | None
) -> Iterator[Source]:
    director = Director(host, place.network)
    before: set[str] = set()
    for direct in (True,) if fresh else (False, True):
        try:
            answer = director.find(f"{prefix}/{name}", direct=direct, again=again, until=until)
        except (AbsentError, AccessDeniedError, DirectorError) as error:
            yield ClosedSource(place.text, place.network, error)
            continue
        except FetchError as error:
            yield ClosedSource(place.text, place.network, error)
            return  # a director that does not answer knows no origin either
        for server in answer.servers:
            if server not in before:
                before.add(server)
                yield _way(server + urllib.parse.quote(prefix), answer, place.network)


def _way(url: str, answer: DirectorResponse, network: NetworkOptions) -> Source:
    if network.https_only and not url.startswith("https://"):
        return ClosedSource(url, network, FetchError("speaks plain http, and no signature vouches for the file"))
    if not answer.private:
        return HttpSource(url, network)
    from publisher.resolver.transfer import token  # noqa: PLC0415 - few namespaces are private

    return HttpSource(url, network, token.found(os.environ))
