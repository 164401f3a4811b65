"""This host's clock, compared with those of the manifest's servers: it decides whether an index has expired."""

from __future__ import annotations

import email.utils
import time

from publisher.resolver.errors import FetchError
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.transfer import http
from publisher.resolver.transfer.open_source import network_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.resolver.config.settings import ResolverSettings

MAX_ERROR = 86400
"""Seconds by which a clock may differ before that is reported."""
_TIMEOUT = 10.0  # seconds for each server
_WEB = ("http://", "https://")


def problems(settings: ResolverSettings, now: float) -> Sequence[str]:
    """Return a line for each server whose clock differs by more than a day; a server that does not answer is left out."""
    addresses = [address for address in settings.manifests if address.startswith(_WEB)]
    if any("://" in address and not address.startswith(_WEB) for address in settings.manifests) and settings.federation:
        addresses.append(f"https://{settings.federation}/.well-known/pelican-configuration")
    calls = [(address, ForkedCall(lambda address=address: _ask(address, settings))) for address in addresses]  # type: ignore[misc]
    until = time.monotonic() + _TIMEOUT
    lines = []
    for address, call in calls:
        try:
            difference = now - float(call.result(until))
        except (FetchError, ValueError):
            continue
        if abs(difference) > MAX_ERROR:
            server, where = address.split("/")[2].rpartition("@")[2], "ahead of" if difference > 0 else "behind"
            lines.append(
                f"the clock of this host is {abs(difference) / 86400:.1f} days {where} that of {server}: set one of them right"
            )
    return lines


def _ask(address: str, settings: ResolverSettings) -> bytes:
    """Return the time of a server, seconds since the epoch; nothing if it does not say."""
    with http.get(address, network_options(settings)) as response:
        said = email.utils.parsedate_tz(response.headers.get("Date", ""))
        return b"" if said is None else str(email.utils.mktime_tz(said)).encode()
