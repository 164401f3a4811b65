"""From a place's text, or the settings, to what reads it. What speaks to the network is imported when a place there is asked."""

from __future__ import annotations

import time

from publisher.resolver.transfer.sources import FEDERATED, REMOTE, DirectorySource, NetworkOptions, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.transfer.watchdog import TransferDeadline


class RemoteSource(Source):
    """A place in the network, whose ways are found when it is asked."""

    patience = 10.0
    local = False

    def __init__(self, address: str, network: NetworkOptions) -> None:
        super().__init__(address)
        self.network = network

    def ways(
        self, name: str, *, small: bool = False, fresh: bool = False, again: bool = False, until: float | None = None
    ) -> Iterator[Source]:
        """See :meth:`Source.ways`."""
        if self.text.startswith(FEDERATED):
            from publisher.resolver.transfer import pelican_source  # noqa: PLC0415 - most answers need no network

            return pelican_source.ways(self, name, small=small, fresh=fresh, again=again, until=until)
        from publisher.resolver.transfer.http_source import HttpSource  # noqa: PLC0415 - as above

        return iter((HttpSource(self.address, self.network),))

    def _pace(self) -> TransferDeadline:
        """A third of the patience: a server that says nothing must leave time for the next one."""
        from publisher.resolver.transfer.watchdog import TransferDeadline  # noqa: PLC0415 - as above

        return TransferDeadline(time.monotonic, time.monotonic() + self.patience / 3)


def source(text: str, network: NetworkOptions | None = None) -> Source:
    """The place that a text names: one in the network by its ``http(s)://``, ``pelican://`` or ``osdf://``, else a directory."""
    return RemoteSource(text, network or Source.network) if text.startswith(REMOTE) else DirectorySource(text)


def sif_sources(settings: ResolverSettings) -> list[Source]:
    """Where SIFs are fetched from: the origins, then the mirrors."""
    network = network_of(settings)
    return [source(text, network) for text in (*settings.origins, *settings.mirrors)]


def network_of(settings: ResolverSettings) -> NetworkOptions:
    """How the network is used by these settings."""
    return NetworkOptions(
        settings.cache,
        ca=settings.ca,
        federation=settings.federation,
        slowest=settings.slowest,
        fetch_with=settings.fetch_with,
    )
