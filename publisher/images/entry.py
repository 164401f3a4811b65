"""The parsed image list: entries for single tags, and patterns that expand to entries when the registry's tags are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from publisher.errors import UsageError
from publisher.images import tag_order
from publisher.images.tag_patterns import TagSet
from publisher.images.variant import ImageVariant, plain
from publisher.system import safepath

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from publisher.contract.reference import Reference
    from publisher.images.signer import RequiredSigner
    from publisher.images.tag_order import Order
    from publisher.oci import Platform

NAME_TEMPLATES = ("{repository}:{tag}", "{registry}/{repository}:{tag}")
"""The templates that a CVMFS name can be made with."""
_COMMON_FIELDS = ("platforms", "formats", "owner", "project", "expires", "max_size", "private", "signer", "group", "line")


@dataclass(frozen=True)
class Entry:
    """An image of the list. Entries that differ only in line and group are equal.

    Attributes:
        name: the CVMFS name, such as ``htc/rocky:9``.
        reference: the image's reference; it has a tag unless it is the URL of a SIF, and a digest only if the list pins one.
        platforms: the platforms to publish, in the list's order; of a family its variants, each an
            :class:`publisher.images.variant.ImageVariant`.
        formats: ``sandbox``, ``sif`` or both.
        owner, project: who is responsible for the image and which project uses it, None if the list does not say.
        expires: the last day on which the image is published, None for no end.
        max_size: the largest total size of its unpacked files in bytes, None for no limit of its own.
        private: the image may be published although it cannot be pulled anonymously, if the operator agrees.
        signer: whose signature the image must have to be published, None if it needs none.
        group: the title of its group.
        line: its line in the file.
    """

    name: str
    reference: Reference
    platforms: tuple[Platform, ...]
    formats: frozenset[str]
    owner: str | None = None
    project: str | None = None
    expires: date | None = None
    max_size: int | None = None
    private: bool = False
    signer: RequiredSigner | None = None
    group: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def reference_for(self, platform: Platform) -> Reference:
        """Return the reference of the image for one of its platforms."""
        return platform.reference if isinstance(platform, ImageVariant) else self.reference

    def parts(self) -> tuple[Entry, ...]:
        """Return an entry for each of the images that it is made of, with platforms that have no conditions."""
        platforms: dict[Reference, dict[Platform, None]] = {}
        for platform in self.platforms:
            platforms.setdefault(self.reference_for(platform), {})[plain(platform)] = None
        return tuple(replace(self, reference=reference, platforms=tuple(own)) for reference, own in platforms.items())


@dataclass(frozen=True)
class Pattern:
    """A list entry with tag patterns: it stands for one image per matching tag of a repository.

    Attributes:
        reference: the registry and repository, without tag and digest.
        tags: tag patterns; a tag that matches any of them is selected,
        exclude: unless it matches any of these tags or tag patterns.
        platforms, formats, owner, project, expires, max_size, private, signer, group, line: as in :class:`Entry`, for each image.
        keep: the number of selected tags to publish, newest first; None for all.
        order: how tags are ordered, see :mod:`publisher.images.tag_order`.
        name_template: one of :data:`NAME_TEMPLATES`.
    """

    reference: Reference
    tags: tuple[str, ...]
    platforms: tuple[Platform, ...]
    formats: frozenset[str]
    exclude: tuple[str, ...] = ()
    keep: int | None = None
    order: Order = "version"
    owner: str | None = None
    project: str | None = None
    expires: date | None = None
    max_size: int | None = None
    private: bool = False
    signer: RequiredSigner | None = None
    group: str = field(default="", compare=False)
    name_template: str = NAME_TEMPLATES[0]
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """Return the pattern for messages: ``docker.io/gromacs/gromacs:*``."""
        return f"{self.reference}:{'|'.join(self.tags)}"

    @property
    def tag_set(self) -> TagSet:
        """The tags that it selects, before ``keep`` is applied."""
        return TagSet(self.tags, self.exclude)

    def covers(self, name: str) -> bool:
        """Return whether this pattern can produce a CVMFS name. ``keep`` is ignored: only the registry knows the newest tags."""
        prefix, _, tag = name.rpartition(":")
        return f"{prefix}:" == render_name(self.reference.pointing_at(""), self.name_template) and tag in self.tag_set


@dataclass(frozen=True)
class ImageList:
    """A parsed image list: its entries and its patterns, each in the file's order."""

    entries: tuple[Entry, ...]
    patterns: tuple[Pattern, ...] = ()

    def merge(self, expanded: Iterable[Entry]) -> tuple[Entry, ...]:
        """Return the list's own entries and those expanded from patterns, by line. On equal names the list's own entry wins."""
        own_names = {entry.name for entry in self.entries}
        merged = (*self.entries, *(entry for entry in expanded if entry.name not in own_names))
        return tuple(sorted(merged, key=lambda entry: entry.line))


def expand(pattern: Pattern, tags: Sequence[str]) -> tuple[Entry, ...]:
    """Return the entries that a pattern stands for, newest first.

    Args:
        pattern: the pattern.
        tags: all tags of the repository, in any order; duplicates count once.
    """
    selected = sorted({tag for tag in tags if tag in pattern.tag_set}, key=tag_order.key(pattern.order), reverse=True)
    common = {name: getattr(pattern, name) for name in _COMMON_FIELDS}
    references = [pattern.reference.pointing_at(tag) for tag in selected[: pattern.keep]]
    return tuple(Entry(render_name(reference, pattern.name_template), reference, **common) for reference in references)


def render_name(reference: Reference, name_template: str) -> str:
    """Return the CVMFS name that a template makes of a reference with a tag, without checking its length."""
    return name_template.format(registry=reference.registry, repository=reference.repository, tag=reference.tag)


def cvmfs_name(reference: Reference, name_template: str, name: str | None = None) -> str:
    """Return the name that an image is published under: the one that its entry gives, or what its reference with a tag makes.

    Raises:
        UsageError: a part of the name is longer than file systems allow.
    """
    name = name or render_name(reference, name_template)
    safepath.split(name, UsageError)
    return name
