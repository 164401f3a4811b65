"""The authorization of the publisher's signing keys: the keys document that the root key signed. This module is pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from publisher.contract.errors import ManifestError
from publisher.contract.keys_document import KeysDocument
from publisher.contract.manifest import Envelope
from publisher.errors import PublishedManifestError, UsageError
from publisher.state.signing import PublicKey, load_public_key

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_RENEW = "have the root key sign a new keys document (publisher keys authorize), see docs/keys.md"


@dataclass(frozen=True)
class Authorization:
    """A keys document that a root key has signed.

    Attributes:
        envelope: the signed document.
        document: the same, parsed.
        roots: the root keys that execution points were given.
    """

    envelope: Envelope
    document: KeysDocument
    roots: tuple[PublicKey, ...]

    @property
    def publics(self) -> tuple[PublicKey, ...]:
        """Return the public keys that the document names, whether they may still sign or not."""
        return tuple(load_public_key(key.pem(), keyid) for keyid, key in sorted(self.document.keys.items()))

    def check(self, signers: Collection[PublicKey], now: float) -> None:
        """Check that the signing keys may sign now, and are enough.

        Args:
            signers: the publisher's signing keys.
            now: seconds since the epoch.

        Raises:
            UsageError: execution points would refuse what they sign.
        """
        document = self.document
        valid = document.valid_keys(now)
        for key in signers:
            if key.keyid not in document.keys:
                raise UsageError(
                    f"the keys document (version {document.version}) does not let the key {key.keyid} sign", hint=_RENEW
                )
            if key.keyid not in valid:
                raise UsageError(f"the key {key.keyid} may sign only until {_day(document.keys[key.keyid].until)}", hint=_RENEW)
        if len({key.keyid for key in signers}) < document.threshold:
            raise UsageError(
                f"the keys document asks for signatures of {document.threshold} keys, and {len(signers)} are set",
                hint="name the others in cosigning_keys",
            )

    def expiry_warning(self, signers: Collection[PublicKey], now: float) -> str | None:
        """Return a line if the signing keys may sign for less than half of their time from now, None otherwise."""
        until = min(self.document.keys[key.keyid].until for key in signers)
        if now < (self.document.generated + until) / 2:
            return None
        return f"the keys document lets this publisher sign until {_day(until)} only: {_RENEW}"


class ManifestSigner(Protocol):
    """What signs the manifest's index: one key, or several together."""

    @property
    def publics(self) -> tuple[PublicKey, ...]:
        """Return the public keys."""

    @property
    def authorization(self) -> Authorization | None:
        """Return the keys document that lets the keys sign, None with one level of keys."""

    def sign(self, payload: bytes) -> dict[str, bytes]:
        """Return the signatures (DER) of a payload: key id -> signature. Raise SigningError."""


def open_authorization(content: bytes, roots: Sequence[PublicKey], repository: str | None) -> Authorization:
    """Return the authorization in the content of a keys document's file.

    Args:
        content: the content.
        roots: the root keys, one of which must have signed it.
        repository: the name of the repository that it must be about, None for any.

    Raises:
        UsageError: it is not a valid keys document, or no root key has signed it.
    """
    try:
        envelope = Envelope.parse(content, "keys document")
        document = KeysDocument.parse(envelope.payload, repository)
    except ManifestError as error:
        raise UsageError(f"the keys document cannot be used: {error.reason}", hint=error.hint) from error
    if not _is_signed(envelope, roots):
        raise UsageError("no root key has signed the keys document", hint="name the root's public key in root_keys")
    return Authorization(envelope, document, tuple(roots))


def check_published(content: bytes | None, authorization: Authorization | None, exempt: Sequence[PublicKey]) -> None:
    """Check that the published index has no newer keys document than this publisher, and as many signatures as it needs.

    With an older document execution points would refuse what this publisher signs, or learn nothing of a revocation. A manifest
    with too few signatures may come from a thief of one key, and this publisher's signatures would make it valid.

    Args:
        content: the published index, None if there is none.
        authorization: this publisher's, None with one level of keys.
        exempt: keys of which one signature is enough.

    Raises:
        PublishedManifestError: the published document is newer, or the index has too few signatures.
    """
    if content is None:
        return
    try:
        index = Envelope.parse(content)
        version = 0 if index.keys is None else KeysDocument.parse(index.keys.payload).version
    except ManifestError as error:
        raise PublishedManifestError(f"the published manifest cannot be used: {error.reason}", hint=error.hint) from error
    if authorization is None:
        if version:
            raise PublishedManifestError(
                "the published manifest has a keys document, and this publisher has none",
                hint="nothing was changed; set keys_document and root_keys, see docs/keys.md",
            )
        return
    document = authorization.document
    if index.keys is not None and version > document.version and _is_signed(index.keys, authorization.roots):
        raise PublishedManifestError(
            f"the published keys document has version {version}, this publisher's {document.version}",
            hint="nothing was changed; bring the newest keys document to this host, see docs/keys.md",
        )
    signers = [key for key in authorization.publics if _is_signed(index, [key])]
    if len(signers) < document.threshold and not _is_signed(index, exempt):
        raise PublishedManifestError(
            f"the published manifest has {len(signers)} of the {document.threshold} signatures that the keys document asks for",
            hint="nothing was changed; if it is genuine, name a key that signed it in trusted_keys for one run, see docs/keys.md",
        )


def _is_signed(envelope: Envelope, roots: Sequence[PublicKey]) -> bool:
    keys = {key.keyid: key for key in roots}
    return any(keyid in keys and keys[keyid].verifies(envelope.payload, signature) for keyid, signature in envelope.signatures)


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
