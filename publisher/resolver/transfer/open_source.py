"""From a place's text, or the settings, to what reads it. What speaks to the network is imported when a place there is asked."""

from __future__ import annotations

import time

from publisher.resolver.transfer.sources import FEDERATED, REMOTE, Directory, Network, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.resolver.config.settings import Settings
    from publisher.resolver.transfer.watchdog import Pace


class Remote(Source):
    """A place in the network, whose ways are found when it is asked."""

    patience = 10.0
    local = False

    def __init__(self, address: str, network: Network) -> None:
        super().__init__(address)
        self.network = network

    def ways(
        self, name: str, *, small: bool = False, fresh: bool = False, again: bool = False, until: float | None = None
    ) -> Iterator[Source]:
        """See :meth:`Source.ways`."""
        if self.text.startswith(FEDERATED):
            from publisher.resolver.transfer import pelican_source  # noqa: PLC0415 - most answers need no network

            return pelican_source.ways(self, name, small=small, fresh=fresh, again=again, until=until)
        from publisher.resolver.transfer.http_source import Web  # noqa: PLC0415 - as above

        return iter((Web(self.address, self.network),))

    def _pace(self) -> Pace:
        """A third of the patience: a server that says nothing must leave time for the next one."""
        from publisher.resolver.transfer.watchdog import Pace  # noqa: PLC0415 - as above

        return Pace(time.monotonic, time.monotonic() + self.patience / 3)


def source(text: str, network: Network | None = None) -> Source:
    """The place that a text names: one in the network by its ``http(s)://``, ``pelican://`` or ``osdf://``, else a directory."""
    return Remote(text, network or Source.network) if text.startswith(REMOTE) else Directory(text)


def sif_sources(settings: Settings) -> list[Source]:
    """Where SIFs are fetched from: the origins, then the mirrors."""
    network = network_of(settings)
    return [source(text, network) for text in (*settings.origins, *settings.mirrors)]


def network_of(settings: Settings) -> Network:
    """How the network is used by these settings."""
    return Network(
        settings.cache,
        ca=settings.ca,
        federation=settings.federation,
        slowest=settings.slowest,
        fetch_with=settings.fetch_with,
    )
