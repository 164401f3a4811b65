"""Image references: ``[registry/]repository[:tag][@digest]``.

The grammar is that of ``github.com/distribution/reference``. A first part with a dot or a colon, or ``localhost``, is a registry;
without one the registry is Docker Hub, where a repository of one part belongs to ``library``. Without a tag and a digest the tag
is ``latest``. Any other text is refused with the reason.
"""

from __future__ import annotations

import re

from publisher.contract.errors import InvalidReferenceError

DOCKER_HUB = "docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"  # 63 characters at most: RFC 1035, section 2.3.4
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_MAX_PORT = 65535
_MAX_LENGTH = 255  # characters of registry and repository together


class Reference:
    """A parsed reference with every default filled in.

    Attributes:
        registry: host, with a port if one was given; ``docker.io`` for all names of Docker Hub.
        repository: path within the registry.
        tag: the tag, None if the reference has only a digest.
        digest: ``sha256:<64 hex>`` or None.
        scheme: empty for an image; ``oras``, ``osdf`` or ``https`` for a SIF, see :mod:`publisher.images.sif_sources`.
    """

    __slots__ = ("digest", "registry", "repository", "scheme", "tag")

    def __init__(
        self, registry: str, repository: str, tag: str | None = None, digest: str | None = None, scheme: str = ""
    ) -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest
        self.scheme = scheme

    def pointing_at(self, tag: str | None, digest: str | None = None) -> Reference:
        """Return the reference of another tag or digest in the same repository."""
        return Reference(self.registry, self.repository, tag, digest, self.scheme)

    def __str__(self) -> str:
        """Return the complete reference: ``docker.io/library/debian:12``."""
        scheme = f"{self.scheme}://" if self.scheme else ""
        tag = "" if self.tag is None else f":{self.tag}"
        return f"{scheme}{self.registry}/{self.repository}{tag}" + ("" if self.digest is None else f"@{self.digest}")

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse(text: str) -> Reference:
    """Return the reference that a text describes; ``docker://`` in front is optional.

    Raises:
        InvalidReferenceError: the text is not a reference; the reason names the part and says why.
    """
    rest = text.removeprefix("docker://")
    rest, at, digest = rest.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _refused(text, f"{digest!r} is not a digest (sha256: and 64 hexadecimal digits)")
    registry, path = _split_registry(rest)
    repository, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _refused(text, f"{tag!r} is not a tag (up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-')")
    if not _REGISTRY.fullmatch(registry) or _port(registry) > _MAX_PORT:
        raise _refused(text, f"{registry!r} is not a registry host")
    if not _REPOSITORY.fullmatch(repository):
        raise _refused(text, _repository_problem(repository))
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if len(registry) + 1 + len(repository) > _MAX_LENGTH:
        raise _refused(text, f"it has more than {_MAX_LENGTH} characters")
    if not colon and not at:
        tag = "latest"
    return Reference(registry, repository, tag or None, digest or None)


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return DOCKER_HUB, text
    return (DOCKER_HUB if first in _HUB_NAMES else first), rest


def _port(registry: str) -> int:
    port = registry.rpartition(":")[2]
    return int(port) if port.isdigit() and registry != port else 0


def _repository_problem(repository: str) -> str:
    if not repository:
        return "it has no repository"
    if repository != repository.lower():
        return f"the repository {repository!r} has capital letters"
    return f"{repository!r} is not a repository (parts of lower-case letters and digits, joined by '.', '_', '__' or '-')"


def _refused(text: str, why: str) -> InvalidReferenceError:
    return InvalidReferenceError(f"{text!r} is not an image reference: {why}")
