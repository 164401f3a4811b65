"""Where an origin is, as people write it: ``pelican://FEDERATION/PREFIX``, ``osdf:///PREFIX`` or ``https://HOST/PREFIX``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_FORM = re.compile(rf"(?P<scheme>pelican|osdf|https)://(?P<host>{_HOST})?(?P<prefix>(?:/[A-Za-z0-9._-]+)*)/?", re.ASCII)


@dataclass(frozen=True)
class OriginAddress:
    """An origin that is reached over the network.

    Attributes:
        host: ``host`` or ``host:port``: of the federation, or of the server itself; empty for the federation of ``osdf:///``.
        prefix: the path below which everything is stored, ``/`` in front and none at its end; empty for the whole server.
        direct: the server is spoken to without asking a federation for it.
    """

    host: str
    prefix: str
    direct: bool

    def __str__(self) -> str:
        """As it can be written in settings."""
        if not self.host:
            return f"osdf://{self.prefix}"
        return f"{'https' if self.direct else 'pelican'}://{self.host}{self.prefix}"


def parse(text: str) -> OriginAddress:
    """An address from its text.

    Raises:
        ValueError: it is none; says what is wrong.
    """
    found = _FORM.fullmatch(text)
    if found is None or any(part in (".", "..") for part in found["prefix"].split("/")):
        raise ValueError(
            f"{text} is no place in a federation; write pelican://FEDERATION/PREFIX, osdf:///PREFIX or https://HOST/PREFIX"
        )
    scheme, host, prefix = found["scheme"], found["host"], found["prefix"]
    if scheme != "https" and not prefix:
        raise ValueError(f"{text} names no prefix: a federation is shared with others")
    if scheme == "osdf":
        if host is not None:
            raise ValueError(f"{text} names a host; write osdf:///PREFIX with three slashes, or pelican://{host}{prefix}")
        return OriginAddress("", prefix, direct=False)
    if host is None:
        raise ValueError(f"{text} names no host")
    return OriginAddress(host, prefix, direct=scheme == "https")
