"""What a list comes to: entries for single tags, patterns for those that a registry has to be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.contract.reference import Reference
from publisher.errors import UsageError
from publisher.images import tag_order as orders
from publisher.images.tag_globs import TagSet
from publisher.system import safepath

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from publisher.images.tag_order import Order
    from publisher.oci import Platform

NAME_TEMPLATES = ("{repository}:{tag}", "{registry}/{repository}:{tag}")
"""How a CVMFS name can be made of a reference."""
_COMMON = ("platforms", "formats", "owner", "project", "expires", "max_size", "private", "group", "line")


@dataclass(frozen=True)
class Entry:
    """One image of the list.

    Attributes:
        name: CVMFS name, ``htc/rocky:9``.
        reference: where it comes from; its tag is never None, its digest is where the entry pins one.
        platforms: which of its platforms are published, in the list's order.
        formats: ``sandbox``, ``sif`` or both.
        owner, project: who answers for it, where the list says so.
        expires: the last day it is published.
        max_size: bytes that its files may have, unpacked.
        private: it may be published though it cannot be pulled anonymously, if the operator agrees.
        group: title of its group.
        line: where it stands in the file. Entries that differ in nothing but line and group are equal.
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
    group: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Pattern:
    """A wildcard entry: an image for each of a repository's tags that it takes.

    Attributes:
        reference: registry and repository, without tag and digest.
        tags: wildcards; a tag that one of them matches is taken,
        exclude: but for those that one of these matches (wildcards, or tags).
        platforms, formats, owner, project, expires, max_size, private, group, line: as in :class:`Entry`, for each image.
        keep: how many of them, newest first; None for all.
        order: which are newest, see :mod:`publisher.images.tag_order`.
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
    group: str = field(default="", compare=False)
    name_template: str = NAME_TEMPLATES[0]
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """For people: ``docker.io/gromacs/gromacs:*``."""
        return f"{self.reference}:{'|'.join(self.tags)}"

    @property
    def taken(self) -> TagSet:
        """The tags that it takes, before ``keep``."""
        return TagSet(self.tags, self.exclude)

    def covers(self, name: str) -> bool:
        """Whether a CVMFS name could come from it (``keep`` aside: what is newest, the registry alone knows)."""
        rest, _, tag = name.rpartition(":")
        return f"{rest}:" == name_of(_tagged(self.reference, ""), self.name_template) and tag in self.taken


@dataclass(frozen=True)
class ImageList:
    """A list that was read: its entries and its patterns, each in the file's order."""

    entries: tuple[Entry, ...]
    patterns: tuple[Pattern, ...] = ()

    def merged(self, expanded: Iterable[Entry]) -> tuple[Entry, ...]:
        """All entries by their lines: the list's own, and of those that patterns came to the names that it does not have."""
        own = {entry.name for entry in self.entries}
        both = (*self.entries, *(entry for entry in expanded if entry.name not in own))
        return tuple(sorted(both, key=lambda entry: entry.line))


def expand(pattern: Pattern, tags: Sequence[str]) -> tuple[Entry, ...]:
    """The entries that a pattern comes to, newest first.

    Args:
        pattern: the pattern.
        tags: all tags that the repository has, in any order; a tag that stands there twice counts once.
    """
    found = sorted({tag for tag in tags if tag in pattern.taken}, key=orders.key(pattern.order), reverse=True)
    common = {name: getattr(pattern, name) for name in _COMMON}
    references = [_tagged(pattern.reference, tag) for tag in found[: pattern.keep]]
    return tuple(Entry(name_of(reference, pattern.name_template), reference, **common) for reference in references)


def name_of(reference: Reference, name_template: str) -> str:
    """The CVMFS name that a template makes of a reference with a tag; not checked."""
    return name_template.format(registry=reference.registry, repository=reference.repository, tag=reference.tag)


def cvmfs_name(reference: Reference, name_template: str) -> str:
    """The name that a reference with a tag is published under.

    Raises:
        UsageError: a part of it is longer than file systems have.
    """
    name = name_of(reference, name_template)
    safepath.split(name, UsageError)
    return name


def _tagged(reference: Reference, tag: str) -> Reference:
    return Reference(reference.registry, reference.repository, tag)
