"""The plan of a run as values: what each registry answered, the decision on each entry, and the names that leave.

A dry run prints the same value that a real run carries out. :func:`publisher.plan.make.make_plan` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from publisher.contract.records import Version
    from publisher.errors import PublisherError
    from publisher.images.reader import Entry
    from publisher.oci import Platform
    from publisher.provenance.lookup import Provenance


class Action(Enum):
    """The decision on an entry.

    If it is extended, the image stays, and is published in other forms (SIF, sandbox) than now. The operator has blocked it, or
    holds it at an earlier version (rollback): then its registry does not matter.
    """

    NEW = "new"
    CHANGED = "changed"
    EXTENDED = "extended"
    UNCHANGED = "unchanged"
    HELD = "held"
    BLOCKED = "blocked"
    GONE = "gone"
    FAILED = "failed"


@dataclass(frozen=True)
class ResolvedReference:
    """A reference with the digests that its registry gave for it.

    Attributes:
        digest: digest of the tag: of an image index, or of the image manifest of one platform.
        digests: wanted platform -> digest of its image manifest; platforms that the image does not have are missing.
        configs: platform -> digest of its config, where its image manifest was read because it is new.
        offered: the platforms that the image has, as text for messages.
        provenance: platform -> provenance, where it was looked up because the image is new or not verified yet.
    """

    digest: str
    digests: Mapping[Platform, str]
    offered: tuple[str, ...] = ()
    provenance: Mapping[Platform, Provenance] = field(default_factory=dict)
    configs: Mapping[Platform, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlatformTarget:
    """One platform of an entry that has to be published.

    Attributes:
        platform: the platform.
        digest: digest of the image manifest to publish.
        previous: digest that the name has now, None where it has none.
        published: a published version of this digest, or of another image manifest with the same content, which only has to be
            linked; None where it has to be built.
        adopted: a version adopted from another tool: its sandbox stays and only a SIF is built; else None.
        provenance: the provenance of the image, None where it was not looked up.
        config: digest of the image's config, None where it is not known.
    """

    platform: Platform
    digest: str
    previous: str | None
    published: Version | None
    adopted: Version | None = None
    provenance: Provenance | None = None
    config: str | None = None

    @property
    def content(self) -> str:
        """Return the digest that sandbox and file index are stored under, see :class:`publisher.contract.records.Version`."""
        return self.config or self.digest

    @property
    def identities(self) -> frozenset[str]:
        """Return the digests that the image is known by: its image manifest's, and its config's."""
        return frozenset({self.digest, self.content})


@dataclass(frozen=True)
class PlanItem:
    """The decision on one entry.

    Attributes:
        entry: the entry.
        action: the decision.
        reason: why, for people.
        digest: digest of the tag; empty where the registry gave none.
        targets: the platforms to publish; empty if nothing is, or if only the reference or ``leaving`` changed.
        leaving: platform keys (as in the manifest) that are current and that the entry no longer asks for.
        error: why nothing can be published; None unless GONE or FAILED.
    """

    entry: Entry
    action: Action
    reason: str
    digest: str = ""
    targets: tuple[PlatformTarget, ...] = ()
    leaving: tuple[str, ...] = ()
    error: PublisherError | None = None

    @property
    def explanation(self) -> str:
        """Return the reason, followed by the hint of the error in parentheses if it has one."""
        return self.reason if self.error is None else with_hint(self.reason, self.error)


@dataclass(frozen=True)
class Removal:
    """A published name that leaves because it was delisted or is gone from its registry; its data is removed in a later run."""

    name: str
    reason: str


@dataclass(frozen=True)
class UnlistedPattern:
    """A pattern of which the tags could not be listed; the names that it covers must not be taken for delisted.

    Attributes:
        text: the pattern as the list has it, for messages.
        covers: returns whether a name could come from the pattern.
        error: why the tags are unknown.
    """

    text: str
    covers: Callable[[str], bool]
    error: PublisherError


@dataclass(frozen=True)
class Plan:
    """The decisions of one run.

    Attributes:
        items: the decision on every entry, in the order of the list.
        removals: names that leave in this run.
        withheld: why the removals are not carried out, None where they are.
        kept: published names that stay because their pattern's tags are unknown, each with the reason.
        unlisted: patterns of which the tags could not be listed.
        notes: lines for the operator: entries that expire soon, names that are rolled back.
        whole: whether it is the plan of the whole list.
        patterns: pattern of the list, as text -> the names that it stands for, the newest first.
    """

    items: tuple[PlanItem, ...]
    removals: tuple[Removal, ...] = ()
    withheld: str | None = None
    kept: tuple[tuple[str, str], ...] = ()
    unlisted: tuple[UnlistedPattern, ...] = ()
    notes: tuple[str, ...] = ()
    whole: bool = True
    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def count(self, action: Action) -> int:
        """Return how many entries have this decision."""
        return sum(item.action is action for item in self.items)

    @property
    def exit_code(self) -> int:
        """Return 0; or 1 if an image fails already, removals are withheld, or the tags of a pattern are unknown."""
        return 1 if self.count(Action.FAILED) or self.withheld is not None or self.unlisted else 0

    @property
    def work(self) -> tuple[PlanItem, ...]:
        """Return the items that have something to publish."""
        return tuple(item for item in self.items if item.action in {Action.NEW, Action.CHANGED, Action.EXTENDED})

    @property
    def leaving(self) -> tuple[Removal, ...]:
        """Return the removals that are carried out: none where they are withheld."""
        return () if self.withheld is not None else self.removals


def tag_reference(entry: Entry) -> str:
    """Return an entry's reference as the manifest has it: with its tag, without a pinned digest."""
    return str(entry.reference.pointing_at(entry.reference.tag))


def with_hint(reason: str, error: PublisherError) -> str:
    """Return a reason, followed by the error's hint in parentheses if it has one."""
    return reason if error.hint is None else f"{reason} ({error.hint})"
