"""Creating sources from their addresses or from the settings. Network modules are imported when a source is first read."""

from __future__ import annotations

import time

from publisher.resolver.transfer.sources import FEDERATED, REMOTE, DirectorySource, NetworkOptions, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.transfer.watchdog import TransferDeadline


class RemoteSource(Source):
    """A source in the network; its routes are discovered when it is read."""

    timeout = 10.0
    local = False

    def __init__(self, address: str, network: NetworkOptions) -> None:
        super().__init__(address)
        self.network = network

    def routes(
        self, name: str, *, small: bool = False, fresh: bool = False, refresh: bool = False, until: float | None = None
    ) -> Iterator[Source]:
        """Yield the routes to a file; see :meth:`Source.routes`."""
        if self.label.startswith(FEDERATED):
            from publisher.resolver.transfer import pelican_source  # noqa: PLC0415 - most answers need no network

            return pelican_source.routes(self, name, small=small, fresh=fresh, refresh=refresh, until=until)
        from publisher.resolver.transfer.http_source import HttpSource  # noqa: PLC0415 - as above

        return iter((HttpSource(self.address, self.network),))

    def _route_deadline(self) -> TransferDeadline:
        """Return a third of the timeout: a silent server must leave time for the next one."""
        from publisher.resolver.transfer.watchdog import TransferDeadline  # noqa: PLC0415 - as above

        return TransferDeadline(time.monotonic, time.monotonic() + self.timeout / 3)


def open_source(address: str, network: NetworkOptions | None = None) -> Source:
    """Return the source at an address: ``http(s)://``, ``pelican://`` and ``osdf://`` are remote, all else is a directory."""
    return RemoteSource(address, network or Source.network) if address.startswith(REMOTE) else DirectorySource(address)


def sif_sources(settings: ResolverSettings) -> list[Source]:
    """Return the sources of SIFs: the origins, then the mirrors."""
    network = network_options(settings)
    return [open_source(address, network) for address in (*settings.origins, *settings.mirrors)]


def network_options(settings: ResolverSettings) -> NetworkOptions:
    """Return how these settings use the network."""
    return NetworkOptions(
        settings.cache,
        ca=settings.ca,
        federation=settings.federation,
        slowest=settings.slowest,
        fetch_with=settings.fetch_with,
        token_issuers=settings.token_issuers,
    )
