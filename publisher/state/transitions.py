"""What a manifest's record becomes when its image is published, leaves, is blocked or rolled back. Pure: values in, values out.

A name whose versions are all superseded means nothing any more; it stays listed as long as data of it is there, so that paths
and digests that were handed out go on resolving.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, CURRENT, EXPIRING, SUPERSEDED, Record, Sif, Version
from publisher.errors import UsageError
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot

ADOPTED = "adopted"
"""The note of a version that was taken over: how it was recognised."""


def built_version(manifest: str, built: BuiltImage, formats: Collection[str], now: int, file_index: str | None = None) -> Version:
    """The version of a platform manifest's digest that was just built, in the wanted forms (``sandbox``, ``sif``).

    ``file_index`` is the sha256 of its file index (64 hex), None where it is not published.
    """
    return Version(
        manifest,
        sandbox=paths.sandbox_path(manifest) if "sandbox" in formats else None,
        sif=Sif(paths.sif_path(built.sha256), built.sha256, built.size) if "sif" in formats else None,
        published=now,
        unpacked_size=built.unpacked_size,
        files=built.files,
        file_index=file_index,
        test=built.test,
        tools=built.tools,
        notes=built.notes,
    )


def renewed_version(version: Version, formats: Collection[str], now: int) -> Version:
    """A published version, current from now on and in the wanted forms; :func:`succeeded` sees to the others."""
    value = version.to_json() | {"state": CURRENT, "since": now}
    left_out = {"until", "reason"} | ({"sandbox", "sif"} - set(formats))
    return Version.from_json({name: content for name, content in value.items() if name not in left_out})


def with_sif(version: Version, built: BuiltImage, formats: Collection[str], now: int) -> Version:
    """A version taken over from another tool, current and with a SIF beside its old sandbox, which has no file index.

    The sandbox is left out where ``formats`` has none.
    """
    value = {**renewed_version(version, formats, now).to_json(), "test": built.test, "tools": built.tools}
    sif = {"path": paths.sif_path(built.sha256), "sha256": built.sha256, "size": built.size}
    sizes = {"unpacked_size": built.unpacked_size, "files": built.files}
    return Version.from_json({**value, **sizes, "sif": sif, "notes": {**version.notes, **built.notes}})


def indexed_as(version: Version, other: Version) -> Version:
    """A version with the file index and sizes of another one of its manifest; with the tools too, where both name the sandbox."""
    names = {"file_index", "unpacked_size", "files"}
    if version.sandbox is not None and version.sandbox == other.sandbox:
        names.add("tools")
    return Version.from_json({**version.to_json(), **{name: said for name, said in other.to_json().items() if name in names}})


def indexed_alike(listed: Iterable[Record], version: Version) -> dict[str, Record]:
    """The records with versions of the same manifest that name another file index: with this one's, for a manifest has one."""

    def is_other(one: Version) -> bool:
        return one.digest == version.digest and one.file_index not in {None, version.file_index}

    concerned = [record for record in listed if any(is_other(one) for _, one in record.versions())]
    return {record.name: _each(record, lambda one: indexed_as(one, version) if is_other(one) else one) for record in concerned}


def succeeded(before: Record | None, source: str, digest: str, current: Mapping[str, Version], record_name: str) -> Record:
    """A name's record with new current versions; what was current is superseded, and other platforms stay, and so does a hold.

    A form that a current version has no more, but an earlier one of the same build has, stays listed as a superseded version
    of its own: its data is still used, and goes like any other's.

    Args:
        before: the record so far, None for a new name.
        source: where the image comes from.
        digest: what the source's tag means.
        current: platform's key -> its new version; the time its ``since`` says is when the older ones were superseded.
        record_name: the CVMFS name.
    """
    platforms = dict(before.platforms) if before is not None else {}
    for platform, version in current.items():
        platforms[platform] = (version, *_older(platforms.get(platform, ()), version))
    return Record(record_name, source, digest, platforms, None if before is None else before.rollback)


def leaving(record: Record, now: int, until: int, platforms: Collection[str] | None = None) -> Record:
    """A record whose name leaves: its current versions are used until ``until`` (seconds since the epoch), and then no more.

    ``platforms`` are the keys of those that leave, all where None.
    """
    changed = {
        platform: tuple(_in_state(version, EXPIRING, now, until) if version.state == CURRENT else version for version in versions)
        for platform, versions in record.platforms.items()
        if platforms is None or platform in platforms
    }
    return Record(record.name, record.reference, record.digest, {**record.platforms, **changed}, record.rollback)


def ended(record: Record, now: int) -> Record:
    """A record whose expiring versions are superseded where their time is over: its name means nothing any more there."""
    return _each(record, lambda version: _in_state(version, SUPERSEDED, now) if _is_over(version, now) else version)


def is_over(record: Record, now: int) -> bool:
    """Whether :func:`ended` would change the record."""
    return any(_is_over(version, now) for _, version in record.versions())


def without(record: Record, dropped: Collection[Version]) -> Record:
    """A record without some of its versions: these objects, not others of the same manifest."""
    platforms = {
        platform: kept
        for platform, versions in record.platforms.items()
        if (kept := tuple(version for version in versions if version not in dropped))
    }
    return Record(record.name, record.reference, record.digest, platforms, record.rollback)


def blocked(record: Record, digests: Collection[str], now: int, reason: str) -> Record:
    """A record in which nobody may run the versions with these manifests; their paths and digests stay known, to be refused."""
    return _each(
        record,
        lambda version: (
            Version.from_json({**_in_state(version, BLOCKED, now).to_json(), "reason": reason})
            if version.digest in digests
            else version
        ),
    )


def unblocked(record: Record, digests: Collection[str]) -> Record:
    """A record without the blocked versions that have these manifests: their data is gone, and a sync makes it anew."""
    return without(
        record, [version for _, version in record.versions() if version.state == BLOCKED and version.digest in digests]
    )


def rolled_back(record: Record, now: int) -> Record:
    """A record whose name means the version before on every platform that has one; it is held there until :func:`restored`.

    Raises:
        UsageError: it means nothing now, or there is no version before on any platform.
    """
    held = record.rollback or {"digest": record.digest, "from": {}}
    passed: dict[str, list[str]] = {platform: list(digests) for platform, digests in held["from"].items()}
    platforms = dict(record.platforms)
    for platform, versions in record.platforms.items():
        if versions[0].state != CURRENT:
            continue
        left = [*passed.get(platform, []), versions[0].digest]
        before = next((one for one in versions[1:] if one.state == SUPERSEDED and one.digest not in left), None)
        if before is not None:
            passed[platform] = left
            platforms[platform] = _to_front(versions, before.digest, now)
    if platforms == record.platforms:
        raise UsageError(f"{record.name} has no version before this one whose data is still there")
    digest = min(platforms.items())[1][0].digest  # what the tag meant then is not known; what the tag means now, it is not
    return Record(record.name, record.reference, digest, platforms, {"digest": held["digest"], "from": passed, "since": now})


def restored(record: Record, now: int) -> Record:
    """A record that was rolled back, back at the version it was rolled back from, where that one's data is still there.

    Raises:
        UsageError: it was not rolled back.
    """
    if record.rollback is None:
        raise UsageError(f"{record.name} is not rolled back")
    platforms = dict(record.platforms)
    for platform, (first, *_) in record.rollback["from"].items():
        versions = platforms.get(platform, ())
        if any(version.digest == first and version.state == SUPERSEDED for version in versions):
            platforms[platform] = _to_front(versions, first, now)
    return Record(record.name, record.reference, record.rollback["digest"], platforms)


def links(record: Record) -> dict[str, str]:
    """The links that show what a name means: path -> relative target.

    What is blocked, or is no sandbox, has none, and no other platform stands in for it.
    """
    meant = {
        platform: versions[0] for platform, versions in record.platforms.items() if versions and versions[0].state != SUPERSEDED
    }
    return {
        path: paths.link_target(path, sandbox)
        for path, platform in paths.link_paths(record.name, list(meant)).items()
        if meant[platform].state != BLOCKED and (sandbox := meant[platform].sandbox) is not None
    }


def _each(record: Record, change: Callable[[Version], Version]) -> Record:
    platforms = {platform: tuple(map(change, versions)) for platform, versions in record.platforms.items()}
    return Record(record.name, record.reference, record.digest, platforms, record.rollback)


def _is_over(version: Version, now: int) -> bool:
    return version.state == EXPIRING and version.until is not None and version.until <= now


def _to_front(versions: tuple[Version, ...], manifest: str, now: int) -> tuple[Version, ...]:
    """The version of a manifest becomes the current one, and what was current is superseded."""
    chosen = next(version for version in versions if version.digest == manifest)
    return (_in_state(chosen, CURRENT, now), *_older(versions, _in_state(chosen, CURRENT, now)))


def _older(versions: tuple[Version, ...], current: Version) -> tuple[Version, ...]:
    older = (_rest(version, current) if version.digest == current.digest else version for version in versions)
    return tuple(
        _in_state(version, SUPERSEDED, current.since) if version.state in {CURRENT, EXPIRING} else version
        for version in older
        if version is not None
    )


def _rest(version: Version, current: Version) -> Version | None:
    """A version in those of its forms that another one of the same build does not have, None where there are none."""
    value = version.to_json()
    if version.sandbox == current.sandbox:
        value.pop("sandbox", None)
    if version.sif is not None and current.sif is not None and version.sif.path == current.sif.path:
        del value["sif"]
    return Version.from_json(value) if {"sandbox", "sif"} & value.keys() else None


def _in_state(version: Version, state: str, since: int, until: int | None = None) -> Version:
    value = {**version.to_json(), "state": state, "since": since}
    for name in ("until", "reason"):
        value.pop(name, None)
    return Version.from_json(value if until is None else {**value, "until": until})


def adopted_versions(record: Record) -> list[Version]:
    """The adopted versions of a record whose data is there, the newest first."""
    found = [version for _, version in record.versions() if ADOPTED in version.notes and version.state != BLOCKED]
    return sorted((version for version in found if version.sandbox is not None), key=lambda one: -one.published)


def loss(snapshot: Snapshot, changed: Mapping[str, Record], now: int) -> str:
    """What adopted build was the first to be removed, by this change or before it, for people; empty where none was."""
    if snapshot.lost:
        return snapshot.lost
    for name, record in changed.items():
        before = snapshot.records.get(name)
        kept = adopted_versions(record)
        if before is not None and len(adopted_versions(before)) > len(kept):
            return f"a build of {name} was removed on {time.strftime('%Y-%m-%d', time.gmtime(now))}"
    return ""
