"""Where a registry is asked: its own API, and the mirrors in front of it.

A mirror is a registry of its own: it has its own name, and with it its own credentials, rate and health. Nothing of the
registry's goes to it.
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
    """One place that speaks the distribution API.

    Attributes:
        name: whose credentials, rate and errors: ``docker.io``, ``host:port``.
        url: scheme, host and port.
        prefix: what stands in front of repositories there, ``""`` or ``proxy/`` (Harbor's proxy projects).
    """

    name: str
    url: URL
    prefix: str = ""

    def repository(self, repository: str) -> str:
        """A repository's name there."""
        return self.prefix + repository

    def resource(self, repository: str, path: str) -> URL:
        """The URL of a repository's ``manifests/...``, ``blobs/...`` or ``tags/list``."""
        return self.url.joinpath("v2", *self.repository(repository).split("/"), *path.split("/"))


class Endpoints:
    """From registries to the places where they are asked.

    Args:
        insecure: registries (exact ``host:port``) that speak plain http.
        mirrors: registry -> URLs of its mirrors, the first one first.

    Raises:
        ValueError: a URL is no mirror's.
    """

    def __init__(self, insecure: frozenset[str], mirrors: Mapping[str, Sequence[str]]) -> None:
        self._insecure = insecure
        self._mirrors = {registry: tuple(map(mirror, urls)) for registry, urls in mirrors.items()}
        self._origins: dict[str, Endpoint] = {}

    def mirrors(self, registry: str) -> tuple[Endpoint, ...]:
        """A registry's mirrors."""
        return self._mirrors.get(registry, ())

    def origin(self, registry: str) -> Endpoint:
        """The registry itself.

        Raises:
            UnavailableError: no such place can be.
        """
        if registry not in self._origins:
            self._origins[registry] = self._origin(registry)
        return self._origins[registry]

    def _origin(self, registry: str) -> Endpoint:
        scheme = "http" if registry in self._insecure else "https"
        try:
            return Endpoint(registry, URL(f"{scheme}://{_HUB_API if registry == DOCKER_HUB else registry}"))
        except ValueError:
            raise UnavailableError(f"{registry} is no registry that could be asked: not a host, or no such port") from None


def mirror(text: str) -> Endpoint:
    """A mirror from its URL; a path in it stands in front of the repositories' names.

    Raises:
        ValueError: it is none.
    """
    try:
        url = URL(text if _MIRROR.fullmatch(text) else "")
    except ValueError:
        url = URL()
    if url.host is None or "//" in url.path or ".." in text:
        raise ValueError(f"{text!r} is no mirror; write a URL such as https://mirror.example or https://harbor.example/proxy")
    host = f"[{url.host}]" if ":" in url.host else url.host
    path = url.path.strip("/")
    return Endpoint(host if url.is_default_port() else f"{host}:{url.port}", url.origin(), f"{path}/" if path else "")
