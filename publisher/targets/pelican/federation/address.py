"""The address of an origin in the settings: ``pelican://FEDERATION/PREFIX``, ``osdf:///PREFIX`` or ``https://HOST/PREFIX``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_ADDRESS = re.compile(rf"(?P<scheme>pelican|osdf|https)://(?P<host>{_HOST})?(?P<prefix>(?:/[A-Za-z0-9._-]+)*)/?", re.ASCII)


@dataclass(frozen=True)
class OriginAddress:
    """The address of an origin that is reached over the network.

    Attributes:
        host: ``host`` or ``host:port`` of the federation, or of the server itself; empty for the federation of ``osdf:///``.
        prefix: the path below which everything is stored, with ``/`` at its beginning only; empty for the whole server.
        direct: whether the host is the origin itself, so that no federation is asked for it.
    """

    host: str
    prefix: str
    direct: bool

    def __str__(self) -> str:
        """Return the address as it is written in settings."""
        if not self.host:
            return f"osdf://{self.prefix}"
        return f"{'https' if self.direct else 'pelican'}://{self.host}{self.prefix}"


def parse(text: str) -> OriginAddress:
    """Parse an address.

    Raises:
        ValueError: the text is not an address; the message says why.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or any(part in (".", "..") for part in match["prefix"].split("/")):
        raise ValueError(
            f"{text} is not the address of an origin; write pelican://FEDERATION/PREFIX, osdf:///PREFIX or https://HOST/PREFIX"
        )
    scheme, host, prefix = match["scheme"], match["host"], match["prefix"]
    if scheme != "https" and not prefix:
        raise ValueError(f"{text} has no prefix, which is required because a federation is shared with others")
    if scheme == "osdf":
        if host is not None:
            raise ValueError(f"{text} has a host; write osdf:///PREFIX with three slashes, or pelican://{host}{prefix}")
        return OriginAddress("", prefix, direct=False)
    if host is None:
        raise ValueError(f"{text} has no host")
    return OriginAddress(host, prefix, direct=scheme == "https")
