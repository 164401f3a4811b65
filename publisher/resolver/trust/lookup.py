"""From the user's text for an image to the version it stands for. This module is pure.

A name stands for the current version on an architecture. A digest, or the path of a sandbox, stands for that version even after
the name has moved on. A reference with ``docker://`` is bound to its registry: ``docker://htc/rocky:9`` is Docker Hub's image,
and never an image of the same name in another registry.
"""

from __future__ import annotations

from publisher.contract.query import parse_text
from publisher.contract.records import BLOCKED
from publisher.resolver.errors import ArchitectureError, BlockedError, UnknownImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.contract.query import ImageQuery
    from publisher.contract.records import Record, Version

_DIGEST, _IMAGES = "sha256:", ".images/"


class FoundVersion:
    """A version of an image.

    Attributes:
        name: the CVMFS name of the image.
        arch: the architecture of the version.
        version: the version.
    """

    __slots__ = ("arch", "name", "version")

    def __init__(self, name: str, arch: str, version: Version) -> None:
        self.name = name
        self.arch = arch
        self.version = version


def parse_query(text: str, roots: Sequence[str]) -> ImageQuery:
    """Return what a text may stand for, see :func:`publisher.contract.query.parse_text`.

    Raises:
        InvalidReferenceError: the text is not a name, path, reference or digest.
        UnknownImageError: the text is a path outside this repository.
    """
    parsed = parse_text(text, roots)
    if parsed is None:
        raise UnknownImageError(
            f"{text!r} is not in the repository {roots[0]}", hint="check the path; this host resolves only that repository"
        )
    return parsed


def find_version(query: ImageQuery, arch: str, record_of: Callable[[str], Record | None]) -> FoundVersion:
    """Return the version that a query stands for.

    Args:
        query: the query, as :func:`parse_query` returns it.
        arch: the architecture of this machine, as Go names it.
        record_of: returns the record of a key, or None.

    Raises:
        UnknownImageError: there is no such image.
        ArchitectureError: the image is not published for this architecture.
        BlockedError: the image is blocked.
    """
    for key in query.keys:
        record = record_of(key)
        if record is not None:
            found = _select_version(record, key, query.arch or arch)
            if found.version.state == BLOCKED:
                raise BlockedError(f"the image {query.text!r} is blocked: {found.version.reason or 'no reason is given'}")
            return found
    key = query.keys[0]
    looked_up = f" (it was looked up as {key})" if key.endswith(":latest") and not query.text.endswith(":latest") else ""
    raise UnknownImageError(
        f"no image {query.text!r} is published{looked_up}", hint="check the tag; a new tag appears after the next sync"
    )


def _select_version(record: Record, key: str, arch: str) -> FoundVersion:
    """Return the version that ``key`` identifies, else the record's current version on ``arch``."""
    for platform, version in record.versions():
        sif = None if version.sif is None else f"{_DIGEST}{version.sif.sha256}"
        if key in (*version.identities, version.sandbox, sif):
            if platform != arch:
                raise ArchitectureError(
                    f"{key} is {record.name} for {platform}, but this machine is {arch}", hint="name the image by its tag"
                )
            return FoundVersion(record.name, platform, version)
    if key.startswith((_DIGEST, _IMAGES)) and key != record.digest:
        raise UnknownImageError(f"{key} is no longer a version of {record.name}", hint="name the image by its tag")
    current = record.current(arch)
    if current is None:
        available = ", ".join(sorted(platform for platform in record.platforms if record.current(platform)))
        raise ArchitectureError(
            f"{record.name} is not published for {arch}",
            hint=f"it is published for {available}" if available else "it is no longer published for any architecture",
        )
    return FoundVersion(record.name, arch, current)
