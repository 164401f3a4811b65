"""The keys document: who may sign the manifest, until when, and how many signatures it needs.

The offline root key signs it; execution points are given the root's public key only. It comes with every index in the same file,
and the newest version counts for all indexes, wherever it was read. So a signing key can be replaced or revoked without touching
an execution point. ``docs/keys.md`` describes its use, ``docs/manifest.md`` the format. This module is pure.
"""

from __future__ import annotations

import binascii

from publisher.contract import fields, quickhash
from publisher.contract.errors import ManifestError
from publisher.contract.manifest import CLOCK_ERROR, SCHEMA, canonical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TYPE = "container-image-keys"
MAX_LIFETIME = 35 * 86400
"""Seconds for which a document lets a key sign at most: so long a stolen key works where newer documents are withheld."""
MAX_KEYS = 16
_PEM_LINE = 64


class SigningKey:
    """A key that may sign the manifest's index.

    Attributes:
        der: its SubjectPublicKeyInfo in DER.
        until: when it stops being valid, seconds since the epoch.
        keyid: the sha256 of ``der``, 64 hex digits.
    """

    __slots__ = ("der", "keyid", "until")

    def __init__(self, der: bytes, until: int) -> None:
        self.der = fields.p256_key(der)
        self.until = until
        self.keyid = quickhash.sha256(der).hexdigest()

    def pem(self) -> bytes:
        """Return the public key in PEM."""
        body = binascii.b2a_base64(self.der, newline=False)
        lines = [body[start : start + _PEM_LINE] for start in range(0, len(body), _PEM_LINE)]
        return b"\n".join([b"-----BEGIN PUBLIC KEY-----", *lines, b"-----END PUBLIC KEY-----", b""])

    def may_sign(self, now: float) -> bool:
        """Return whether the key is valid; ``now`` is this host's clock, seconds since the epoch.

        A key that would be valid for longer than :data:`MAX_LIFETIME` from now comes from a wrong clock and is not valid yet.
        """
        return now - CLOCK_ERROR <= self.until <= now + MAX_LIFETIME + CLOCK_ERROR


class KeysDocument:
    """The payload of the keys document.

    Attributes:
        repository: name of the repository whose manifest the keys may sign.
        version: number of this document; a newer one has a higher one.
        generated: when it was signed, seconds since the epoch.
        threshold: number of different keys that must sign an index.
        keys: key id -> key.
    """

    __slots__ = ("generated", "keys", "repository", "threshold", "version")

    def __init__(self, repository: str, *, version: int, generated: int, threshold: int, keys: Mapping[str, SigningKey]) -> None:
        self.repository = repository
        self.version = version
        self.generated = generated
        self.threshold = threshold
        self.keys = keys

    def payload(self) -> bytes:
        """Return the bytes to sign."""
        keys = {
            keyid: {"public": binascii.b2a_base64(key.der, newline=False).decode("ascii"), "until": key.until}
            for keyid, key in self.keys.items()
        }
        values = {name: getattr(self, name) for name in self.__slots__}
        return canonical({**values, "type": TYPE, "schema": SCHEMA, "keys": keys})

    @classmethod
    def parse(cls, payload: bytes, repository: str | None = None) -> KeysDocument:
        """Return the document of a payload whose signature the caller has checked or will check.

        Args:
            payload: the signed bytes.
            repository: the repository that the document must be about, None to accept any.

        Raises:
            ManifestError: the payload has another type, schema or repository, or is not a valid keys document.
        """
        value = fields.load_json(payload, "keys document")
        if not isinstance(value, dict) or value.get("type") != TYPE or value.get("schema") != SCHEMA:
            raise ManifestError(f"the signed file is not a keys document with schema {SCHEMA}")
        try:
            numbers = {name: fields.count(value[name]) for name in ("version", "generated", "threshold")}
            keys = {key.keyid: key for key in map(_parse_key, value["keys"].values())}
            if keys.keys() != value["keys"].keys():
                raise ValueError("a key has the id of another")
            document = cls(str(value["repository"]), keys=keys, **numbers)
        except fields.SHAPE_ERRORS as error:
            raise ManifestError(f"the keys document is not valid: {error!r}") from None
        if not document.threshold or len(keys) > MAX_KEYS:
            raise ManifestError(f"a keys document needs a threshold of 1 or more and has at most {MAX_KEYS} keys")
        if any(key.until > document.generated + MAX_LIFETIME for key in keys.values()):
            raise ManifestError(f"the keys document lets a key sign for more than {MAX_LIFETIME // 86400} days")
        if repository is not None and document.repository != repository:
            raise ManifestError(f"the keys document is of the repository {document.repository!r}, not of {repository!r}")
        return document

    def valid_keys(self, now: float) -> dict[str, bytes]:
        """Return the keys that may sign at ``now`` (this host's clock, seconds since the epoch): key id -> PEM."""
        return {keyid: key.pem() for keyid, key in self.keys.items() if key.may_sign(now)}


def _parse_key(value: Mapping[str, object]) -> SigningKey:
    return SigningKey(binascii.a2b_base64(str(value["public"])), fields.count(value["until"]))
