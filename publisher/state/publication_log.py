"""The publication log: what each revision of the manifest changed, who published it, when, and why. This module is pure.

Each revision adds one entry, a file that names the sha256 of the entry before it; the signed index names the last one. So the
index vouches for the whole log, and no entry can be changed, left out or put in later without a second index of the same serial.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from publisher.contract import fields
from publisher.contract.errors import ManifestError
from publisher.contract.manifest import SCHEMA, canonical
from publisher.contract.records import BLOCKED, EXPIRING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from publisher.contract.records import Record, Version

TYPE = "container-image-publication"
NEW, CHANGED, EXISTING, ROLLBACK, ROLLBACK_UNDONE = "new", "changed", "existing", "rollback", "rollback undone"
BLOCK, UNBLOCK, LEAVING, ENDED, REMOVED, FORMS = "block", "unblock", "leaving", "ended", "removed", "forms"
_SETS_CURRENT = (NEW, CHANGED, EXISTING, ROLLBACK, ROLLBACK_UNDONE)
_WORDS = (*_SETS_CURRENT, BLOCK, UNBLOCK, LEAVING, ENDED, REMOVED, FORMS)
_PER_DIRECTORY = 1000  # entries


@dataclass(frozen=True)
class LogChange:
    """A change of one name on one platform.

    Attributes:
        name: the CVMFS name.
        platform: key of the platform in the manifest.
        digest: digest of the platform's image manifest that was published, blocked, removed and so on.
        why: one of the words of this module; ``existing`` is what was published before there was a log.
        reason: what the operator gave as the reason of a block, else empty.
    """

    name: str
    platform: str
    digest: str
    why: str
    reason: str = ""


@dataclass(frozen=True)
class LogEntry:
    """An entry of the log.

    Attributes:
        repository: name of the repository.
        serial: serial of the index that names this entry.
        previous: sha256 of the entry before it, None in the first one.
        previous_serial: serial of that entry, 0 in the first one.
        time: when it was published, seconds since the epoch.
        who: the account and host that published it.
        shards: sha256 of the list of shards of its index.
        changes: what it changed; none if the manifest was only signed again.
    """

    repository: str
    serial: int
    previous: str | None
    previous_serial: int
    time: int
    who: str
    shards: str
    changes: tuple[LogChange, ...]

    def content(self) -> bytes:
        """Return the content of its file."""
        changes = [{name: value for name, value in asdict(change).items() if value} for change in self.changes]
        return canonical({**asdict(self), "type": TYPE, "schema": SCHEMA, "changes": changes})

    @classmethod
    def parse(cls, content: bytes) -> LogEntry:
        """Return the entry in the content of a file. Raise ManifestError if it is none."""
        value = fields.load_json(content, "log entry")
        if not isinstance(value, dict) or value.get("type") != TYPE or value.get("schema") != SCHEMA:
            raise ManifestError(f"the file is not an entry of the publication log with schema {SCHEMA}")
        try:
            return cls(
                str(value["repository"]),
                fields.count(value["serial"]),
                None if value["previous"] is None else fields.sha256(value["previous"]),
                fields.count(value["previous_serial"]),
                fields.count(value["time"]),
                str(value["who"]),
                fields.sha256(value["shards"]),
                tuple(map(_parse_change, value["changes"])),
            )
        except fields.SHAPE_ERRORS as error:
            raise ManifestError(f"the log entry is not valid: {error!r}") from None


@dataclass(frozen=True)
class LogHead:
    """The last entry of a log: ``sha256`` of its content, and the ``serial`` of its index."""

    sha256: str
    serial: int


def entry_name(serial: int) -> str:
    """Return the path of the entry of an index below the manifest's directory, by the index's serial."""
    return f"log/{serial // _PER_DIRECTORY}/{serial}.json"


def shards_sha256(shards: Iterable[str | None]) -> str:
    """Return the sha256 that stands for an index's list of shards in its log entry."""
    return hashlib.sha256(canonical(list(shards))).hexdigest()


def changes(before: Mapping[str, Record | None], after: Mapping[str, Record], *, has_log: bool) -> Iterator[LogChange]:
    """Yield what became of the names in ``before``, sorted by name.

    Args:
        before: name -> its published record, None if it had none; all names that may have changed.
        after: name -> record that is published now, of all names.
        has_log: whether an earlier entry tells of what is in ``before``. If not, all of ``after`` is told first, as existing.
    """
    if not has_log:
        published = {**after, **before}
        for name in sorted(published):
            yield from _record_changes(None, published[name], EXISTING)
    for name in sorted(before):
        yield from _record_changes(before[name], after.get(name), NEW)


def _record_changes(before: Record | None, after: Record | None, first: str) -> Iterator[LogChange]:
    """Yield the changes of a name; ``first`` is why a platform that had no version has one now."""
    name = (before or after).name if before or after else ""  # type: ignore[union-attr]  # one of them is a record
    platforms = {*(before.platforms if before else ()), *(after.platforms if after else ())}
    for platform in sorted(platforms):
        old, new = (record.platforms.get(platform, ()) if record else () for record in (before, after))
        for digest, why, reason in _version_changes(old, new):
            yield LogChange(name, platform, digest, why, reason)
        current, was = (record.current(platform) if record else None for record in (after, before))
        if current is None or current.state == BLOCKED:
            if was is not None and was.state != BLOCKED and current is None:
                yield LogChange(name, platform, was.digest, ENDED)
        elif was is None or was.state == BLOCKED or was.digest != current.digest:
            yield LogChange(name, platform, current.digest, _why_current(before, after, bool(old), first))
        elif was.state != current.state and current.state == EXPIRING:
            yield LogChange(name, platform, current.digest, LEAVING)
        elif (was.sandbox, was.sif and was.sif.sha256) != (current.sandbox, current.sif and current.sif.sha256):
            yield LogChange(name, platform, current.digest, FORMS)


def _version_changes(old: Sequence[Version], new: Sequence[Version]) -> Iterator[tuple[str, str, str]]:
    """Yield digest, word and reason of the versions that were unblocked, removed or blocked."""
    was_blocked, is_blocked = ({version.digest for version in versions if version.state == BLOCKED} for versions in (old, new))
    present = {version.digest for version in new}
    for digest in sorted(was_blocked - is_blocked):
        yield digest, UNBLOCK, ""
    for digest in sorted({version.digest for version in old} - was_blocked - present):
        yield digest, REMOVED, ""
    reasons = {version.digest: version.reason or "" for version in new}
    for digest in sorted(is_blocked - was_blocked):
        yield digest, BLOCK, reasons[digest]


def _why_current(before: Record | None, after: Record | None, had_versions: bool, first: str) -> str:
    rollbacks = [None if record is None else record.rollback for record in (before, after)]
    if rollbacks[0] != rollbacks[1]:
        return ROLLBACK_UNDONE if rollbacks[1] is None else ROLLBACK
    return CHANGED if had_versions else first


def replay(entries: Iterable[LogEntry]) -> tuple[dict[tuple[str, str], str], set[tuple[str, str, str]]]:
    """Return what a log says is published, from its entries, the oldest first.

    Returns:
        (name, platform) -> digest of the current version; and the blocked (name, platform, digest).
    """
    current: dict[tuple[str, str], str] = {}
    blocked: set[tuple[str, str, str]] = set()
    for entry in entries:
        for change in entry.changes:
            key = change.name, change.platform
            if change.why in _SETS_CURRENT:
                current[key] = change.digest
            elif change.why == BLOCK:
                blocked.add((*key, change.digest))
            elif change.why == UNBLOCK:
                blocked.discard((*key, change.digest))
            if change.why in (BLOCK, ENDED, REMOVED) and current.get(key) == change.digest:
                del current[key]
    return current, blocked


def published(records: Iterable[Record]) -> tuple[dict[tuple[str, str], str], set[tuple[str, str, str]]]:
    """Return what records say is published, as :func:`replay` does."""
    current: dict[tuple[str, str], str] = {}
    blocked: set[tuple[str, str, str]] = set()
    for record in records:
        for platform, versions in record.platforms.items():
            version = record.current(platform)
            if version is not None and version.state != BLOCKED:
                current[record.name, platform] = version.digest
            blocked |= {(record.name, platform, other.digest) for other in versions if other.state == BLOCKED}
    return current, blocked


def _parse_change(value: Mapping[str, Any]) -> LogChange:
    why = fields.one_of(value["why"], _WORDS)
    return LogChange(
        str(value["name"]), str(value["platform"]), fields.digest(value["digest"]), why, str(value.get("reason", ""))
    )
