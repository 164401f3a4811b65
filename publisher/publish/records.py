"""Makes the manifest's records of staged entries, and the links that show them, once their sandboxes are written."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher.plan.model import tag_reference
from publisher.state import paths, transitions

if TYPE_CHECKING:
    from collections.abc import Collection

    from publisher.contract.records import Record, Version
    from publisher.plan.model import PlatformTarget
    from publisher.publish.staged import StagedEntry
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Transaction


def make_record(staged: StagedEntry, snapshot: Snapshot, written: Collection[str], *, now: int, grace: int) -> Record:
    """Return the record of an entry: its targets are current, earlier versions superseded, unwanted platforms expiring.

    Args:
        staged: the entry.
        snapshot: the published state.
        written: paths of the sandboxes and file indexes that this transaction adds or replaces.
        now: seconds since the epoch.
        grace: seconds that platforms which leave can still be used.
    """
    item = staged.item
    current = {
        paths.platform_key(target.platform): _version(staged, target, now, _indexed_version(target, snapshot, written))
        for target in item.targets
    }
    name = item.entry.name
    record = transitions.set_current(snapshot.records.get(name), tag_reference(item.entry), item.digest, current, name)
    return transitions.expire(record, now, now + grace, item.leaving)


def replaced_indexes(record: Record, snapshot: Snapshot, written: Collection[str]) -> list[Version]:
    """Return the versions of a record with a new sandbox of which another file index was published before.

    Other versions of the same image have to name the new file index too.
    """
    replaced = []
    for version in (versions[0] for versions in record.platforms.values()):
        published = snapshot.version_of(version.content) if version.sandbox in written else None
        if published is not None and published.file_index not in {None, version.file_index}:
            replaced.append(version)
    return replaced


def update_links(transaction: Transaction, record: Record, previous: Record | None) -> None:
    """Set the links of a name, and remove links that would still show an image that the name no longer means.

    Args:
        transaction: an open transaction of the repository.
        record: the new record of the name.
        previous: the published record of the name, None where there is none.
    """
    wanted = transitions.links(record)
    for path, target in wanted.items():
        transaction.link(path, target)
    platforms = [*record.platforms, *(previous.platforms if previous is not None else ())]
    for path in {record.name, *paths.link_paths(record.name, platforms)}:
        if path not in wanted:
            transaction.remove(path)


def _version(staged: StagedEntry, target: PlatformTarget, now: int, indexed: Version | None) -> Version:
    """Return the new version of a target, with its reference and provenance; ``indexed`` is as in :func:`_built_version`."""
    entry, found = staged.item.entry, target.provenance
    own = entry.reference_for(target.platform)
    version = transitions.with_reference(
        _built_version(staged, target, now, indexed), None if own is entry.reference else str(own)
    )
    if found is None:
        return version
    return transitions.with_provenance(version, [attachment.to_json() for attachment in found.attached], found.signed)


def _built_version(staged: StagedEntry, target: PlatformTarget, now: int, indexed: Version | None) -> Version:
    """Return the new version of a target; ``indexed`` is the published version that has its file index, None for a new index."""
    formats, build = staged.item.entry.formats, staged.builds.get(target.digest)
    if build is None:
        if target.published is None:
            raise AssertionError("a target without a published version must have a build")
        return transitions.reuse(target.published, target.digest, formats, now)
    if target.adopted is not None:
        return transitions.add_sif(target.adopted, build, formats, now)
    with build.file_index.open("rb") as file:
        file_index = hashlib.file_digest(file, "sha256").hexdigest()
    version = transitions.make_version(target.digest, build, formats, now, file_index=file_index, config=target.config)
    return version if indexed is None else transitions.copy_file_index(version, indexed)


def _indexed_version(target: PlatformTarget, snapshot: Snapshot, written: Collection[str]) -> Version | None:
    """Return the published version of an image that was rebuilt for another format; None where its file index is replaced."""
    if paths.sandbox_path(target.content) in written:
        return None
    published = snapshot.version_of(target.content)
    return published if published is not None and published.file_index is not None else None
