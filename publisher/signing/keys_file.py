"""The file of the keys document, as ``publisher keys authorize`` makes it on the root key's host."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from publisher.contract.errors import ManifestError
from publisher.contract.keys_document import KeysDocument, SigningKey
from publisher.contract.manifest import Envelope
from publisher.errors import UsageError
from publisher.state.authorization import open_authorization

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.signing.outside_keys import OutsideKey
    from publisher.state.signing import PublicKey, Signer


class Validity(NamedTuple):
    """From when and for how many seconds keys may sign; ``start`` is in seconds since the epoch."""

    start: int
    seconds: int


def read(path: Path) -> KeysDocument:
    """Return the keys document in a file, or in the file of an index; no signature is verified.

    Raises:
        UsageError: there is none.
    """
    try:
        envelope = Envelope.parse(path.read_bytes(), "keys document")
        return KeysDocument.parse((envelope.keys or envelope).payload)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ManifestError as error:
        raise UsageError(f"{path} has no keys document: {error.reason}") from error


def read_previous(path: Path, root: PublicKey, repository: str) -> KeysDocument | None:
    """Return the keys document in a file that is about to be replaced, None if there is no file.

    Raises:
        UsageError: it is not a keys document of this root key and repository.
    """
    try:
        return open_authorization(path.read_bytes(), (root,), repository).document
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def make(
    root: Signer | OutsideKey,
    signers: Sequence[PublicKey],
    repository: str,
    validity: Validity,
    previous: KeysDocument | None,
    *,
    threshold: int,
    version: int | None,
) -> tuple[Envelope, KeysDocument]:
    """Return the next keys document, signed.

    Args:
        root: the root key.
        signers: the keys that may sign; all others are revoked.
        repository: name of the repository.
        validity: when they may sign.
        previous: the document that this one replaces, None without one.
        threshold: how many of the keys must sign.
        version: number of the document; None for the one after the previous.

    Raises:
        UsageError: the version is not above the previous one, the clock runs behind, or a key is the root key itself.
        SigningError: the root key did not sign.
    """
    last = 0 if previous is None else previous.version
    number = last + 1 if version is None else version
    if number <= last:
        raise UsageError(f"the version {number} is not above that of the previous keys document, {last}")
    if previous is not None and validity.start < previous.generated:
        raise UsageError("this host's clock is behind the previous keys document", hint="set the clock")
    if any(key.keyid == root.public.keyid for key in signers):
        raise UsageError(
            "the root key must not sign the manifest itself", hint="give the public key of a signing key to --signer"
        )
    keys = [SigningKey(key.der, validity.start + validity.seconds) for key in signers]
    document = KeysDocument(
        repository, version=number, generated=validity.start, threshold=threshold, keys={key.keyid: key for key in keys}
    )
    payload = document.payload()
    return Envelope(payload, root.sign(payload).items()), document
