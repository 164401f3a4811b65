"""What signs the manifest of one publisher: its signing keys together, with the keys document that lets them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import UsageError
from publisher.signing import credentials, outside_keys
from publisher.signing.key_source import TokenKey
from publisher.state.authorization import Authorization, open_authorization
from publisher.state.signing import PublicKey, Signer, read_public_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.signing.credentials import Ask
    from publisher.signing.key_source import KeySource
    from publisher.signing.outside_keys import OutsideKey


class JointSigner:
    """Several keys that all sign, and their authorization.

    Attributes:
        publics: their public keys.
        authorization: the keys document that lets them sign, None with one level of keys.
    """

    def __init__(self, keys: Sequence[Signer | OutsideKey], authorization: Authorization | None) -> None:
        self.publics = tuple(key.public for key in keys)
        self.authorization = authorization
        self._keys = keys

    def sign(self, payload: bytes) -> dict[str, bytes]:
        """Return the signature (DER) of a payload by each key: key id -> signature.

        Raises:
            SigningError: a key outside this process did not sign.
        """
        return {keyid: signature for key in self._keys for keyid, signature in key.sign(payload).items()}


def open_key(source: KeySource, ask: Ask) -> Signer | OutsideKey:
    """Return a private key that is ready to sign.

    Raises:
        UsageError: it cannot be used.
    """
    if isinstance(source, TokenKey):
        return outside_keys.open_token(source, ask)
    if isinstance(source, Path):
        return Signer(
            source, lambda: credentials.find_secret(f"{source.name}.passphrase", ask, f"the passphrase of the key {source}")
        )
    return outside_keys.open_program(source)


def read_authorization(document: Path | None, roots: Sequence[Path], repository: str) -> Authorization | None:
    """Return the authorization in a keys document's file, None without a file.

    Args:
        document: the file.
        roots: files of the root keys' public halves.
        repository: name of the repository in the manifest.

    Raises:
        UsageError: a file cannot be read, the document is not valid, or no root key has signed it.
    """
    if document is None:
        return None
    keys: tuple[PublicKey, ...] = tuple(map(read_public_key, roots))
    try:
        return open_authorization(document.read_bytes(), keys, repository)
    except OSError as error:
        raise UsageError(f"the keys document {document} cannot be read: {error.strerror}") from error
