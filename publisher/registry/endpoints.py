"""The endpoints of registries: their own API, and their mirrors.

A mirror is a registry of its own, with its own name, credentials, rate limit and health. Nothing that belongs to the mirrored
registry, such as its credentials, is sent to a mirror.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarl import URL

from publisher.contract.reference import DOCKER_HUB
from publisher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HUB_API = "registry-1.docker.io"
_MIRROR = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[a-z0-9._/-]*)?", re.ASCII)


@dataclass(frozen=True)
class Endpoint:
    """A server that implements the OCI distribution API.

    Attributes:
        name: the name for its credentials, rate limit and errors: ``docker.io``, ``host:port``.
        url: scheme, host and port.
        prefix: what precedes the names of repositories there: ``""``, or ``proxy/`` for a proxy project of Harbor.
    """

    name: str
    url: URL
    prefix: str = ""

    def repository(self, repository: str) -> str:
        """Return the name that a repository has at this endpoint."""
        return self.prefix + repository

    def resource(self, repository: str, path: str) -> URL:
        """Return the URL of a repository's ``manifests/...``, ``blobs/...`` or ``tags/list``."""
        return self.url.joinpath("v2", *self.repository(repository).split("/"), *path.split("/"))


class Endpoints:
    """The endpoints of all registries.

    Args:
        insecure: registries (exact ``host:port``) that use plain http.
        mirrors: registry -> URLs of its mirrors, in the order in which they are used.

    Raises:
        ValueError: the URL of a mirror is invalid.
    """

    def __init__(self, insecure: frozenset[str], mirrors: Mapping[str, Sequence[str]]) -> None:
        self._insecure = insecure
        self._mirrors = {registry: tuple(map(parse_mirror, urls)) for registry, urls in mirrors.items()}
        self._origins: dict[str, Endpoint] = {}

    def configured(self) -> frozenset[str]:
        """Return the names of the endpoints that the operator has configured: insecure registries, and mirrors."""
        return self._insecure | {mirror.name for mirrors in self._mirrors.values() for mirror in mirrors}

    def mirrors(self, registry: str) -> tuple[Endpoint, ...]:
        """Return the mirrors of a registry."""
        return self._mirrors.get(registry, ())

    def origin(self, registry: str) -> Endpoint:
        """Return the endpoint of the registry itself.

        Raises:
            UnavailableError: the registry's host name or port is invalid.
        """
        if registry not in self._origins:
            self._origins[registry] = self._make_origin(registry)
        return self._origins[registry]

    def _make_origin(self, registry: str) -> Endpoint:
        scheme = "http" if registry in self._insecure else "https"
        try:
            return Endpoint(registry, URL(f"{scheme}://{_HUB_API if registry == DOCKER_HUB else registry}"))
        except ValueError:
            raise UnavailableError(f"{registry} is not a valid registry: its host name or port is invalid") from None


def parse_mirror(text: str) -> Endpoint:
    """Return the endpoint of a mirror from its URL; a path in the URL precedes the names of repositories.

    Raises:
        ValueError: the URL is invalid.
    """
    try:
        url = URL(text if _MIRROR.fullmatch(text) else "")
    except ValueError:
        url = URL()
    if url.host is None or "//" in url.path or ".." in text:
        example = "write a URL such as https://mirror.example or https://harbor.example/proxy"
        raise ValueError(f"{text!r} is not the URL of a mirror; {example}")
    host = f"[{url.host}]" if ":" in url.host else url.host
    path = url.path.strip("/")
    return Endpoint(host if url.is_default_port() else f"{host}:{url.port}", url.origin(), f"{path}/" if path else "")
