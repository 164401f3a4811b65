"""The manifest, schema 1: which images are published, and where. The contract between publisher and execution point.

One signed index names up to a few hundred shards by their sha256; a shard holds the records whose keys hash into it. A
resolver reads the index and the shard of the name it was given. Pure: bytes and a clock's reading in, values out;
:mod:`publisher.resolver.trust.signatures` checks signatures, and the fetching is elsewhere. ``docs/manifest.md`` describes the format
for other readers.

Rules (docs/design.md, section 4): unknown fields are ignored, an unknown schema is refused; the highest serial wins; times
are seconds since the epoch; execution points' clocks may be an hour wrong.
"""

from __future__ import annotations

import binascii
import hashlib

from publisher.contract import fields
from publisher.contract.errors import ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

SCHEMA = 1
TYPE = "container-image-manifest"
LIFETIME = 14 * 86400
"""Seconds from an index's making to its expiry."""
HARD_LIMIT = 60 * 86400
"""Seconds from an index's making until it is of no use whatever."""
CLOCK_ERROR = 3600
"""Seconds that this host's clock may be wrong without an index being held against it."""
SHARDS = 256
INDEX_NAME = "index.json"
MOST_INDEX_BYTES = 4 << 20
MOST_SHARD_BYTES = 64 << 20
CURRENT, SUPERSEDED, EXPIRING, BLOCKED = "current", "superseded", "expiring", "blocked"
"""States of a version: what the name means; what it meant before; what leaves at ``until``; what nobody may run."""
_STATES = (CURRENT, SUPERSEDED, EXPIRING, BLOCKED)
FRESH, EXPIRED, DEAD = "fresh", "expired", "dead"
"""Ages of an index: good; good only where nothing fresher can be had; good for nothing."""


class Sif:
    """A SIF in the origin: ``path`` below its prefix, ``sha256`` (64 hex), ``size`` in bytes."""

    __slots__ = ("path", "sha256", "size")

    def __init__(self, path: str, sha256: str, size: int) -> None:
        self.path = path
        self.sha256 = sha256
        self.size = size


class Version:
    """One platform of an image at one time.

    Attributes:
        digest: digest of the platform's manifest, ``sha256:<64 hex>``.
        sandbox: path of the sandbox in the repository, None where that form is not published.
        sif: the SIF, None where that form is not published.
        state: one of :data:`CURRENT`, :data:`SUPERSEDED`, :data:`EXPIRING`, :data:`BLOCKED`.
        since: when ``state`` began. until: when an expiring version leaves, else None. reason: why it is blocked, else None.
        published: when it was first published. unpacked_size: bytes of all files. files: number of entries.
        file_index: sha256 (64 hex) of the list of all its paths, None where there is none; the publisher alone reads it.
        test: ``ran`` or ``structure``. tools: name -> version of what made it. notes: what the tree policy changed.
    """

    __slots__ = (
        "digest", "file_index", "files", "notes", "published", "reason", "sandbox", "sif", "since", "state", "test", "tools",
        "unpacked_size", "until",
    )  # fmt: skip

    def __init__(
        self,
        digest: str,
        *,
        sandbox: str | None,
        sif: Sif | None,
        published: int,
        unpacked_size: int = 0,
        files: int = 0,
        file_index: str | None = None,
        test: str = "",
        tools: Mapping[str, str] | None = None,
        notes: Mapping[str, int | str] | None = None,
        state: str = CURRENT,
        since: int | None = None,
        until: int | None = None,
        reason: str | None = None,
    ) -> None:
        self.digest = digest
        self.sandbox = sandbox
        self.sif = sif
        self.published = published
        self.unpacked_size = unpacked_size
        self.files = files
        self.file_index = file_index
        self.test = test
        self.tools = dict(tools or {})
        self.notes = dict(notes or {})
        self.state = state
        self.since = published if since is None else since
        self.until = until
        self.reason = reason

    def to_json(self) -> dict[str, Any]:
        """The JSON object; fields that are None are left out."""
        sif = self.sif and {"path": self.sif.path, "sha256": self.sif.sha256, "size": self.sif.size}
        value = {name: getattr(self, name) for name in self.__slots__} | {"sif": sif}
        return {name: content for name, content in value.items() if content is not None}

    @classmethod
    def from_json(cls, value: Any) -> Version:
        """The version that a JSON object says.

        Raises:
            ManifestError: not one; unsafe paths and digests that are none among it.
        """
        sif = value.get("sif")
        state = fields.one_of(value["state"], _STATES)
        return cls(
            fields.digest(value["digest"]),
            sandbox=None if value.get("sandbox") is None else fields.safe_path(value["sandbox"]),
            sif=None
            if sif is None
            else Sif(fields.safe_path(sif["path"]), fields.sha256(sif["sha256"]), fields.count(sif["size"])),
            published=fields.count(value["published"]),
            unpacked_size=fields.count(value.get("unpacked_size", 0)),
            files=fields.count(value.get("files", 0)),
            file_index=None if value.get("file_index") is None else fields.sha256(value["file_index"]),
            test=str(value.get("test", "")),
            tools=value.get("tools"),
            notes=value.get("notes"),
            state=state,
            since=fields.count(value.get("since", value["published"])),
            until=None if value.get("until") is None else fields.count(value["until"]),
            reason=None if value.get("reason") is None else str(value["reason"]),
        )


class Record:
    """What is published under one name.

    Attributes:
        name: the CVMFS name, ``htc/rocky:9``.
        reference: where it comes from, complete: ``hub.opensciencegrid.org/htc/rocky:9``.
        digest: what the source's tag meant when it was last published (of an index, or of the one manifest).
        platforms: ``amd64``, ``arm64``, ``arm/v7`` … -> versions, the current one first, superseded ones newest first.
        held: what the publisher needs to know of a name that its operator rolled back, else None; readers let it be.
    """

    __slots__ = ("digest", "held", "name", "platforms", "reference")

    def __init__(
        self,
        name: str,
        reference: str,
        digest: str,
        platforms: Mapping[str, Iterable[Version]],
        held: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.reference = reference
        self.digest = digest
        self.platforms = {platform: tuple(versions) for platform, versions in platforms.items()}
        self.held = held

    def versions(self) -> Iterator[tuple[str, Version]]:
        """Every version with its platform."""
        for platform, versions in self.platforms.items():
            for version in versions:
                yield platform, version

    def current(self, platform: str) -> Version | None:
        """What the name means on a platform: the first version, unless that is only a superseded one."""
        versions = self.platforms.get(platform, ())
        return versions[0] if versions and versions[0].state != SUPERSEDED else None

    def aliases(self) -> Iterator[str]:
        """The other keys that lead here: the source, its digest, and each version's manifest, sandbox and SIF."""
        yield f"docker://{self.reference}"
        yield self.digest
        for _, version in self.versions():
            yield version.digest
            if version.sandbox is not None:
                yield version.sandbox
            if version.sif is not None:
                yield f"sha256:{version.sif.sha256}"

    def to_json(self) -> dict[str, Any]:
        """The JSON object; the name is its key in the shard."""
        platforms = {platform: [version.to_json() for version in found] for platform, found in self.platforms.items()}
        value = {"reference": self.reference, "digest": self.digest, "platforms": platforms}
        return value if self.held is None else {**value, "held": dict(self.held)}

    @classmethod
    def from_json(cls, name: str, value: Any) -> Record:
        """The record of ``name`` that a JSON object says.

        Raises:
            ManifestError: not one.
        """
        try:
            platforms = {str(key): tuple(map(Version.from_json, found)) for key, found in value["platforms"].items()}
            held = value.get("held")
            return cls(fields.safe_path(name), str(value["reference"]), fields.digest(value["digest"]), platforms, held)
        except fields.WRONG as error:
            raise ManifestError(f"the manifest's record of {name!r} is not one: {error!r}") from None


class Index:
    """The payload of the signed index.

    Attributes:
        repository: name of the repository it is about.
        serial: only grows.
        generated, expires: seconds since the epoch.
        sif_prefix: where SIFs are in the origin; what records say of a SIF's path begins with it.
        shards: sha256 (64 hex) of each shard, None for an empty one.
        previous: serial of the index that this one took the place of, 0 where there was none; the publisher alone reads it.
        lost: what adopted build was removed first, empty where none was; likewise.
    """

    __slots__ = ("expires", "generated", "lost", "previous", "repository", "serial", "shards", "sif_prefix")

    def __init__(
        self,
        repository: str,
        *,
        serial: int,
        generated: int,
        expires: int,
        sif_prefix: str,
        shards: Iterable[str | None],
        previous: int = 0,
        lost: str = "",
    ) -> None:
        self.repository = repository
        self.serial = serial
        self.generated = generated
        self.expires = expires
        self.sif_prefix = sif_prefix
        self.shards = tuple(shards)
        self.previous = previous
        self.lost = lost

    def payload(self) -> bytes:
        """The bytes that are signed."""
        values = {name: getattr(self, name) for name in self.__slots__}
        said = {name: value for name, value in values.items() if value or name not in ("lost", "previous")}
        return canonical({"type": TYPE, "schema": SCHEMA, **said})

    @classmethod
    def parse(cls, payload: bytes, repository: str | None = None) -> Index:
        """The index that a payload says; the caller has checked its signature.

        Args:
            payload: the signed bytes.
            repository: the name it must carry; None where any will do.

        Raises:
            ManifestError: another type, schema or repository, or not an index.
        """
        value = fields.loaded(payload, "index")
        if not isinstance(value, dict) or value.get("type") != TYPE:
            raise ManifestError("that is no manifest index, though it is signed")
        _check_schema(value)
        try:
            shards = [None if sha256 is None else fields.sha256(sha256) for sha256 in value["shards"]]
            numbers = {name: fields.count(value[name]) for name in ("serial", "generated", "expires")}
            numbers["previous"] = fields.count(value.get("previous", 0))
            lost, prefix = str(value.get("lost", "")), fields.safe_path(value["sif_prefix"])
            index = cls(str(value["repository"]), **numbers, sif_prefix=prefix, shards=shards, lost=lost)
        except fields.WRONG as error:
            raise ManifestError(f"the manifest's index is not one: {error!r}") from None
        if not shards:
            raise ManifestError("the manifest's index has no shards")
        if repository is not None and index.repository != repository:
            raise ManifestError(f"the manifest is of the repository {index.repository!r}, not of {repository!r}")
        return index

    def age(self, now: float) -> str:
        """:data:`FRESH`, :data:`EXPIRED` or :data:`DEAD`, ``now`` being this host's clock."""
        if now <= self.expires + CLOCK_ERROR:
            return FRESH
        return EXPIRED if now <= self.generated + HARD_LIMIT + CLOCK_ERROR else DEAD

    def shard_for(self, key: str) -> str | None:
        """sha256 of the shard that ``key`` hashes into, None where that one is empty."""
        return self.shards[shard_number(key, len(self.shards))]


def canonical(value: object) -> bytes:
    """The one spelling of a JSON value: sorted keys, no blanks, ASCII."""
    import json  # noqa: PLC0415 - an execution point writes none of it

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def shard_number(key: str, count: int) -> int:
    """Which of ``count`` shards a key belongs to: the first four bytes of its sha256, big-endian, modulo ``count``."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % count


def shard_name(sha256: str) -> str:
    """Path of a shard below the manifest's directory."""
    return f"shards/{sha256}.json"


def seal(payload: bytes, signatures: Mapping[str, bytes]) -> bytes:
    """The envelope: payload and signatures (key id -> DER) in one file, so that no reader sees a mismatched pair."""
    listed = [
        {"keyid": keyid, "signature": binascii.b2a_base64(signature, newline=False).decode("ascii")}
        for keyid, signature in sorted(signatures.items())
    ]
    return canonical({"payload": payload.decode("ascii"), "signatures": listed}) + b"\n"


def unseal(content: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The payload's bytes and the signatures (key id, DER) of an envelope.

    Raises:
        ManifestError: not an envelope, or an unreasonably large one.
    """
    if len(content) > MOST_INDEX_BYTES:
        raise ManifestError(f"the manifest's index has {len(content)} bytes, more than any index")
    value = fields.loaded(content, "index")
    try:
        signatures = [(str(one["keyid"]), binascii.a2b_base64(one["signature"])) for one in value["signatures"]]
        return value["payload"].encode("ascii"), signatures
    except fields.WRONG as error:
        raise ManifestError(f"the manifest's index is no signed envelope: {error!r}") from None


def make_shard(records: Mapping[str, Mapping[str, Any]], aliases: Mapping[str, str]) -> bytes:
    """A shard's bytes: records by name (as :meth:`Record.to_json` gives them), aliases -> name."""
    return canonical({"schema": SCHEMA, "records": records, "aliases": aliases})


class Shard:
    """A parsed shard: ``records`` (name -> JSON object, see :meth:`record`) and ``aliases`` (key -> name)."""

    __slots__ = ("aliases", "records")

    def __init__(self, records: dict[str, Any], aliases: dict[str, str]) -> None:
        self.records = records
        self.aliases = aliases

    @classmethod
    def parse(cls, content: bytes, sha256: str) -> Shard:
        """The shard whose digest the index names.

        Raises:
            ManifestError: other bytes, another schema, or not a shard.
        """
        if len(content) > MOST_SHARD_BYTES:
            raise ManifestError(f"a manifest's shard has {len(content)} bytes, more than any shard")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ManifestError(f"the manifest's shard {sha256} has other bytes than the index says")
        value = fields.loaded(content, "shard")
        if isinstance(value, dict):
            _check_schema(value)
            records, aliases = value.get("records"), value.get("aliases")
            if isinstance(records, dict) and isinstance(aliases, dict):
                return cls(records, aliases)
        raise ManifestError("a manifest's shard is not one")

    def record(self, name: str) -> Record | None:
        """The record of a name, None where it is not here.

        Raises:
            ManifestError: what stands there is no record.
        """
        value = self.records.get(name)
        return None if value is None else Record.from_json(name, value)


def _check_schema(value: dict[str, Any]) -> None:
    if value.get("schema") != SCHEMA:
        raise ManifestError(
            f"the manifest has schema {value.get('schema')!r}, this program knows {SCHEMA}", hint="install a newer resolver"
        )
