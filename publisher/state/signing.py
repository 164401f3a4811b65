"""The publisher's signing key: ECDSA on P-256, SHA-256 (FIPS 186-5), so that ``openssl dgst`` checks a signature on any host.

The private key is a PKCS#8 file in PEM that only its owner may read; the public key stands beside it as ``FILE.pub`` and goes
to the execution points. A key's id is the sha256 of its SubjectPublicKeyInfo in DER.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from publisher.contract import files
from publisher.errors import PublishedManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ALGORITHM = ec.ECDSA(hashes.SHA256())


class PublicKey:
    """A key that manifests are checked with; ``keyid`` is 64 hex digits."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.keyid = hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()
        self.pem = key.public_bytes(serialization.Encoding.PEM, form)

    def verifies(self, payload: bytes, signature: bytes) -> bool:
        """Whether ``signature`` (DER) is this key's over ``payload``."""
        try:
            self._key.verify(signature, payload, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


class Signer:
    """The private key in a file.

    Raises:
        UsageError: no such file, not a P-256 key in PEM, or a file that others can read.
    """

    def __init__(self, path: Path) -> None:
        self._key = private_key(path)
        self.public = PublicKey(self._key.public_key())

    def sign(self, payload: bytes) -> dict[str, bytes]:
        """Key id -> signature (DER)."""
        return {self.public.keyid: self._key.sign(payload, _ALGORITHM)}


def new_key(path: Path) -> PublicKey:
    """Make a key pair: the private key at ``path`` (mode 0600), the public key at ``path.pub``. Never overwrites.

    Raises:
        UsageError: one of the files is there already, or cannot be made.
    """
    public_path = public_path_of(path)
    for taken in (path, public_path):
        if os.path.lexists(taken):
            raise UsageError(f"{taken} is there already", hint="a key is never overwritten: choose another name")
    key = ec.generate_private_key(ec.SECP256R1())
    public = PublicKey(key.public_key())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(str(path), private, mode=0o600)
        files.replace(str(public_path), public.pem, mode=0o644)
    except OSError as error:
        raise UsageError(f"cannot write the key: {error}") from error
    return public


def public_path_of(path: Path) -> Path:
    """Where the public key of the private key at ``path`` stands."""
    return path.with_name(f"{path.name}.pub")


def read_public_key(path: Path) -> PublicKey:
    """A public key from its PEM file.

    Raises:
        UsageError: no such file, or not a P-256 public key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no public key that can be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is no public key on the curve P-256")
    return PublicKey(key)


def trusted(key: Path | None, further: Iterable[Path]) -> tuple[PublicKey, ...] | None:
    """The keys of which one must have signed what is published; None where neither half of ``key`` can be read.

    Args:
        key: the publisher's private key; its public half does as well, for who may not read the other.
        further: public keys that may have signed it too.

    Raises:
        UsageError: one of ``further`` cannot be read.
    """
    if key is None:
        return None
    try:
        own = Signer(key).public
    except UsageError:
        try:
            own = read_public_key(public_path_of(key))
        except UsageError:
            return None
    return (own, *map(read_public_key, further))


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private key from its PEM file.

    Raises:
        UsageError: no such file, not a P-256 key in PEM, or a file that others can read.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(f"the key {path} can be read by others", hint=f"chmod 600 {path}; and ask who had it")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise UsageError(f"there is no key {path}", hint=f"publisher keys new --key {path}") from None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is no private key that can be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is no private key on the curve P-256", hint="publisher keys new makes one")
    return key


def check(payload: bytes, signatures: Iterable[tuple[str, bytes]], trusted: Iterable[PublicKey]) -> None:
    """Demand that a trusted key signed ``payload``.

    Raises:
        PublishedManifestError: none of them did.
    """
    keys = {key.keyid: key for key in trusted}
    if not any(keyid in keys and keys[keyid].verifies(payload, signature) for keyid, signature in signatures):
        raise PublishedManifestError(
            "the published manifest is not signed by this publisher's key",
            hint="give the key that signed it; nothing was changed",
        )
