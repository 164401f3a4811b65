"""From the user's text for an image to the version it stands for. This module is pure.

A name stands for the current version on an architecture; if the image has variants, for the most specific one whose conditions
the host meets. A digest, or the path of a sandbox, stands for that version even after the name has moved on. A reference with
``docker://`` is bound to its registry: ``docker://htc/rocky:9`` is Docker Hub's image, and never an image of the same name in
another registry.
"""

from __future__ import annotations

from publisher.contract.query import parse_text
from publisher.contract.records import BLOCKED, split_platform
from publisher.resolver.errors import ArchitectureError, BlockedError, UnknownImageError, VariantError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.contract.conditions import HostCapacity
    from publisher.contract.query import ImageQuery
    from publisher.contract.records import Record, Version

_DIGEST, _IMAGES = "sha256:", ".images/"


class FoundVersion:
    """A version of an image.

    Attributes:
        name: the CVMFS name of the image.
        arch: the architecture of the version.
        version: the version.
        variant: the variant that it is, as the record has it: ``amd64,x86-64-v3``; None if the image has no variants.
    """

    __slots__ = ("arch", "name", "variant", "version")

    def __init__(self, name: str, arch: str, version: Version, variant: str | None = None) -> None:
        self.name = name
        self.arch = arch
        self.version = version
        self.variant = variant


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


def find_version(
    query: ImageQuery, arch: str, record_of: Callable[[str], Record | None], host: Callable[[], HostCapacity]
) -> FoundVersion:
    """Return the version that a query stands for.

    Args:
        query: the query, as :func:`parse_query` returns it.
        arch: the architecture of this machine, as Go names it.
        record_of: returns the record of a key, or None.
        host: returns what this host offers; called only if the image has variants.

    Raises:
        UnknownImageError: there is no such image.
        ArchitectureError: the image is not published for this architecture.
        VariantError: no variant of the image is for this host.
        BlockedError: the image is blocked.
    """
    for key in query.keys:
        record = record_of(key)
        if record is not None:
            found = _select_version(record, key, query.arch or arch, host)
            if found.version.state == BLOCKED:
                raise BlockedError(f"the image {query.text!r} is blocked: {found.version.reason or 'no reason is given'}")
            return found
    key = query.keys[0]
    looked_up = f" (it was looked up as {key})" if key.endswith(":latest") and not query.text.endswith(":latest") else ""
    raise UnknownImageError(
        f"no image {query.text!r} is published{looked_up}", hint="check the tag; a new tag appears after the next sync"
    )


def _select_version(record: Record, key: str, arch: str, host: Callable[[], HostCapacity]) -> FoundVersion:
    """Return the version that ``key`` identifies, else the record's current version for the host on ``arch``."""
    for platform, version in record.versions():
        sif = None if version.sif is None else f"{_DIGEST}{version.sif.sha256}"
        if key in (*version.identities, version.sandbox, sif):
            if split_platform(platform)[0] != split_platform(arch)[0]:
                raise ArchitectureError(
                    f"{key} is {record.name} for {platform}, but this machine is {arch}", hint="name the image by its tag"
                )
            return _found(record, platform, version)
    if key.startswith((_DIGEST, _IMAGES)) and key != record.digest:
        raise UnknownImageError(f"{key} is no longer a version of {record.name}", hint="name the image by its tag")
    platform = arch if key.startswith(_DIGEST) else _choose_variant(record, arch, host)
    current = record.current(platform)
    if current is None:
        available = ", ".join(sorted(platform for platform in record.platforms if record.current(platform)))
        raise ArchitectureError(
            f"{record.name} is not published for {arch}",
            hint=f"it is published for {available}" if available else "it is no longer published for any architecture",
        )
    return _found(record, platform, current)


def _choose_variant(record: Record, arch: str, host: Callable[[], HostCapacity]) -> str:
    """Return the platform of the record that is best for a host on ``arch``; ``arch`` itself if there are no variants for it.

    Raises:
        VariantError: the host meets the conditions of no variant.
    """
    platforms = [platform for platform in record.platforms if split_platform(platform)[0] == arch and record.current(platform)]
    if platforms in ([], [arch]):
        return arch
    from publisher.contract.conditions import Conditions, most_specific  # noqa: PLC0415 - few images have variants

    capacity = host()
    fitting: dict[str, Conditions] = {}
    objections = []
    for platform in sorted(platforms):
        try:
            conditions = Conditions.parse(split_platform(platform)[1])
        except ValueError:
            objections.append(f"{platform}: this version of image-resolver does not know its conditions")
            continue
        unmet = conditions.objections(capacity)
        if unmet:
            objections.append(f"{platform}: {', '.join(unmet)}")
        else:
            fitting[platform] = conditions
    if not fitting:
        raise VariantError(
            f"no variant of {record.name} is for this host: {'; '.join(objections)}",
            hint="let the job's requirements ask for what one of them needs",
        )
    return most_specific(fitting)


def _found(record: Record, platform: str, version: Version) -> FoundVersion:
    has_variants = any(split_platform(other)[1] for other in record.platforms)
    return FoundVersion(record.name, split_platform(platform)[0], version, platform if has_variants else None)
