"""The published state in memory: the manifest's records, how they are loaded, and how they become the files of a new revision.

This module handles values only; repositories and origins read and write the files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.records import ADOPTED, BLOCKED, SUPERSEDED
from publisher.errors import PublishedManifestError, UsageError
from publisher.state import paths, publication_log, signing
from publisher.state.outcomes import Outcomes
from publisher.state.publication_log import LogEntry, LogHead

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from publisher.contract.records import Record, Version
    from publisher.state.authorization import ManifestSigner
    from publisher.state.signing import PublicKey


@dataclass(frozen=True)
class Snapshot:
    """The published state of one repository at one serial; serial 0 is the empty beginning.

    Attributes:
        repository: the repository's name in the manifest.
        serial: serial of the published index.
        generated: when the published index was signed, seconds since the epoch.
        expires: when the published index expires, seconds since the epoch.
        records: CVMFS name -> record.
        lost: text about the first adopted build that was removed; if it is not empty, the adoption cannot be undone any more.
        outcomes: what became of the images of the list.
        shards: sha256 of each shard of the published index, None for an empty one; () if nothing is published.
        published_outcomes: sha256 of the outcomes that the published index names, None if it names none.
        sha256: sha256 of the payload of the published index; empty if nothing is published.
        predecessors: serial, as text -> sha256 of the payload, of the indexes before the published one; see
            :class:`publisher.contract.manifest.Index`.
        touched: numbers of the shards whose ``records`` differ from the published ones.
        replaced: published record of each name whose record may differ now, None if the name had none.
        log: the last entry of the publication log, None if there is none.
    """

    repository: str
    serial: int = 0
    generated: int = 0
    expires: int = 0
    records: Mapping[str, Record] = field(default_factory=dict)
    lost: str = ""
    outcomes: Outcomes = field(default_factory=Outcomes)
    shards: tuple[str | None, ...] = ()
    published_outcomes: str | None = None
    sha256: str = ""
    predecessors: Mapping[str, str] = field(default_factory=dict)
    touched: frozenset[int] = frozenset()
    replaced: Mapping[str, Record | None] = field(default_factory=dict)
    log: LogHead | None = None

    def with_records(self, changed: Mapping[str, Record]) -> Snapshot:
        """Return a snapshot with some records replaced or added; a record without any version is removed."""
        removed = [name for name, record in changed.items() if not any(record.platforms.values())]
        return self._with({name: record for name, record in changed.items() if name not in removed}, removed)

    @property
    def files(self) -> set[str]:
        """Return the paths, below the manifest's directory, of all files that the published index names."""
        digests = (*self.shards, self.published_outcomes)
        return {manifest.shard_name(sha256) for sha256 in digests if sha256 is not None}

    def without(self, names: Iterable[str]) -> Snapshot:
        """Return a snapshot without the records of some names."""
        return self._with({}, names)

    def in_full(self) -> Snapshot:
        """Return the same snapshot with all its shards to be made again, for a place that may lack some."""
        return replace(self, touched=frozenset(range(manifest.SHARDS)), published_outcomes=None)

    def _with(self, changed: Mapping[str, Record], removed: Iterable[str]) -> Snapshot:
        records = {**self.records, **changed}
        for name in removed:
            records.pop(name, None)
        touched = {number for name in (*changed, *removed) for number in _touched(self.records.get(name), records.get(name))}
        replaced = {**{name: self.records.get(name) for name in (*changed, *removed)}, **self.replaced}
        return replace(self, records=records, touched=self.touched | touched, replaced=replaced)

    def version_of(self, digest: str) -> Version | None:
        """Return a published version with this digest of an image manifest or config, under any name; None without one.

        Blocked versions do not count, and adopted ones have no content that is known by the digest of a config.
        """
        return self._by_digest.get(digest)

    def blocked_version(self, digest: str) -> Version | None:
        """Return the blocked version with this digest of an image manifest or config, None if the digest is not blocked."""
        return self._blocked_by_digest.get(digest)

    def blocked_digests(self) -> frozenset[str]:
        """Return the digests of the image manifests and configs of all blocked versions."""
        return frozenset(self._blocked_by_digest)

    def versions(self, name: str, platform: str) -> tuple[Version, ...]:
        """Return the versions of a name on a platform, the current one first.

        Raises:
            UsageError: nothing is published under that name, or not for that platform.
        """
        record = self.records.get(name)
        if record is None:
            raise UsageError(f"nothing is published under the name {name}")
        if platform not in record.platforms:
            raise UsageError(f"{name} is not published for {platform}; it is for {', '.join(sorted(record.platforms))}")
        return record.platforms[platform]

    @cached_property
    def _by_digest(self) -> dict[str, Version]:
        """The versions that are not blocked, by digest; of several, one with the most forms."""
        versions = (version for record in self.records.values() for _, version in record.versions())
        usable = [version for version in versions if version.state != BLOCKED]
        usable.sort(key=lambda version: (version.sandbox is not None) + (version.sif is not None))
        built_here = {
            version.config: version for version in usable if version.config is not None and ADOPTED not in version.notes
        }
        return {**built_here, **{version.digest: version for version in usable}}

    @cached_property
    def _blocked_by_digest(self) -> dict[str, Version]:
        versions = (version for record in self.records.values() for _, version in record.versions())
        return {digest: version for version in versions if version.state == BLOCKED for digest in version.identities}


@dataclass(frozen=True)
class Revision:
    """A signed revision of the manifest as files below its directory; the shards have to be published before the index.

    Attributes:
        snapshot: the state once these files are published.
        shards: ``shards/<sha256>.json`` -> content, for the shards that may have changed and for changed outcomes.
        log: content of the entry of the publication log.
        index: content of ``index.json``.
    """

    snapshot: Snapshot
    shards: Mapping[str, bytes]
    log: bytes
    index: bytes


def load(read: Callable[[str], bytes | None], repository: str, trusted: Iterable[PublicKey] | None) -> Snapshot | None:
    """Load the published state from the manifest's files.

    Args:
        read: returns the content of a file below the manifest's directory, None if it does not exist.
        repository: the name that the manifest must have.
        trusted: the keys of which one must have signed it; None to skip the signature check.

    Returns:
        the published state, None if no index is published.

    Raises:
        PublishedManifestError: the manifest is not signed by a trusted key, is of another repository, damaged, or lacks a shard.
    """
    content = read(manifest.INDEX_NAME)
    if content is None:
        return None
    try:
        index = _checked_index(content, repository, trusted)
        records: dict[str, Record] = {}
        for sha256 in sorted({sha256 for sha256 in index.shards if sha256 is not None}):
            shard = read(manifest.shard_name(sha256))
            if shard is None:
                raise PublishedManifestError(f"the published manifest lacks its shard {sha256}")
            parsed = manifest.Shard.parse(shard, sha256)
            for name in parsed.records:
                record = parsed.record(name)
                if record is not None:
                    records[name] = record
    except ManifestError as error:
        raise PublishedManifestError(f"the published manifest cannot be used: {error.reason}", hint=error.hint) from error
    log = LogHead(index.log, index.serial) if index.log else None
    return Snapshot(
        repository,
        index.serial,
        index.generated,
        index.expires,
        dict(sorted(records.items())),
        index.lost,
        _load_outcomes(read, index),
        index.shards,
        index.outcomes,
        manifest.payload_sha256(content),
        index.predecessors or {},
        log=log,
    )


def _load_outcomes(read: Callable[[str], bytes | None], index: manifest.Index) -> Outcomes:
    """Return the outcomes that an index names; none if their file is missing or another: they are written again by each run."""
    content = None if index.outcomes is None else read(manifest.shard_name(index.outcomes))
    if content is None or hashlib.sha256(content).hexdigest() != index.outcomes:
        return Outcomes()
    return Outcomes.decode(content)


def read_index(content: bytes, repository: str, trusted: Iterable[PublicKey]) -> manifest.Index:
    """Return the index in an envelope.

    Raises:
        PublishedManifestError: the index is damaged, of another repository, or not signed by a trusted key.
    """
    try:
        return _checked_index(content, repository, trusted)
    except ManifestError as error:
        raise PublishedManifestError(f"the published manifest cannot be used: {error.reason}", hint=error.hint) from error


def is_signed_by(content: bytes, signer: ManifestSigner) -> bool:
    """Return whether an index that was loaded has valid signatures of all keys of a signer, and its keys document."""
    envelope = manifest.Envelope.parse(content)
    signatures, authorization = dict(envelope.signatures), signer.authorization
    if (envelope.keys and envelope.keys.payload) != (authorization and authorization.envelope.payload):
        return False
    return all(key.keyid in signatures and key.verifies(envelope.payload, signatures[key.keyid]) for key in signer.publics)


def make_revision(snapshot: Snapshot, signer: ManifestSigner, *, serial: int, now: int, who: str = "") -> Revision:
    """Return the signed revision of a snapshot.

    The new index names the snapshot's as its predecessor, by serial and sha256. Only the shards whose records changed since the
    snapshot was published are made again, or all of them if none changed.

    Args:
        snapshot: the state to publish.
        signer: signs the index.
        serial: the new serial, higher than any that was ever published.
        now: seconds since the epoch.
        who: who publishes it, for the publication log.
    """
    is_partial = snapshot.touched and len(snapshot.shards) == manifest.SHARDS
    contents = _shards(snapshot.records.values(), snapshot.touched if is_partial else range(manifest.SHARDS))
    digests: list[str | None] = list(snapshot.shards) if is_partial else [None] * manifest.SHARDS
    for number, content in contents.items():
        digests[number] = None if content is None else hashlib.sha256(content).hexdigest()
    before = {**snapshot.predecessors, str(snapshot.serial): snapshot.sha256} if snapshot.serial else {}
    newest = sorted(before.items(), key=lambda item: int(item[0]))[-manifest.MAX_PREDECESSORS :]
    new = replace(snapshot, serial=serial, generated=now, expires=now + manifest.LIFETIME, predecessors=dict(newest))
    entry = _log_entry(snapshot, serial, now, who, digests)
    head = LogHead(hashlib.sha256(entry).hexdigest(), serial)
    outcomes = snapshot.outcomes.encode()
    outcomes_sha256 = None if snapshot.outcomes == Outcomes() else hashlib.sha256(outcomes).hexdigest()
    new = replace(new, shards=tuple(digests), published_outcomes=outcomes_sha256, touched=frozenset(), replaced={}, log=head)
    payload = manifest.Index(
        new.repository,
        serial=new.serial,
        generated=new.generated,
        expires=new.expires,
        sif_prefix=paths.SIF_PREFIX,
        shards=digests,
        previous=snapshot.serial,
        lost=snapshot.lost,
        predecessors=new.predecessors,
        log=head.sha256,
        outcomes=outcomes_sha256,
    ).payload()
    new = replace(new, sha256=hashlib.sha256(payload).hexdigest())
    shards = {manifest.shard_name(str(digests[number])): content for number, content in contents.items() if content is not None}
    if outcomes_sha256 not in {None, snapshot.published_outcomes}:
        shards[manifest.shard_name(str(outcomes_sha256))] = outcomes
    keys = None if signer.authorization is None else signer.authorization.envelope
    return Revision(new, shards, entry, manifest.seal(payload, signer.sign(payload), keys))


def _log_entry(snapshot: Snapshot, serial: int, now: int, who: str, shards: Iterable[str | None]) -> bytes:
    """Return the content of the entry that tells what a new revision changes."""
    log = snapshot.log
    changes = publication_log.changes(snapshot.replaced, snapshot.records, has_log=log is not None)
    return LogEntry(
        snapshot.repository,
        serial,
        previous=None if log is None else log.sha256,
        previous_serial=0 if log is None else log.serial,
        time=now,
        who=who,
        shards=publication_log.shards_sha256(shards),
        changes=tuple(changes),
    ).content()


def due_for_signing(snapshot: Snapshot, now: int) -> str | None:
    """Return why the time demands that the published index is signed again, None if it does not."""
    if snapshot.serial and now < snapshot.generated - manifest.CLOCK_ERROR:
        return "it was signed at a time that has not come yet"
    if snapshot.serial and now >= snapshot.generated + (snapshot.expires - snapshot.generated) // 2:
        return "half of its lifetime is over"
    return None


def _checked_index(content: bytes, repository: str, trusted: Iterable[PublicKey] | None) -> manifest.Index:
    payload, signatures = manifest.unseal(content)
    if trusted is not None:
        signing.verify(payload, signatures, trusted)
    return manifest.Index.parse(payload, repository)


def _shards(records: Iterable[Record], numbers: Collection[int]) -> dict[int, bytes | None]:
    """Return the content of the shards with these numbers, None for empty ones.

    An alias of several names belongs to the first name in alphabetical order, names that no longer resolve coming last.
    """
    named: dict[int, dict[str, Any]] = {number: {} for number in numbers}
    aliases: dict[int, dict[str, str]] = {number: {} for number in numbers}
    concerned = (record for record in records if not named.keys().isdisjoint(_numbers(record)))
    for record in sorted(concerned, key=lambda record: (not _resolves(record), record.name)):
        for number, key in zip(_numbers(record), _keys(record), strict=True):
            if number in named and key == record.name:
                named[number][key] = record.to_json()
            elif number in named:
                aliases[number].setdefault(key, record.name)
    return {
        number: manifest.make_shard(named[number], aliases[number]) if named[number] or aliases[number] else None
        for number in named
    }


def _touched(before: Record | None, after: Record | None) -> set[int]:
    """Return the numbers of the shards that change with a name's record: the shard of the name, and those of changed aliases.

    The shard of an alias stores its name, which depends on whether the names that share the alias still resolve.
    """
    old, new = ({} if record is None else dict(zip(_keys(record), _numbers(record), strict=True)) for record in (before, after))
    keys = old.keys() | new.keys()
    if before is not None and after is not None and _resolves(before) == _resolves(after):
        keys = (old.keys() ^ new.keys()) | {after.name}
    return {number for key, number in (old | new).items() if key in keys}


def _keys(record: Record) -> tuple[str, ...]:
    return (record.name, *record.aliases())


@lru_cache(maxsize=1 << 16)
def _numbers(record: Record) -> tuple[int, ...]:
    """Return the shard number of each of a record's keys; cached, because every publication needs them for all records."""
    return tuple(manifest.shard_number(key, manifest.SHARDS) for key in _keys(record))


def _resolves(record: Record) -> bool:
    """Return whether the record's name resolves on any platform."""
    return any(version.state != SUPERSEDED for _, version in record.versions())
