"""Asks the caches of the settings after a run or a block; a failure is a line for people, and fails nothing."""

from __future__ import annotations

import logging
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.caches.client import CacheClient
from publisher.cli.assembly.pelican import make_tokens
from publisher.errors import PublisherError
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.loop import OriginLoop
from publisher.targets.pelican.tokens import FileTokens
from publisher.targets.pelican.transport import OriginTimeouts, OriginTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.settings.settings import PublisherSettings

_log = logging.getLogger(__name__)


def prestage(settings: PublisherSettings, sifs: Sequence[str]) -> list[str]:
    """Ask the caches to fetch SIFs, by their paths in the origin; return lines about those that do not."""
    return _ask(settings, sifs, "prestage")


def evict(settings: PublisherSettings, sifs: Sequence[str]) -> list[str]:
    """Ask the caches to evict SIFs, by their paths in the origin; return lines about those that do not."""
    return _ask(settings, sifs, "evict")


def _ask(settings: PublisherSettings, sifs: Sequence[str], action: str) -> list[str]:
    address = settings.targets().origin
    if not settings.caches or not sifs or not isinstance(address, OriginAddress):
        return []
    transport = OriginTransport(
        OriginTimeouts(settings.request_deadline, settings.request_deadline, settings.slowest_transfer),
        Proxies(urllib.request.getproxies_environment()),
        settings.origin_authority,
        AddressPolicy(settings.caches, settings.allowed_networks),
    )
    try:
        tokens = make_tokens(settings)
        removal = tokens if settings.removal_token_file is None else FileTokens(settings.removal_token_file)
        client = CacheClient(transport, tokens, removal, replace(RetryPolicy(), attempts=3))
        paths = [f"{address.prefix}/{path}" for path in sifs]
        caches = sorted(settings.caches)
        work = client.prestage(caches, paths) if action == "prestage" else client.evict(caches, paths)
        return OriginLoop(transport).run(work)
    except PublisherError as error:
        return [f"the caches could not be asked to {action}: {error}"]
