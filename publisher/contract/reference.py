"""Image references: ``[registry/]repository[:tag][@digest]``.

The grammar is that of ``github.com/distribution/reference``: a first part with a dot, a colon or ``localhost`` is a registry;
without one the registry is Docker Hub, where a repository of one part belongs to ``library``; without tag and digest the tag
is ``latest``. Everything else is refused with the reason.
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
_LAST_PORT = 65535
_LONGEST = 255  # characters of registry and repository together


class Reference:
    """A parsed reference, complete: nothing is left to defaults.

    Attributes:
        registry: host, with the port where one was given; ``docker.io`` for Docker Hub in all its spellings.
        repository: path within the registry.
        tag: None only where a digest stands alone.
        digest: ``sha256:<64 hex>`` or None.
    """

    __slots__ = ("digest", "registry", "repository", "tag")

    def __init__(self, registry: str, repository: str, tag: str | None = None, digest: str | None = None) -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest

    def __str__(self) -> str:
        """The whole reference: ``docker.io/library/debian:12``."""
        tag = "" if self.tag is None else f":{self.tag}"
        return f"{self.registry}/{self.repository}{tag}" + ("" if self.digest is None else f"@{self.digest}")

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse(text: str) -> Reference:
    """A reference from its text, ``docker://`` in front or not.

    Raises:
        InvalidReferenceError: not a reference; the reason says which part and why.
    """
    rest = text.removeprefix("docker://")
    rest, at, digest = rest.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _refused(text, f"{digest!r} is no digest: sha256: and 64 hexadecimal digits")
    registry, path = _split_registry(rest)
    repository, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _refused(text, f"{tag!r} is no tag: up to 128 of letters, digits, '_', '.', '-', the first no '.' or '-'")
    if not _REGISTRY.fullmatch(registry) or _port(registry) > _LAST_PORT:
        raise _refused(text, f"{registry!r} is no registry host")
    if not _REPOSITORY.fullmatch(repository):
        raise _refused(text, _why_no_repository(repository))
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if len(registry) + 1 + len(repository) > _LONGEST:
        raise _refused(text, f"more than {_LONGEST} characters")
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


def _why_no_repository(repository: str) -> str:
    if not repository:
        return "there is no repository in it"
    if repository != repository.lower():
        return f"the repository {repository!r} has capital letters"
    return f"{repository!r} is no repository: parts of small letters and digits, with single '.', '_', '__' or '-' between"


def _refused(text: str, why: str) -> InvalidReferenceError:
    return InvalidReferenceError(f"{text!r} is no image reference: {why}")
