"""The publisher's signing key: ECDSA on P-256 with SHA-256 (FIPS 186-5), which ``openssl dgst`` verifies on any host.

The private key is a PKCS#8 file in PEM that only its owner may read. The public key is beside it as ``FILE.pub`` and is copied
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
    """A public key that verifies manifests: ``keyid`` is 64 hex digits, ``pem`` its file's content."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.keyid = hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()
        self.pem = key.public_bytes(serialization.Encoding.PEM, form)

    def verifies(self, payload: bytes, signature: bytes) -> bool:
        """Return whether ``signature`` (DER) is this key's signature of ``payload``."""
        try:
            self._key.verify(signature, payload, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A signer with the private key in a file.

    Raises:
        UsageError: the file does not exist, is not a P-256 key in PEM, or can be read by others.
    """

    def __init__(self, path: Path) -> None:
        self._key = read_private_key(path)
        self.public = PublicKey(self._key.public_key())

    def sign(self, payload: bytes) -> dict[str, bytes]:
        """Return the signature (DER) of a payload as ``{key id: signature}``."""
        return {self.public.keyid: self._key.sign(payload, _ALGORITHM)}


def new_key(path: Path) -> PublicKey:
    """Create a key pair: the private key at ``path`` (mode 0600), the public key at ``path.pub``; never overwrite a file.

    Raises:
        UsageError: one of the files exists already or cannot be written.
    """
    public_path = public_path_of(path)
    for file in (path, public_path):
        if os.path.lexists(file):
            raise UsageError(f"{file} exists already", hint="a key is never overwritten: choose another name")
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
    """Return the path of the public key that belongs to the private key at ``path``."""
    return path.with_name(f"{path.name}.pub")


def read_public_key(path: Path) -> PublicKey:
    """Read a public key from its PEM file.

    Raises:
        UsageError: the file does not exist, or is not a P-256 public key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a readable public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is not a public key on the curve P-256")
    return PublicKey(key)


def trusted_keys(key: Path | None, others: Iterable[Path]) -> tuple[PublicKey, ...] | None:
    """Return the keys of which one must have signed the published manifest; None if ``key`` and ``key.pub`` cannot be read.

    Args:
        key: path of the publisher's private key; its public key is used if the private key cannot be read.
        others: paths of further public keys that may have signed it.

    Raises:
        UsageError: one of ``others`` cannot be read.
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
    return (own, *map(read_public_key, others))


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key from its PEM file.

    Raises:
        UsageError: the file does not exist, is not a P-256 key in PEM, belongs to another user, or can be read by others.
    """
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            key = serialization.load_pem_private_key(file.read(), password=None)
    except FileNotFoundError:
        raise UsageError(f"the key {path} does not exist", hint=f"create it with: publisher keys new --key {path}") from None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is not a readable private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is not a private key on the curve P-256", hint="create one with: publisher keys new")
    return key


def _check_private(path: Path, status: os.stat_result) -> None:
    """Raise UsageError unless the file is this user's or root's alone."""
    if status.st_uid not in {0, os.geteuid()}:
        raise UsageError(
            f"the key {path} belongs to another user (uid {status.st_uid}), who can read and replace it",
            hint="make a new key as the user that runs the publisher; changing the owner of this one does not undo a copy",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(
            f"the key {path} can be read by others", hint=f"run chmod 600 {path}, and find out who may have copied it"
        )


def verify(payload: bytes, signatures: Iterable[tuple[str, bytes]], trusted: Iterable[PublicKey]) -> None:
    """Verify that a trusted key signed ``payload``.

    Raises:
        PublishedManifestError: no trusted key signed it.
    """
    keys = {key.keyid: key for key in trusted}
    if not any(keyid in keys and keys[keyid].verifies(payload, signature) for keyid, signature in signatures):
        raise PublishedManifestError(
            "the published manifest is not signed by this publisher's key",
            hint="nothing was changed; give the key that signed it with --key or in the setting trusted_keys",
        )
