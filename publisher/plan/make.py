"""What a run will do, as a value: the list, the registries' answers and the last manifest in, a plan out.

Printing a plan and carrying it out start from the same value, so a dry run cannot drift from the real one. Pure: no network,
no files, no clock. Applying a plan and planning again gives a plan without work.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.errors import NotFoundError, PublisherError, UnsupportedError
from publisher.plan import retention
from publisher.state.paths import platform_key, sandbox_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import date

    from publisher.contract.manifest import Record, Version
    from publisher.images.reader import Entry
    from publisher.oci import Platform
    from publisher.state.snapshot import Snapshot


MOST_REMOVED = 0.05
"""Share of the published names that may leave in one run without the operator's word."""


class Action(Enum):
    """What becomes of an entry."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    GONE = "gone"
    FAILED = "failed"


@dataclass(frozen=True)
class ResolvedReference:
    """What a registry said of a reference.

    Attributes:
        digest: of what the tag means: an index, or the manifest of one platform.
        digests: wanted platform -> digest of its manifest; without those that the image does not have.
        offered: the platforms that it has, for people.
    """

    digest: str
    digests: Mapping[Platform, str]
    offered: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlatformTarget:
    """A platform of an entry that has to be made current.

    Attributes:
        platform: which one.
        digest: digest that it shall have.
        before: digest that the name has now, None where it has none.
        published: a version that stands already, with more forms perhaps: it is only linked; None where it has to be built.
        kept: a version taken over from another tool, whose sandbox stays as it is: only a SIF is made beside it. Else None.
    """

    platform: Platform
    digest: str
    before: str | None
    published: Version | None
    kept: Version | None = None


@dataclass(frozen=True)
class PlanItem:
    """The verdict on one entry.

    Attributes:
        entry: the entry.
        action: what becomes of it.
        reason: why, for people.
        digest: what its tag means; empty where the registry did not say.
        targets: the platforms to make current; empty unless NEW or CHANGED, and where only the source or ``leaving`` changed.
        leaving: the manifest's keys of platforms that are current and that the entry does not want any more.
        error: why nothing can be done, None unless GONE or FAILED.
    """

    entry: Entry
    action: Action
    reason: str
    digest: str = ""
    targets: tuple[PlatformTarget, ...] = ()
    leaving: tuple[str, ...] = ()
    error: PublisherError | None = None


@dataclass(frozen=True)
class Removal:
    """A published name that leaves: delisted, or gone from its registry. Its data goes later; see :mod:`publisher.state.transitions`."""

    name: str
    reason: str


@dataclass(frozen=True)
class UnlistedPattern:
    """A wildcard whose tags could not be listed: the names that it covers are not to be taken for delisted.

    Attributes:
        wildcard: as the list has it, for people.
        covers: whether a name could come from it.
        error: why nobody knows.
    """

    wildcard: str
    covers: Callable[[str], bool]
    error: PublisherError


@dataclass(frozen=True)
class Plan:
    """All verdicts in the list's order, and what leaves.

    Attributes:
        items: a verdict on every entry.
        removals: names that leave in this run.
        withheld: why the removals are not carried out, None where they are.
        kept: published names that nobody can say anything about now, with the reason: they stay as they are.
        unlisted: wildcards whose tags could not be listed.
        notes: lines for the operator: what leaves soon, what he holds back.
    """

    items: tuple[PlanItem, ...]
    removals: tuple[Removal, ...] = ()
    withheld: str | None = None
    kept: tuple[tuple[str, str], ...] = ()
    unlisted: tuple[UnlistedPattern, ...] = ()
    notes: tuple[str, ...] = ()

    def count(self, action: Action) -> int:
        """How many entries got this verdict."""
        return sum(item.action is action for item in self.items)

    @property
    def work(self) -> tuple[PlanItem, ...]:
        """The items that have something to do."""
        return tuple(item for item in self.items if item.action in {Action.NEW, Action.CHANGED})

    @property
    def leaving(self) -> tuple[Removal, ...]:
        """The removals that are carried out."""
        return () if self.withheld is not None else self.removals


def make_plan(
    entries: Iterable[Entry],
    answers: Mapping[str, ResolvedReference | PublisherError],
    snapshot: Snapshot,
    *,
    whole: bool = True,
    rebind: Collection[str] = (),
    unlisted: Sequence[UnlistedPattern] = (),
    allow_mass_removal: bool = False,
    today: date | None = None,
) -> Plan:
    """Compare the list with what is published.

    Args:
        entries: what is wanted.
        answers: CVMFS name -> what its registry said, or why it said nothing.
        snapshot: what is published.
        whole: ``entries`` is the whole list, so that names missing in it are delisted.
        rebind: names that may come from another repository than before.
        unlisted: wildcards of which nobody knows the tags now.
        allow_mass_removal: more than :data:`MOST_REMOVED` of the published names may leave in one run.
        today: entries that expire soon are announced; none are when None.
    """
    wanted = tuple(entries)
    items = tuple(_item(entry, answers[entry.name], snapshot, rebind) for entry in wanted)
    alive = [name for name, record in snapshot.records.items() if _is_alive(record)]
    absent = sorted(set(alive) - {entry.name for entry in wanted}) if whole else []
    kept = tuple((name, reason) for name in absent if (reason := _kept(name, unlisted)) is not None)
    stay = dict(kept)
    removals = [Removal(name, "no more in the list") for name in absent if name not in stay]
    removals += [
        Removal(item.entry.name, item.reason)
        for item in items
        if item.action is Action.GONE and item.entry.name in snapshot.records and _is_alive(snapshot.records[item.entry.name])
    ]
    withheld = None if allow_mass_removal else _too_many(len(removals), len(alive))
    return Plan(items, tuple(removals), withheld, kept, tuple(unlisted), tuple(_notes(wanted, snapshot, today)))


def _notes(entries: Sequence[Entry], snapshot: Snapshot, today: date | None) -> list[str]:
    found = [] if today is None else retention.announced(entries, today)
    held = [entry.name for entry in entries if (record := snapshot.records.get(entry.name)) is not None and record.held]
    return found + [f"{name} is rolled back and stays so until: publisher rollback --undo {name}" for name in held]


def _is_alive(record: Record) -> bool:
    """Whether the name still means something that is not on its way out."""
    return any(version.state == manifest.CURRENT for _, version in record.versions())


def _kept(name: str, unlisted: Sequence[UnlistedPattern]) -> str | None:
    """Why a name that no entry has may still be wanted, None where it is not."""
    return next((one.error.reason for one in unlisted if one.covers(name)), None)


def _too_many(leaving: int, published: int) -> str | None:
    if leaving <= MOST_REMOVED * published:
        return None
    share = f"more than {MOST_REMOVED:.0%}"
    return f"{leaving} of {published} published names would leave, {share}; if that is meant: --allow-mass-removal"


def source_of(entry: Entry) -> str:
    """The source as the manifest has it: the reference without a pinned digest."""
    return f"{entry.reference.registry}/{entry.reference.repository}:{entry.reference.tag}"


def _item(entry: Entry, answer: ResolvedReference | PublisherError, snapshot: Snapshot, rebind: Collection[str]) -> PlanItem:
    record = snapshot.records.get(entry.name)
    if isinstance(answer, PublisherError):
        return _failed(entry, answer, record)
    bound = _bound_elsewhere(entry, record, rebind)
    if bound is not None:
        return _failed(entry, bound, record)
    missing = [str(platform) for platform in entry.platforms if platform not in answer.digests]
    if missing:
        there = ", ".join(answer.offered) or "none that can be published"
        reason = f"the image has no {' and no '.join(missing)}; it has {there}"
        return _failed(entry, UnsupportedError(reason, hint="name platforms that it has under platforms:"), record)
    operators = _operators_word(answer, record, snapshot)
    if operators is not None:
        return _as_operator_wants(entry, answer, record, operators)
    targets = tuple(
        target for platform in entry.platforms if (target := _target(entry, platform, answer, record, snapshot)) is not None
    )
    return _verdict(entry, answer, record, targets)


def _operators_word(answer: ResolvedReference, record: Record | None, snapshot: Snapshot) -> str | PublisherError | None:
    """Why the operator wants a name left as it is, or an image not published under any; None where he said nothing."""
    if record is not None and any(versions and versions[0].state == manifest.BLOCKED for versions in record.platforms.values()):
        return "blocked by the operator"
    if record is not None and record.held is not None:
        return "rolled back by the operator"
    for digest in answer.digests.values():
        blocked = snapshot.blocked(digest)
        if blocked is not None:
            reason = f"its image {short(digest)} is blocked: {blocked.reason or 'no reason is given'}"
            return PublisherError(reason, hint=f"if it is not to be any more: publisher unblock {digest}")
    return None


def _as_operator_wants(entry: Entry, answer: ResolvedReference, record: Record | None, word: str | PublisherError) -> PlanItem:
    if isinstance(word, PublisherError):
        return _failed(entry, word, record)
    again = () if record is None else _again(entry, answer, record)
    if record is not None and again:
        return PlanItem(entry, Action.CHANGED, f"{word}; wanted again, and means what it meant", record.digest, again)
    return PlanItem(entry, Action.UNCHANGED, word, answer.digest)


def _again(entry: Entry, answer: ResolvedReference, record: Record) -> tuple[PlatformTarget, ...]:
    """Of a name that the operator wants left as it is: the platforms that left, or had left, and are wanted again.

    They mean the same version again, whatever the registry says. What was rolled back from never is that version.
    """
    passed = {} if record.held is None else record.held["from"]
    found = []
    for platform in entry.platforms:
        key = platform_key(platform)
        first = next(iter(record.platforms.get(key, ())), None)
        if first is None or not _forms(first) & entry.formats or first.digest in passed.get(key, ()):
            continue
        had_left = first.state == manifest.SUPERSEDED and (
            record.held is not None or first.digest == answer.digests[platform]  # or it is what an unblocked one left behind
        )
        if first.state == manifest.EXPIRING or had_left:
            found.append(PlatformTarget(platform, first.digest, first.digest, first))
    return tuple(found)


def _target(
    entry: Entry, platform: Platform, answer: ResolvedReference, record: Record | None, snapshot: Snapshot
) -> PlatformTarget | None:
    """What has to be done for one platform, None where it is current in just the forms that are wanted."""
    digest = answer.digests[platform]
    current = record.current(platform_key(platform)) if record is not None else None
    stays = current is not None and current.state == manifest.CURRENT
    if stays and current is not None and current.digest == digest and _forms(current) == entry.formats:
        return None
    published, kept = snapshot.version_of(digest), None
    if published is not None and not entry.formats <= _forms(published):
        kept = published if published.sandbox not in {None, sandbox_path(digest)} else None
        published = None
    return PlatformTarget(platform, digest, current.digest if current is not None else None, published, kept)


def _verdict(entry: Entry, answer: ResolvedReference, record: Record | None, targets: tuple[PlatformTarget, ...]) -> PlanItem:
    leaving = () if record is None else _unwanted(entry, record)
    if not targets and not leaving and record is not None and record.reference == source_of(entry):
        return PlanItem(entry, Action.UNCHANGED, "current", answer.digest)
    reasons = [_why(target, named=len(entry.platforms) > 1) for target in targets]
    reasons += [f"{platform} is wanted no more" for platform in leaving]
    why = "; ".join(reasons or ["comes from another source now"])
    return PlanItem(entry, Action.NEW if record is None else Action.CHANGED, why, answer.digest, targets, leaving)


def _unwanted(entry: Entry, record: Record) -> tuple[str, ...]:
    wanted = {platform_key(platform) for platform in entry.platforms}
    return tuple(
        platform
        for platform, versions in record.platforms.items()
        if platform not in wanted and any(version.state == manifest.CURRENT for version in versions)
    )


def _why(target: PlatformTarget, *, named: bool) -> str:
    prefix = f"{target.platform}: " if named else ""
    if target.before is None:
        text = f"new, {short(target.digest)}"
    elif target.before == target.digest:
        text = f"{short(target.digest)} is wanted again, or in another form"
    else:
        text = f"changed from {short(target.before)} to {short(target.digest)}"
    return prefix + text + (", published already under another name" if target.published is not None else "")


def short(digest: str) -> str:
    """A digest's first twelve digits, for people."""
    return digest.removeprefix("sha256:")[:12]


def _forms(version: Version) -> set[str]:
    return {form for form in ("sandbox", "sif") if getattr(version, form) is not None}


def _bound_elsewhere(entry: Entry, record: Record | None, rebind: Collection[str]) -> PublisherError | None:
    """A published name stays with the repository that it came from, until the operator says otherwise."""
    if record is None or entry.name in rebind:
        return None
    there, here = record.reference.rpartition(":")[0], source_of(entry).rpartition(":")[0]
    if there == here:
        return None
    return PublisherError(
        f"the name is bound to {there}, and the list gives it to {here}", hint=f"if that is meant: --rebind {entry.name}"
    )


def _failed(entry: Entry, error: PublisherError, record: Record | None) -> PlanItem:
    error.image = entry.name
    if isinstance(error, NotFoundError) and record is not None:
        return PlanItem(entry, Action.GONE, f"gone from its registry: {error.reason}", error=error)
    kept = "; what is published stays" if record is not None else ""
    return PlanItem(entry, Action.FAILED, f"{error.reason}{kept}", error=error)
