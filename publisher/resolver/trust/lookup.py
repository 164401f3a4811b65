"""From what a user calls an image to the very version that is meant. Pure.

A name leads to what it means now on an architecture; the digest or the sandbox's path of a version leads to that version, also
after the name has moved on. A reference with ``docker://`` in front is bound to its registry: ``docker://htc/rocky:9`` is
Docker Hub's, and never another registry's image of the same name.
"""

from __future__ import annotations

from publisher.contract.errors import InvalidReferenceError
from publisher.contract.manifest import BLOCKED
from publisher.resolver.errors import ArchitectureError, BlockedError, UnknownImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.contract.manifest import Record, Version

_DOCKER, _DIGEST = "docker://", "sha256:"
_IMAGES, _ARCHITECTURES = ".images/", ".arch/"


class ImageQuery:
    """What a text may stand for.

    Attributes:
        text: as the user gave it.
        keys: keys to look for in the manifest, the likeliest first.
        arch: the architecture that the text itself names, else None.
        path: the text as a path below the repository, None where it was not one.
    """

    __slots__ = ("arch", "keys", "path", "text")

    def __init__(self, text: str, keys: Sequence[str], arch: str | None = None, path: str | None = None) -> None:
        self.text = text
        self.keys = tuple(keys)
        self.arch = arch
        self.path = path


class FoundVersion:
    """A version of an image: ``name`` is the CVMFS name, ``arch`` its architecture."""

    __slots__ = ("arch", "name", "version")

    def __init__(self, name: str, arch: str, version: Version) -> None:
        self.name = name
        self.arch = arch
        self.version = version


def wanted(text: str, roots: Sequence[str]) -> ImageQuery:
    """What a text may stand for.

    Args:
        text: ``/cvmfs/<repository>/htc/rocky:9`` (or below any other of ``roots``, also a sandbox or ``.arch/`` below it),
            ``htc/rocky:9``, ``docker://<registry>/htc/rocky:9``, the same without ``docker://``, or ``sha256:<64 hex>``.
        roots: directories that are the repository.

    Raises:
        InvalidReferenceError: none of these.
        UnknownImageError: a path that is not in this repository.
    """
    if not text or not text.isprintable():
        raise InvalidReferenceError(f"{text!r} is no image's name")
    if text.startswith(_DOCKER):
        return ImageQuery(text, [_reference_key(text)])
    if text.startswith(_DIGEST):
        return ImageQuery(text, [text])
    path = _below(text, roots)
    if path is not None:
        return _in_repository(text, path)
    if text.startswith(("/", "./", "../")):
        raise UnknownImageError(f"{text!r} is not in the repository {roots[0]}", hint="another manifest may know it")
    return ImageQuery(text, _keys_of_name(text))


def find(want: ImageQuery, arch: str, record_of: Callable[[str], Record | None]) -> FoundVersion:
    """The version that is meant.

    Args:
        want: as :func:`wanted` gives it.
        arch: this machine's architecture, in Go's words.
        record_of: the record that a key leads to, None where there is none.

    Raises:
        UnknownImageError: no such image.
        ArchitectureError: not for this architecture.
        BlockedError: taken down.
    """
    for key in want.keys:
        record = record_of(key)
        if record is not None:
            found = _chosen(record, key, want.arch or arch)
            if found.version.state == BLOCKED:
                raise BlockedError(f"the image {want.text!r} is blocked: {found.version.reason or 'no reason is given'}")
            return found
    raise UnknownImageError(f"no image {want.text!r} is published", hint="is the tag right? a new one takes until the next sync")


def _below(text: str, roots: Sequence[str]) -> str | None:
    """The text as a path below one of the roots, without slashes too many."""
    slim = "/".join(part for index, part in enumerate(text.split("/")) if part or index == 0)
    for root in roots:
        if slim.startswith(f"{root}/"):
            return slim[len(root) + 1 :]
    return None


def _in_repository(text: str, path: str) -> ImageQuery:
    if path.startswith(_IMAGES):
        return ImageQuery(text, [path], path=path)
    if path.startswith(_ARCHITECTURES):
        arch, name = _split_architecture(path[len(_ARCHITECTURES) :])
        return ImageQuery(text, [_with_tag(name)], arch=arch, path=path)
    return ImageQuery(text, [_with_tag(path)], path=path)


def _split_architecture(rest: str) -> tuple[str, str]:
    """``arm64/htc/rocky:9`` or ``arm/v7/htc/rocky:9``: a variant is ``v`` and a number."""
    arch, _, name = rest.partition("/")
    variant, slash, after = name.partition("/")
    if slash and variant[:1] == "v" and variant[1:].isdigit():
        return f"{arch}/{variant}", after
    return arch, name


def _keys_of_name(text: str) -> list[str]:
    """A name of the repository, and the reference it is if no name. Names may have any form that an operator's template gives."""
    keys = [] if "@" in text else [_with_tag(text)]
    if "/" not in text and keys:
        keys.append(f"library/{keys[0]}")
    try:
        keys.append(_reference_key(text))
    except InvalidReferenceError:
        if not keys:
            raise
    return keys


def _reference_key(text: str) -> str:
    """A digest says all; a tag counts only together with its registry. Raises InvalidReferenceError."""
    from publisher.contract import reference  # noqa: PLC0415 - its patterns cost a millisecond, and most jobs name a path

    parsed = reference.parse(text)
    return parsed.digest or f"{_DOCKER}{parsed}"


def _with_tag(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _chosen(record: Record, key: str, arch: str) -> FoundVersion:
    """The version that ``key`` names itself; else what the record means on ``arch`` now."""
    for platform, version in record.versions():
        sif = None if version.sif is None else f"{_DIGEST}{version.sif.sha256}"
        if key in (version.digest, version.sandbox, sif):
            if platform != arch:
                raise ArchitectureError(
                    f"{key} is {record.name} for {platform}, this is {arch}", hint="name the image by its tag"
                )
            return FoundVersion(record.name, platform, version)
    if key.startswith((_DIGEST, _IMAGES)) and key != record.digest:
        raise UnknownImageError(f"{key} is no version of {record.name} any more")
    current = record.current(arch)
    if current is None:
        there = ", ".join(sorted(platform for platform in record.platforms if record.current(platform))) or "none any more"
        raise ArchitectureError(f"{record.name} is not published for {arch}", hint=f"it is for: {there}")
    return FoundVersion(record.name, arch, current)
