"""How a record of the manifest changes when its image is published, removed, blocked or rolled back.

All functions are pure: they return new values. A name whose versions are all superseded no longer resolves; its record stays
as long as its data exists, so that paths and digests that were handed out go on resolving.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.contract.records import ADOPTED, BLOCKED, CURRENT, EXPIRING, SUPERSEDED, Record, Sif, Version
from publisher.errors import UsageError
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from typing import Any

    from publisher.contract.records import Chunks
    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot


def make_version(
    digest: str,
    built: BuiltImage,
    formats: Collection[str],
    now: int,
    *,
    file_index: str | None = None,
    config: str | None = None,
) -> Version:
    """Return the version of an image that was just built.

    Args:
        digest: digest of the platform's image manifest.
        built: the build.
        formats: the forms that are published, of ``sandbox`` and ``sif``.
        now: seconds since the epoch.
        file_index: sha256 (64 hex digits) of the file index, None if it is not published.
        config: digest of the image's config, None where the image is known without.
    """
    return Version(
        digest,
        config=config,
        sandbox=paths.sandbox_path(config or digest) if "sandbox" in formats else None,
        sif=Sif.from_json(_sif(built)) if "sif" in formats else None,
        published=now,
        unpacked_size=built.unpacked_size,
        files=built.files,
        file_index=file_index,
        test=built.test,
        tools=built.tools,
        notes=built.notes,
    )


def reuse(version: Version, digest: str, formats: Collection[str], now: int) -> Version:
    """Return the version of an image manifest that has the content of a published version: nothing is built for it.

    What was attached to the other image manifest, and who has signed that one, says nothing of this one.
    """
    renewed = renew(version, formats, now)
    if version.digest == digest:
        return renewed
    value = {**renewed.to_json(), "digest": digest, "published": now}
    return Version.from_json({name: content for name, content in value.items() if name not in {"attached", "signed"}})


def renew(version: Version, formats: Collection[str], now: int) -> Version:
    """Return a published version as current from now on, in the wanted forms; :func:`set_current` supersedes the others."""
    value = version.to_json() | {"state": CURRENT, "since": now}
    omitted = {"until", "reason"} | ({"sandbox", "sif"} - set(formats))
    return Version.from_json({name: content for name, content in value.items() if name not in omitted})


def add_sif(version: Version, built: BuiltImage, formats: Collection[str], now: int) -> Version:
    """Return an adopted version as current and with a new SIF beside its old sandbox, which has no file index.

    The sandbox is omitted unless ``formats`` has it.
    """
    value = {**renew(version, formats, now).to_json(), "test": built.test, "tools": built.tools}
    if built.config is not None:
        value["config"] = built.config
    sizes = {"unpacked_size": built.unpacked_size, "files": built.files}
    return Version.from_json({**value, **sizes, "sif": _sif(built), "notes": {**version.notes, **built.notes}})


def with_provenance(version: Version, attached: list[dict[str, str]], signed: Mapping[str, str] | None) -> Version:
    """Return a version with what is attached to its image, and with the signer whose signature of it was verified."""
    known = {"attached": attached or None, "signed": signed}
    value = {**version.to_json(), **known}
    return Version.from_json({name: content for name, content in value.items() if content is not None})


def with_reference(version: Version, reference: str | None) -> Version:
    """Return a version with the reference of its image, None for that of the record."""
    value = {name: content for name, content in version.to_json().items() if name != "reference"}
    return Version.from_json(value if reference is None else {**value, "reference": reference})


def copy_file_index(version: Version, other: Version) -> Version:
    """Return a version with the file index and sizes of another version of the same content.

    The tools are copied too if both have the same sandbox.
    """
    copied = {"file_index", "unpacked_size", "files"}
    if version.sandbox is not None and version.sandbox == other.sandbox:
        copied.add("tools")
    return Version.from_json({**version.to_json(), **{name: value for name, value in other.to_json().items() if name in copied}})


def spread_file_index(records: Iterable[Record], version: Version) -> dict[str, Record]:
    """Return the changed records (by name) after giving every version of the same content the file index of ``version``.

    A content has one file index: only versions that name another one are changed.
    """

    def differs(other: Version) -> bool:
        return other.content == version.content and other.file_index not in {None, version.file_index}

    concerned = [record for record in records if any(differs(other) for _, other in record.versions())]
    return {
        record.name: _each(record, lambda other: copy_file_index(other, version) if differs(other) else other)
        for record in concerned
    }


def replace_sif(records: Iterable[Record], lost: Sif, built: BuiltImage) -> dict[str, Record]:
    """Return the changed records (by name) after giving every version with the SIF ``lost`` that of a new build of its image."""

    def replaced(version: Version) -> Version:
        tools = built.tools if version.sandbox is None else version.tools  # those that made the sandbox, where there is one
        return Version.from_json({**version.to_json(), "sif": _sif(built), "test": built.test, "tools": tools})

    return _each_with_sif(records, {lost.path}, replaced)


def set_chunks(records: Iterable[Record], chunks: Mapping[str, Chunks | None]) -> dict[str, Record]:
    """Return the changed records (by name) after naming the chunk tables of SIFs: path of a SIF -> its table, None for none."""

    def with_table(version: Version) -> Version:
        if version.sif is None:
            raise AssertionError
        sif = Sif(version.sif.path, version.sif.sha256, version.sif.size, chunks[version.sif.path])
        return Version.from_json({**version.to_json(), "sif": sif.to_json()})

    return _each_with_sif(records, chunks.keys(), with_table)


def set_current(before: Record | None, reference: str, digest: str, current: Mapping[str, Version], record_name: str) -> Record:
    """Return a name's record with new current versions; the former ones are superseded, other platforms and a rollback stay.

    If the new version of a build lacks a form that its earlier version had, that form stays as a superseded version: its data is
    still in use, and is removed like any other.

    Args:
        before: the record so far, None for a new name.
        reference: the image's reference in its registry.
        digest: the digest that the tag has now.
        current: platform key -> new version; the older versions are superseded at its ``since``.
        record_name: the CVMFS name.
    """
    platforms = dict(before.platforms) if before is not None else {}
    for platform, version in current.items():
        platforms[platform] = (version, *_older(platforms.get(platform, ()), version))
    return Record(record_name, reference, digest, platforms, None if before is None else before.rollback)


def expire(record: Record, now: int, until: int, platforms: Collection[str] | None = None) -> Record:
    """Return a record whose current versions expire at ``until`` (seconds since the epoch).

    ``platforms`` are the keys of the platforms that expire, None for all.
    """
    changed = {
        platform: tuple(_in_state(version, EXPIRING, now, until) if version.state == CURRENT else version for version in versions)
        for platform, versions in record.platforms.items()
        if platforms is None or platform in platforms
    }
    return Record(record.name, record.reference, record.digest, {**record.platforms, **changed}, record.rollback)


def supersede_expired(record: Record, now: int) -> Record:
    """Return a record whose expired versions are superseded: the name no longer resolves on those platforms."""
    return _each(record, lambda version: _in_state(version, SUPERSEDED, now) if _has_expired(version, now) else version)


def has_expired(record: Record, now: int) -> bool:
    """Return whether :func:`supersede_expired` would change the record."""
    return any(_has_expired(version, now) for _, version in record.versions())


def drop_versions(record: Record, dropped: Collection[Version]) -> Record:
    """Return a record without some of its versions (these very objects, not others of the same digest)."""
    platforms = {
        platform: remaining
        for platform, versions in record.platforms.items()
        if (remaining := tuple(version for version in versions if version not in dropped))
    }
    return Record(record.name, record.reference, record.digest, platforms, record.rollback)


def block(record: Record, digests: AbstractSet[str], now: int, reason: str) -> Record:
    """Return a record whose versions with these digests (of image manifests or configs) are blocked.

    Their paths and digests stay known, so as to be refused.
    """
    return _each(
        record,
        lambda version: (
            Version.from_json({**_in_state(version, BLOCKED, now).to_json(), "reason": reason})
            if not digests.isdisjoint(version.identities)
            else version
        ),
    )


def unblock(record: Record, digests: AbstractSet[str]) -> Record:
    """Return a record without the blocked versions of these digests, as in :func:`block`.

    Their data is deleted, and the next sync builds it again.
    """
    return drop_versions(
        record,
        [version for _, version in record.versions() if version.state == BLOCKED and not digests.isdisjoint(version.identities)],
    )


def roll_back(record: Record, now: int) -> Record:
    """Return a record rolled back to the previous version on every platform that has one, until :func:`undo_rollback`.

    Raises:
        UsageError: the name does not resolve now, or no platform has a previous version.
    """
    rollback = record.rollback or {"digest": record.digest, "from": {}}
    skipped: dict[str, list[str]] = {platform: list(digests) for platform, digests in rollback["from"].items()}
    platforms = dict(record.platforms)
    for platform, versions in record.platforms.items():
        if versions[0].state != CURRENT:
            continue
        rejected = [*skipped.get(platform, []), versions[0].digest]
        contents = {version.content for version in versions if version.digest in rejected}
        previous = next((older for older in versions[1:] if older.state == SUPERSEDED and older.content not in contents), None)
        if previous is not None:
            skipped[platform] = rejected
            platforms[platform] = _to_front(versions, previous.digest, now)
    if platforms == record.platforms:
        raise UsageError(f"{record.name} has no previous version whose data still exists")
    digest = min(platforms.items())[1][0].digest  # the tag's digest of that time is not known; it only has to differ from today's
    return Record(record.name, record.reference, digest, platforms, {"digest": rollback["digest"], "from": skipped, "since": now})


def undo_rollback(record: Record, now: int) -> Record:
    """Return a rolled-back record at the version that it was rolled back from, wherever that one's data still exists.

    Raises:
        UsageError: the record is not rolled back.
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
    """Return the symbolic links of a name: path -> relative target.

    A platform that is blocked or has no sandbox gets no link, and no other platform takes its place.
    """
    current = {
        platform: versions[0] for platform, versions in record.platforms.items() if versions and versions[0].state != SUPERSEDED
    }
    return {
        path: paths.link_target(path, sandbox)
        for path, platform in paths.link_paths(record.name, list(current)).items()
        if current[platform].state != BLOCKED and (sandbox := current[platform].sandbox) is not None
    }


def _sif(built: BuiltImage) -> dict[str, Any]:
    """Return the manifest's JSON object of a build's SIF."""
    sif = {"path": paths.sif_path(built.sha256), "sha256": built.sha256, "size": built.size}
    return sif if built.chunks is None else {**sif, "chunks": built.chunks}


def _each_with_sif(records: Iterable[Record], sifs: Collection[str], change: Callable[[Version], Version]) -> dict[str, Record]:
    """Return the records (by name) that name SIFs with these paths, with every version that does changed by a function."""

    def concerns(version: Version) -> bool:
        return version.sif is not None and version.sif.path in sifs

    return {
        record.name: _each(record, lambda version: change(version) if concerns(version) else version)
        for record in records
        if any(concerns(version) for _, version in record.versions())
    }


def _each(record: Record, change: Callable[[Version], Version]) -> Record:
    """Return a record with every version changed by a function."""
    platforms = {platform: tuple(map(change, versions)) for platform, versions in record.platforms.items()}
    return Record(record.name, record.reference, record.digest, platforms, record.rollback)


def _has_expired(version: Version, now: int) -> bool:
    return version.state == EXPIRING and version.until is not None and version.until <= now


def _to_front(versions: tuple[Version, ...], digest: str, now: int) -> tuple[Version, ...]:
    """Return the versions with that of ``digest`` as the current one; the former one is superseded."""
    chosen = next(version for version in versions if version.digest == digest)
    return (_in_state(chosen, CURRENT, now), *_older(versions, _in_state(chosen, CURRENT, now)))


def _older(versions: tuple[Version, ...], current: Version) -> tuple[Version, ...]:
    """Return what remains of a platform's versions beside a new current one, superseded."""
    older = (_other_forms(version, current) if version.digest == current.digest else version for version in versions)
    return superseded((version for version in older if version is not None), current.since)


def superseded(versions: Iterable[Version], since: int) -> tuple[Version, ...]:
    """Return versions of which the current and the expiring ones are superseded since then (seconds since the epoch)."""
    return tuple(
        _in_state(version, SUPERSEDED, since) if version.state in {CURRENT, EXPIRING} else version for version in versions
    )


def _other_forms(version: Version, current: Version) -> Version | None:
    """Return a version with only those forms that another one of the same build lacks, None if there are none."""
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
    """Return the adopted versions of a record that have a sandbox and are not blocked, newest first."""
    adopted = [version for _, version in record.versions() if ADOPTED in version.notes and version.state != BLOCKED]
    return sorted((version for version in adopted if version.sandbox is not None), key=lambda version: -version.published)


def describe_lost_build(snapshot: Snapshot, changed: Mapping[str, Record], now: int) -> str:
    """Return a text about the first adopted build that was removed, by this change or before; the empty string if none was."""
    if snapshot.lost:
        return snapshot.lost
    for name, record in changed.items():
        before = snapshot.records.get(name)
        if before is not None and len(adopted_versions(before)) > len(adopted_versions(record)):
            return f"a build of {name} was removed on {datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
    return ""
