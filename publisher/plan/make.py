"""Makes the plan of a run from the list, the registries' answers and the published state.

Pure: no network, no files, no clock. After a plan was carried out, planning again gives a plan without work.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, CURRENT, EXPIRING, SIF_SOURCE, SUPERSEDED, sif_note
from publisher.errors import NotFoundError, PublisherError, UnsupportedError
from publisher.images.sif_sources import HTTPS, OSDF
from publisher.plan import retention
from publisher.plan.model import Action, Plan, PlanItem, PlatformTarget, Removal, ResolvedReference, tag_reference
from publisher.state.paths import platform_key, sandbox_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import date

    from publisher.contract.records import Record, Version
    from publisher.images.reader import Entry
    from publisher.oci import Platform
    from publisher.plan.model import UnlistedPattern
    from publisher.state.snapshot import Snapshot

_log = logging.getLogger(__name__)

MAX_REMOVED_SHARE = 0.05
"""Largest share of the published names that may leave in one run without ``--allow-mass-removal``."""
FEW_REMOVALS = 3
"""Number of names that may leave whatever their share is, unless they are all names: a short list changes too."""


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
    patterns: Mapping[str, tuple[str, ...]] | None = None,
) -> Plan:
    """Return the plan that brings the published state in line with the list.

    Args:
        entries: the wanted entries.
        answers: CVMFS name -> its resolved reference, or why it could not be resolved.
        snapshot: the published state.
        whole: ``entries`` is the whole list, so that published names missing in it are delisted.
        rebind: names that may come from another repository of a registry than before.
        unlisted: patterns of which the tags are unknown.
        allow_mass_removal: more than :data:`MAX_REMOVED_SHARE` of the published names may leave in one run.
        today: the day, to announce entries that expire soon; None announces none.
        patterns: pattern of the list, as text -> the names that it stands for.
    """
    wanted = tuple(entries)
    items = tuple(_decide(entry, answers[entry.name], snapshot, rebind) for entry in wanted)
    active = [name for name, record in snapshot.records.items() if _is_active(record)]
    absent = sorted(set(active) - {entry.name for entry in wanted}) if whole else []
    kept = {name: reason for name in absent if (reason := _keep_reason(name, unlisted)) is not None}
    removals = [Removal(name, "no longer in the list") for name in absent if name not in kept]
    removals += [
        Removal(item.entry.name, item.reason)
        for item in items
        if item.action is Action.GONE and item.entry.name in snapshot.records and _is_active(snapshot.records[item.entry.name])
    ]
    withheld = None if allow_mass_removal else _withhold_reason(len(removals), len(active))
    _log_decisions(items, removals, kept)
    notes = tuple(_notes(wanted, snapshot, today))
    return Plan(items, tuple(removals), withheld, tuple(kept.items()), tuple(unlisted), notes, whole, patterns or {})


def short(digest: str) -> str:
    """Return the first twelve hex digits of a digest, for messages."""
    return digest.removeprefix("sha256:")[:12]


def _log_decisions(items: Iterable[PlanItem], removals: Iterable[Removal], kept: Mapping[str, str]) -> None:
    for item in items:
        _log.debug("%s: %s: %s", item.entry.name, item.action.value, item.reason)
    for removal in removals:
        _log.debug("%s: leaves: %s", removal.name, removal.reason)
    for name, reason in kept.items():
        _log.debug("%s: kept: %s", name, reason)


def _notes(entries: Sequence[Entry], snapshot: Snapshot, today: date | None) -> list[str]:
    notes = [] if today is None else retention.expiry_notes(entries, today)
    records = (snapshot.records.get(entry.name) for entry in entries)
    names = [record.name for record in records if record is not None and record.rollback]
    return notes + [f"{name} stays rolled back until you run: publisher rollback --undo {name}" for name in names]


def _is_active(record: Record) -> bool:
    """Return whether any version of the name is current, that is, the name is not leaving already."""
    return any(version.state == CURRENT for _, version in record.versions())


def _keep_reason(name: str, unlisted: Sequence[UnlistedPattern]) -> str | None:
    """Return why a name that no entry has may still be wanted, None where it is not."""
    return next((pattern.error.reason for pattern in unlisted if pattern.covers(name)), None)


def _withhold_reason(leaving: int, published: int) -> str | None:
    """Return why so many removals are not carried out, None where they are few enough."""
    if not leaving or (leaving <= max(MAX_REMOVED_SHARE * published, FEW_REMOVALS) and leaving < published):
        return None
    share = "that is all of them" if leaving >= published else f"more than {MAX_REMOVED_SHARE:.0%}"
    return f"{leaving} of {published} published names would leave, {share}; if this is intended, add --allow-mass-removal"


# --- the decision on one entry


def _decide(entry: Entry, answer: ResolvedReference | PublisherError, snapshot: Snapshot, rebind: Collection[str]) -> PlanItem:
    record = snapshot.records.get(entry.name)
    if isinstance(answer, PublisherError):
        return _failed(entry, answer, record)
    bound = _bound_elsewhere(entry, record, rebind)
    if bound is not None:
        return _failed(entry, bound, record)
    missing = [str(platform) for platform in entry.platforms if platform not in answer.digests]
    if missing:
        offered = ", ".join(answer.offered) or "no platform that can be published"
        reason = f"the image has no {' and no '.join(missing)}; it has {offered}"
        hint = "under platforms:, name platforms that the image has"
        return _failed(entry, UnsupportedError(reason, hint=hint), record)
    pinned = None if record is None else _pin(record)
    if record is not None and pinned is not None:
        return _decide_pinned(entry, answer, record, *pinned)
    refused = _blocked_image(answer, snapshot) or _other_architecture(answer, snapshot)
    if refused is not None:
        return _failed(entry, refused, record)
    targets = [_target(entry, platform, answer, record, snapshot) for platform in entry.platforms]
    return _compare(entry, answer, record, tuple(target for target in targets if target is not None))


def _bound_elsewhere(entry: Entry, record: Record | None, rebind: Collection[str]) -> PublisherError | None:
    """Return an error if a published name would come from another repository than before and the operator did not allow it."""
    if record is None or entry.name in rebind:
        return None
    published, wanted = _source(record.reference), _source(tag_reference(entry))
    if published == wanted:
        return None
    return PublisherError(
        f"the name is bound to {published}, but the list takes it from {wanted}",
        hint=f"if this is intended, add --rebind {entry.name}",
    )


def _source(reference: str) -> str:
    """Return what a name is bound to: registry and repository, or the directory of a SIF at a URL."""
    is_url = reference.startswith((f"{OSDF}:", f"{HTTPS}:"))
    return reference.rpartition("/" if is_url else ":")[0]


def _pin(record: Record) -> tuple[Action, str] | None:
    """Return how and why the operator keeps a name as it is, None where it follows its tag."""
    first = [versions[0] for versions in record.platforms.values() if versions]
    blocked = next((version for version in first if version.state == BLOCKED), None)
    if blocked is not None:
        return Action.BLOCKED, f"blocked by the operator: {blocked.reason or 'no reason was given'}"
    return (Action.HELD, "rolled back by the operator") if record.rollback is not None else None


def _blocked_image(answer: ResolvedReference, snapshot: Snapshot) -> PublisherError | None:
    """Return an error if the image of any platform is blocked, under whatever name."""
    for digest in (*answer.digests.values(), *answer.configs.values()):
        blocked = snapshot.blocked_version(digest)
        if blocked is not None:
            reason = f"its image {short(blocked.digest)} is blocked: {blocked.reason or 'no reason was given'}"
            return PublisherError(reason, hint=f"to lift the block, run: publisher unblock {blocked.digest}")
    return None


def _other_architecture(answer: ResolvedReference, snapshot: Snapshot) -> PublisherError | None:
    """Return an error if what is wanted for a platform is a published SIF for another one, as only the SIF itself says."""
    wanted = [*answer.digests.items(), *answer.configs.items()]
    for platform, digest in wanted:
        version = snapshot.version_of(digest)
        note = None if version is None else version.notes.get(SIF_SOURCE)
        if note is not None and note != sif_note(platform.architecture):
            return UnsupportedError(f"it is listed for {platform}, and is a {note}", hint="correct platforms: in its entry")
    return None


def _decide_pinned(entry: Entry, answer: ResolvedReference, record: Record, action: Action, reason: str) -> PlanItem:
    """Return the decision on a name that the operator keeps as it is."""
    returning = _returning(entry, answer, record)
    if not returning:
        return PlanItem(entry, action, reason, answer.digest)
    return PlanItem(entry, Action.CHANGED, f"{reason}; wanted again, with the same version as before", record.digest, returning)


def _returning(entry: Entry, answer: ResolvedReference, record: Record) -> tuple[PlatformTarget, ...]:
    """Return the platforms of a pinned name that were leaving, or had left, and are wanted again.

    They get the same version again, whatever the registry says now. A version that was rolled back from never returns.
    """
    rolled_back = {} if record.rollback is None else record.rollback["from"]
    targets = []
    for platform in entry.platforms:
        key = platform_key(platform)
        first = next(iter(record.platforms.get(key, ())), None)
        if first is None or not _formats(first) & entry.formats or first.digest in rolled_back.get(key, ()):
            continue
        had_left = first.state == SUPERSEDED and (
            record.rollback is not None or first.digest == answer.digests[platform]  # or an unblocked version left it behind
        )
        if first.state == EXPIRING or had_left:
            targets.append(PlatformTarget(platform, first.digest, first.digest, first, config=first.config))
    return tuple(targets)


def _target(
    entry: Entry, platform: Platform, answer: ResolvedReference, record: Record | None, snapshot: Snapshot
) -> PlatformTarget | None:
    """Return what has to be done for one platform, None where it is current in exactly the wanted formats."""
    digest, provenance = answer.digests[platform], answer.provenance.get(platform)
    current = record.current(platform_key(platform)) if record is not None else None
    if current is not None and current.state == CURRENT and current.digest == digest and _formats(current) == entry.formats:
        if provenance is None or provenance.signed in (None, current.signed):
            return None
        return PlatformTarget(platform, digest, digest, current, provenance=provenance, config=current.config)
    known = snapshot.version_of(digest)
    config = answer.configs.get(platform) if known is None else known.config
    candidates = (known, None if config is None else snapshot.version_of(config))
    published = next((one for one in candidates if one is not None and entry.formats <= _formats(one)), None)
    is_adopted = known is not None and known.sandbox not in {None, sandbox_path(known.content)}
    previous = current.digest if current is not None else None
    adopted = known if is_adopted and published is None else None
    return PlatformTarget(platform, digest, previous, published, adopted, provenance, config)


def _compare(entry: Entry, answer: ResolvedReference, record: Record | None, targets: tuple[PlatformTarget, ...]) -> PlanItem:
    """Return the decision on an entry that follows its tag: unchanged where nothing differs from what is published."""
    leaving = () if record is None else _unwanted_platforms(entry, record)
    if not targets and not leaving and record is not None and record.reference == tag_reference(entry):
        return PlanItem(entry, Action.UNCHANGED, "current", answer.digest)
    reasons = [_target_reason(entry, target, record) for target in targets]
    reasons += [f"{platform} is no longer wanted" for platform in leaving]
    reason = "; ".join(reasons or ["its reference changed"])
    is_extended = bool(targets) and not leaving and all(_current(record, target) is not None for target in targets)
    action = Action.NEW if record is None else Action.EXTENDED if is_extended else Action.CHANGED
    return PlanItem(entry, action, reason, answer.digest, targets, leaving)


def _unwanted_platforms(entry: Entry, record: Record) -> tuple[str, ...]:
    wanted = {platform_key(platform) for platform in entry.platforms}
    return tuple(
        platform
        for platform, versions in record.platforms.items()
        if platform not in wanted and any(version.state == CURRENT for version in versions)
    )


def _current(record: Record | None, target: PlatformTarget) -> Version | None:
    """Return the version of a target that the name means already, None where it means another one or leaves."""
    version = None if record is None else record.current(platform_key(target.platform))
    return version if version is not None and version.state == CURRENT and version.digest == target.digest else None


def _target_reason(entry: Entry, target: PlatformTarget, record: Record | None) -> str:
    prefix = f"{target.platform}: " if len(entry.platforms) > 1 else ""
    current = _current(record, target)
    if target.previous is None:
        text = f"new, {short(target.digest)}"
    elif current is not None and target.adopted is not None:
        text = f"{short(target.digest)} is current as it was adopted, and gets its {_listed(entry.formats - _formats(current))}"
    elif current is not None and target.provenance is not None and target.provenance.signed not in (None, current.signed):
        text = f"{short(target.digest)} stays, and is signed by {target.provenance.signer}"
    elif current is not None:
        text = f"{short(target.digest)} stays, as {_listed(entry.formats)} instead of {_listed(_formats(current))}"
    elif target.previous == target.digest:
        text = f"{short(target.digest)} was leaving and is wanted again"
    else:
        text = f"changed from {short(target.previous)} to {short(target.digest)}"
    if target.published is None or target.published is current:
        return prefix + text
    same = target.published.digest == target.digest
    return f"{prefix}{text}, {'already published under another name' if same else 'whose content is published already'}"


def _listed(formats: Collection[str]) -> str:
    return " and ".join({"sif": "SIF"}.get(name, name) for name in sorted(formats))


def _formats(version: Version) -> set[str]:
    return {name for name in ("sandbox", "sif") if getattr(version, name) is not None}


def _failed(entry: Entry, error: PublisherError, record: Record | None) -> PlanItem:
    error.image = entry.name
    if isinstance(error, NotFoundError) and record is not None:
        return PlanItem(entry, Action.GONE, f"gone from its registry: {error.reason}", error=error)
    suffix = "; the published version stays" if record is not None else ""
    return PlanItem(entry, Action.FAILED, f"{error.reason}{suffix}", error=error)
