"""The manifest, schema 1: which images are published, and where. It is the contract between publisher and execution point.

A signed index lists up to a few hundred shards by their sha256; a shard holds the records whose keys hash into it
(:mod:`publisher.contract.records`). A resolver reads the index and the one shard of the name that it looks up. This module is
pure: it parses and writes bytes. :mod:`publisher.resolver.trust.signatures` checks signatures, and
:mod:`publisher.resolver.trust` fetches. ``docs/manifest.md`` describes the format for other readers.

Rules (docs/design.md, section 4): readers ignore unknown fields and refuse an unknown schema; the highest serial wins; times
are seconds since the epoch; the clock of an execution point may be an hour wrong.
"""

from __future__ import annotations

import binascii

from publisher.contract import fields, quickhash, quickjson
from publisher.contract.errors import ManifestError
from publisher.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

SCHEMA = 1
TYPE = "container-image-manifest"
LIFETIME = 14 * 86400
"""Seconds from the signing of an index to its expiry."""
HARD_LIMIT = 60 * 86400
"""Seconds from the signing of an index until no reader accepts it any more."""
CLOCK_ERROR = 3600
"""Seconds by which this host's clock may be wrong before it affects the age of an index."""
MAX_PREDECESSORS = 64
"""Number of predecessors that an index names, the newest ones."""
_SERIAL_DIGITS = 19  # of 2^63, above which no serial is accepted
SHARDS = 256
INDEX_NAME = "index.json"
MAX_INDEX_BYTES = 4 << 20
MAX_SHARD_BYTES = 64 << 20
_SHARD_BEGIN, _SHARD_END = b'{"aliases":{', b'},"schema":1}'
_ESCAPED = frozenset('"\\')
_MAX_EXCERPT = 1 << 16  # bytes of a record; of a longer one the whole shard is parsed
FRESH, EXPIRED, DEAD = "fresh", "expired", "dead"
"""Ages of an index: valid; valid only if no fresh one can be fetched; past the hard limit and never used."""


class Index:
    """The payload of the signed index.

    Attributes:
        repository: name of the repository that it describes.
        serial: number of this index; a newer index has a higher one.
        generated: when it was signed, seconds since the epoch.
        expires: when it expires, seconds since the epoch.
        sif_prefix: prefix of all SIFs in the origin; the path of a SIF in a record begins with it.
        shards: sha256 (64 hex digits) of each shard, None for an empty one.
        previous: serial of the index that this one replaced, 0 if there was none; only the publisher reads it.
        lost: text about the first adopted build that was removed, empty if none was; only the publisher reads it.
        predecessors: serial, as text -> sha256 of the payload, of the newest :data:`MAX_PREDECESSORS` indexes that this one
            descends from; None if a publisher made it that named none yet.
        log: sha256 (64 hex digits) of the entry of the publication log that tells of this index, empty if there is none.
        outcomes: sha256 of the document about images that are not, or not newly, published; it lies beside the shards, under a
            name of their kind. None if there is none. Execution points do not read it.
    """

    __slots__ = (
        "expires", "generated", "log", "lost", "outcomes", "predecessors", "previous", "repository", "serial", "shards",
        "sif_prefix",
    )  # fmt: skip

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
        predecessors: Mapping[str, str] | None = None,
        log: str = "",
        outcomes: str | None = None,
    ) -> None:
        self.repository = repository
        self.serial = serial
        self.generated = generated
        self.expires = expires
        self.sif_prefix = sif_prefix
        self.shards = tuple(shards)
        self.previous = previous
        self.lost = lost
        self.predecessors = predecessors
        self.log = log
        self.outcomes = outcomes

    def payload(self) -> bytes:
        """Return the bytes to sign."""
        values = {name: getattr(self, name) for name in self.__slots__}
        present = {name: value for name, value in values.items() if value or name not in ("log", "lost", "outcomes", "previous")}
        if self.predecessors is None:
            del present["predecessors"]
        return canonical({"type": TYPE, "schema": SCHEMA, **present})

    @classmethod
    def parse(cls, payload: bytes, repository: str | None = None) -> Index:
        """Return the index of a payload whose signature the caller has checked.

        Args:
            payload: the signed bytes.
            repository: the repository that the index must be about, None to accept any.

        Raises:
            ManifestError: the payload has another type, schema or repository, or is not a valid index.
        """
        value = fields.load_json(payload, "index")
        if not isinstance(value, dict) or value.get("type") != TYPE:
            raise ManifestError("the signed file is not a manifest index")
        _check_schema(value)
        try:
            shards = [None if sha256 is None else fields.sha256(sha256) for sha256 in value["shards"]]
            numbers: dict[str, Any] = {name: fields.count(value[name]) for name in ("serial", "generated", "expires")}
            numbers["previous"] = fields.count(value.get("previous", 0))
            lost, prefix = str(value.get("lost", "")), fields.safe_path(value["sif_prefix"])
            predecessors = value.get("predecessors")
            if (
                not (predecessors is None or isinstance(predecessors, dict))
                or max(map(len, predecessors or [""])) > _SERIAL_DIGITS
            ):
                raise ValueError("its predecessors are not an object whose keys are serials")
            log = "" if value.get("log") is None else fields.sha256(value["log"])
            outcomes = None if value.get("outcomes") is None else fields.sha256(value["outcomes"])
            index = cls(
                str(value["repository"]),
                **numbers,
                sif_prefix=prefix,
                shards=shards,
                lost=lost,
                predecessors=predecessors,
                log=log,
                outcomes=outcomes,
            )
        except fields.SHAPE_ERRORS as error:
            raise ManifestError(f"the manifest's index is not valid: {error!r}") from None
        if not shards:
            raise ManifestError("the manifest's index has no shards")
        if not index.generated <= index.expires <= index.generated + HARD_LIMIT:
            raise ManifestError(
                f"the manifest's index expires {index.expires - index.generated} s after it was signed; "
                f"that must be from 0 to {HARD_LIMIT} s"
            )
        if repository is not None and index.repository != repository:
            raise ManifestError(f"the manifest is of the repository {index.repository!r}, not of {repository!r}")
        return index

    def age(self, now: float) -> str:
        """Return :data:`FRESH`, :data:`EXPIRED` or :data:`DEAD`; ``now`` is this host's clock in seconds since the epoch.

        An index is fresh for :data:`LIFETIME` at most, whatever it says of itself. One that was signed at a time that has not
        come yet counts as expired, and as dead if that time is far away: a clock is wrong, the publisher's or this host's.
        """
        if self.is_from_future(now):
            return EXPIRED if self.generated <= now + HARD_LIMIT else DEAD
        if now <= min(self.expires, self.generated + LIFETIME) + CLOCK_ERROR:
            return FRESH
        return EXPIRED if now <= self.generated + HARD_LIMIT + CLOCK_ERROR else DEAD

    def is_from_future(self, now: float) -> bool:
        """Return whether it was signed at a time that has not come yet, by more than a clock may be wrong."""
        return self.generated > now + CLOCK_ERROR

    def descends_from(self, older: Index, sha256: str) -> bool | None:
        """Return whether an index with a lower serial is one of this one's predecessors; None if that cannot be known.

        Args:
            older: the index with the lower serial.
            sha256: sha256 of its payload, see :func:`payload_sha256`.
        """
        named = self.predecessors or {}
        if named.get(str(older.serial)) == sha256:
            return True
        if older.predecessors is None:
            return None
        is_full = len(named) >= MAX_PREDECESSORS
        return None if is_full and all(not serial.isdecimal() or older.serial < int(serial) for serial in named) else False

    def shard_for(self, key: str) -> str | None:
        """Return the sha256 of the shard that ``key`` hashes into, None if that shard is empty."""
        return self.shards[shard_number(key, len(self.shards))]


def canonical(value: object) -> bytes:
    """Return the canonical encoding of a JSON value: sorted keys, no white space, ASCII."""
    import json  # noqa: PLC0415 - an execution point writes no JSON on its warm path

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def shard_number(key: str, count: int) -> int:
    """Return which of ``count`` shards a key belongs to: the first four bytes of its sha256, big-endian, modulo ``count``."""
    return int.from_bytes(quickhash.sha256(key.encode()).digest()[:4], "big") % count


def shard_name(sha256: str) -> str:
    """Return the path of a shard below the manifest's directory."""
    return f"shards/{sha256}.json"


class Envelope:
    """A signed payload of which nothing is verified yet.

    Attributes:
        payload: the signed bytes.
        signatures: ``(key id, DER)`` of each signature.
        keys: the envelope of the keys document that came with an index, None without one.
    """

    __slots__ = ("keys", "payload", "signatures")

    def __init__(self, payload: bytes, signatures: Iterable[tuple[str, bytes]], keys: Envelope | None = None) -> None:
        self.payload = payload
        self.signatures = list(signatures)
        self.keys = keys

    @classmethod
    def parse(cls, content: bytes, part: str = "index") -> Envelope:
        """Return the envelope in the content of a file; ``part`` names the part of the manifest in the errors.

        Raises:
            ManifestError: the content is not an envelope, or is larger than :data:`MAX_INDEX_BYTES`.
        """
        if len(content) > MAX_INDEX_BYTES:
            raise ManifestError(f"the manifest's {part} has {len(content)} bytes; the limit is {MAX_INDEX_BYTES}")
        value = fields.load_json(content, part)
        try:
            keys = value.get("keys")
            return cls(*_unpack(value), None if keys is None else cls(*_unpack(keys)))
        except fields.SHAPE_ERRORS as error:
            raise ManifestError(f"the manifest's {part} is not a signed envelope: {error!r}") from None

    def content(self) -> bytes:
        """Return the content of a file with this envelope: payload and signatures in one, so that no reader sees a mixed pair."""
        value = _pack(self) if self.keys is None else {**_pack(self), "keys": _pack(self.keys)}
        return canonical(value) + b"\n"


def _pack(envelope: Envelope) -> dict[str, Any]:
    signatures = [
        {"keyid": keyid, "signature": binascii.b2a_base64(signature, newline=False).decode("ascii")}
        for keyid, signature in sorted(envelope.signatures)
    ]
    return {"payload": envelope.payload.decode("ascii"), "signatures": signatures}


def _unpack(value: dict[str, Any]) -> tuple[bytes, list[tuple[str, bytes]]]:
    signatures = [(str(entry["keyid"]), binascii.a2b_base64(entry["signature"])) for entry in value["signatures"]]
    return value["payload"].encode("ascii"), signatures


def seal(payload: bytes, signatures: Mapping[str, bytes], keys: Envelope | None = None) -> bytes:
    """Return the content of the envelope of a payload, its signatures (key id -> DER) and the keys document that goes with it."""
    return Envelope(payload, signatures.items(), keys).content()


def unseal(content: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the payload and the signatures ``(key id, DER)`` of an index's envelope; nothing is verified.

    Raises:
        ManifestError: the content is not an envelope, or is larger than :data:`MAX_INDEX_BYTES`.
    """
    envelope = Envelope.parse(content)
    return envelope.payload, envelope.signatures


def has_shard_name(content: bytes, name: str) -> bool:
    """Return whether the content of a shard is what its name says."""
    return shard_name(quickhash.sha256(content).hexdigest()) == name


def payload_sha256(content: bytes) -> str:
    """Return the sha256 (64 hex digits) of the payload in an envelope: other signatures of the same payload do not change it.

    Raises:
        ManifestError: the content is not an envelope.
    """
    return quickhash.sha256(unseal(content)[0]).hexdigest()


def make_shard(records: Mapping[str, Mapping[str, Any]], aliases: Mapping[str, str]) -> bytes:
    """Return the bytes of a shard: records by name (as :meth:`Record.to_json` returns them) and aliases (key -> name)."""
    return canonical({"schema": SCHEMA, "records": records, "aliases": aliases})


class Shard:
    """A parsed shard: ``records`` (name -> JSON object, see :meth:`record`) and ``aliases`` (key -> name)."""

    __slots__ = ("aliases", "records")

    def __init__(self, records: dict[str, Any], aliases: dict[str, str]) -> None:
        self.records = records
        self.aliases = aliases

    @classmethod
    def parse(cls, content: bytes, sha256: str) -> Shard:
        """Return the shard in ``content``, which must have the sha256 that the index lists.

        Raises:
            ManifestError: the content has another sha256 or schema, is too large, or is not a valid shard.
        """
        if len(content) > MAX_SHARD_BYTES:
            raise ManifestError(f"a shard of the manifest has {len(content)} bytes; the limit is {MAX_SHARD_BYTES}")
        if quickhash.sha256(content).hexdigest() != sha256:
            raise ManifestError(f"the manifest's shard {sha256} does not match its sha256 in the index")
        value = fields.load_json(content, "shard")
        if isinstance(value, dict):
            _check_schema(value)
            records, aliases = value.get("records"), value.get("aliases")
            if isinstance(records, dict) and isinstance(aliases, dict):
                return cls(records, aliases)
        raise ManifestError("a shard of the manifest is not valid")

    def record(self, name: str) -> Record | None:
        """Return the record of a name, None if this shard does not have it.

        Raises:
            ManifestError: the shard's entry is not a valid record.
        """
        value = self.records.get(name)
        return None if value is None else Record.from_json(name, value)


def find_record(content: bytes, sha256: str, name: str) -> dict[str, Any] | None:
    """Return the JSON object of a name in a shard without parsing the others, which would take longer than all else.

    Args:
        content: the shard.
        sha256: what the index lists.
        name: the name.

    Returns:
        None if only :meth:`Shard.parse` can tell: the shard is not as :func:`make_shard` writes it, or lacks the name.
    """
    if not content.startswith(_SHARD_BEGIN) or not content.endswith(_SHARD_END) or len(content) > MAX_SHARD_BYTES:
        return None
    if ":" not in name or not name.isascii() or set(name) & _ESCAPED or quickhash.sha256(content).hexdigest() != sha256:
        return None
    key = f'"{name}":'.encode()
    start = content.find(key + b"{")
    if start < 1 or content[start - 1 : start] not in (b"{", b","):  # else it is the end of a longer key
        return None
    value = quickjson.value_at(content[start + len(key) : start + _MAX_EXCERPT].decode("ascii", "replace"), 0)
    return value if isinstance(value, dict) and "platforms" in value else None


def _check_schema(value: dict[str, Any]) -> None:
    """Raise ManifestError unless the value has the schema of this program."""
    if value.get("schema") != SCHEMA:
        raise ManifestError(
            f"the manifest has schema {value.get('schema')!r}; this program reads schema {SCHEMA}",
            hint="install a newer resolver",
        )
