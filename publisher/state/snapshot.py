"""All that is published, as the publisher knows it: the manifest's records in memory, and how they become files again.

Reading and writing of files is the caller's (a repository's or an origin's); here are values only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.records import BLOCKED, SUPERSEDED
from publisher.errors import PublishedManifestError, UsageError
from publisher.state import paths, signing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from publisher.contract.records import Record, Version
    from publisher.state.signing import PublicKey, Signer


@dataclass(frozen=True)
class Snapshot:
    """The records of one repository at one serial; serial 0 is the empty beginning.

    Attributes:
        repository: the name that the manifest carries.
        serial: of the published index.
        generated, expires: of the published index, seconds since the epoch.
        records: CVMFS name -> record.
        lost: what adopted build was the first to be removed, for people: from then on an adoption is not taken back.
        shards: sha256 of each shard of the published index, None for an empty one; () where nothing is published.
        touched: numbers of the shards in which ``records`` are not as published.
    """

    repository: str
    serial: int = 0
    generated: int = 0
    expires: int = 0
    records: Mapping[str, Record] = field(default_factory=dict)
    lost: str = ""
    shards: tuple[str | None, ...] = ()
    touched: frozenset[int] = frozenset()

    def with_records(self, changed: Mapping[str, Record]) -> Snapshot:
        """The same with some records replaced or added; one without any version goes."""
        gone = [name for name, record in changed.items() if not any(record.platforms.values())]
        return self._with({name: record for name, record in changed.items() if name not in gone}, gone)

    def without(self, names: Iterable[str]) -> Snapshot:
        """The same without the records of some names."""
        return self._with({}, names)

    def _with(self, changed: Mapping[str, Record], gone: Iterable[str]) -> Snapshot:
        records = {**self.records, **changed}
        for name in gone:
            records.pop(name, None)
        touched = {number for name in (*changed, *gone) for number in _touched(self.records.get(name), records.get(name))}
        return replace(self, records=records, touched=self.touched | touched)

    def version_of(self, digest: str) -> Version | None:
        """A published version of a platform manifest, under whatever name; None where there is none, or it is blocked."""
        return self._by_manifest.get(digest)

    def blocked(self, digest: str) -> Version | None:
        """The version of a platform manifest that was taken down, None where it was not."""
        return self._blocked.get(digest)

    def versions(self, name: str, platform: str) -> tuple[Version, ...]:
        """The versions of a name on a platform, what it means now first.

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
    def _by_manifest(self) -> dict[str, Version]:
        """Of several versions of one manifest, one that has all forms."""
        versions = (version for record in self.records.values() for _, version in record.versions())
        there = [version for version in versions if version.state != BLOCKED]
        there.sort(key=lambda version: (version.sandbox is not None) + (version.sif is not None))
        return {version.digest: version for version in there}

    @cached_property
    def _blocked(self) -> dict[str, Version]:
        versions = (version for record in self.records.values() for _, version in record.versions())
        return {version.digest: version for version in versions if version.state == BLOCKED}


@dataclass(frozen=True)
class Revision:
    """A catalog as files below the manifest's directory: shards first, the index last.

    Attributes:
        snapshot: the catalog as it is once these files are published.
        shards: ``shards/<sha256>.json`` -> content, of those that were made anew.
        index: content of ``index.json``.
    """

    snapshot: Snapshot
    shards: Mapping[str, bytes]
    index: bytes


def load(read: Callable[[str], bytes | None], repository: str, trusted: Iterable[PublicKey] | None) -> Snapshot | None:
    """Read a published manifest back.

    Args:
        read: content of a file below the manifest's directory, None where there is none.
        repository: the name it must carry.
        trusted: keys of which one must have signed it; None to look without trusting.

    Returns:
        the catalog, None where no index is published.

    Raises:
        PublishedManifestError: signed by no trusted key, of another repository, damaged, or with a shard missing.
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
                raise PublishedManifestError(f"the published manifest names a shard that is not there: {sha256}")
            parsed = manifest.Shard.parse(shard, sha256)
            for name in parsed.records:
                record = parsed.record(name)
                if record is not None:
                    records[name] = record
    except ManifestError as error:
        raise PublishedManifestError(f"the published manifest cannot be used: {error.reason}", hint=error.hint) from error
    return Snapshot(
        repository, index.serial, index.generated, index.expires, dict(sorted(records.items())), index.lost, index.shards
    )


def serial_of(content: bytes | None, repository: str, trusted: Iterable[PublicKey]) -> int:
    """The serial of an index's content, 0 where there is none or it is not ours.

    Raises:
        PublishedManifestError: it is ours by name, and signed by somebody else.
    """
    if content is None:
        return 0
    try:
        return _checked_index(content, repository, trusted).serial
    except ManifestError as error:
        raise PublishedManifestError(f"the published manifest cannot be used: {error.reason}", hint=error.hint) from error


def signed_by(content: bytes, key: PublicKey) -> bool:
    """Whether the content of an index that was loaded has a good signature of just this key."""
    payload, signatures = manifest.unseal(content)
    return any(keyid == key.keyid and key.verifies(payload, signature) for keyid, signature in signatures)


def revision(snapshot: Snapshot, signer: Signer, *, serial: int, now: int) -> Revision:
    """The files of a catalog, signed; ``serial`` must be above all that was ever published, ``now`` is the clock's seconds.

    The new index names the serial of the catalog as the one before it. Shards are made anew where the catalog's records were
    changed since it was published, and all of them where nothing was.
    """
    known = snapshot.touched and len(snapshot.shards) == manifest.SHARDS
    contents = _shards(snapshot.records.values(), snapshot.touched if known else range(manifest.SHARDS))
    digests: list[str | None] = list(snapshot.shards) if known else [None] * manifest.SHARDS
    for number, content in contents.items():
        digests[number] = None if content is None else hashlib.sha256(content).hexdigest()
    new = replace(snapshot, serial=serial, generated=now, expires=now + manifest.LIFETIME)
    new = replace(new, shards=tuple(digests), touched=frozenset())
    payload = manifest.Index(
        new.repository,
        serial=new.serial,
        generated=new.generated,
        expires=new.expires,
        sif_prefix=paths.SIF_PREFIX,
        shards=digests,
        previous=snapshot.serial,
        lost=snapshot.lost,
    ).payload()
    shards = {manifest.shard_name(str(digests[number])): content for number, content in contents.items() if content is not None}
    return Revision(new, shards, manifest.seal(payload, signer.sign(payload)))


def half_spent(snapshot: Snapshot, now: int) -> bool:
    """Whether the published index is past half of its life, and is to be signed anew."""
    return snapshot.serial > 0 and now >= snapshot.generated + (snapshot.expires - snapshot.generated) // 2


def _checked_index(content: bytes, repository: str, trusted: Iterable[PublicKey] | None) -> manifest.Index:
    payload, signatures = manifest.unseal(content)
    if trusted is not None:
        signing.check(payload, signatures, trusted)
    return manifest.Index.parse(payload, repository)


def _shards(records: Iterable[Record], numbers: Collection[int]) -> dict[int, bytes | None]:
    """The content of the shards with these numbers, None for the empty ones.

    Of several names that an alias fits, the first in order has it; one that means nothing any more comes after all others.
    """
    named: dict[int, dict[str, Any]] = {number: {} for number in numbers}
    aliases: dict[int, dict[str, str]] = {number: {} for number in numbers}
    concerned = (record for record in records if not named.keys().isdisjoint(_numbers(record)))
    for record in sorted(concerned, key=lambda record: (not _means_something(record), record.name)):
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
    """Numbers of the shards that have other bytes once a name's record is another: the name's, and those of aliases that change.

    An alias says a name, and whose it is depends on whether the names mean something.
    """
    old, new = ({} if one is None else dict(zip(_keys(one), _numbers(one), strict=True)) for one in (before, after))
    keys = old.keys() | new.keys()
    if before is not None and after is not None and _means_something(before) == _means_something(after):
        keys = (old.keys() ^ new.keys()) | {after.name}
    return {number for key, number in (old | new).items() if key in keys}


def _keys(record: Record) -> tuple[str, ...]:
    return (record.name, *record.aliases())


@lru_cache(maxsize=1 << 16)
def _numbers(record: Record) -> tuple[int, ...]:
    """Of the shards of each of a record's keys: asked of all records in each publication, of which few are new."""
    return tuple(manifest.shard_number(key, manifest.SHARDS) for key in _keys(record))


def _means_something(record: Record) -> bool:
    return any(version.state != SUPERSEDED for _, version in record.versions())
