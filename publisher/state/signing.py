"""The publisher's signing key: ECDSA on P-256 with SHA-256 (FIPS 186-5), which ``openssl dgst`` verifies on any host.

The private key is a PKCS#8 file in PEM, encrypted or not, that only its owner may read. The public key is beside it as
``FILE.pub`` and is copied to the execution points. A key's id is the sha256 of its SubjectPublicKeyInfo in DER.
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
from publisher.contract.errors import os_reason
from publisher.errors import PublishedManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_ALGORITHM = ec.ECDSA(hashes.SHA256())


class PublicKey:
    """A public key that verifies manifests: ``keyid`` is 64 hex digits, ``pem`` its file's content, ``der`` its encoding."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.der = key.public_bytes(serialization.Encoding.DER, form)
        self.keyid = hashlib.sha256(self.der).hexdigest()
        self.pem = key.public_bytes(serialization.Encoding.PEM, form)

    def verifies(self, payload: bytes, signature: bytes) -> bool:
        """Return whether ``signature`` (DER) is this key's signature of ``payload``."""
        try:
            self._key.verify(signature, payload, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A signer with the private key in a file. By itself it signs manifests with one level of keys.

    Args:
        path: the file.
        passphrase: returns the passphrase if the file is encrypted.

    Raises:
        UsageError: the file does not exist, is not a P-256 key in PEM, can be read by others, or has another passphrase.
    """

    authorization = None

    def __init__(self, path: Path, passphrase: Callable[[], bytes] | None = None) -> None:
        self._key = read_private_key(path, passphrase)
        self.public = PublicKey(self._key.public_key())
        self.publics = (self.public,)

    def sign(self, payload: bytes) -> dict[str, bytes]:
        """Return the signature (DER) of a payload as ``{key id: signature}``."""
        return {self.public.keyid: self._key.sign(payload, _ALGORITHM)}


def new_key(path: Path, passphrase: bytes | None = None) -> PublicKey:
    """Create a key pair: the private key at ``path`` (mode 0600), the public key at ``path.pub``; never overwrite a file.

    With a passphrase the private key is encrypted.

    Raises:
        UsageError: one of the files exists already or cannot be written.
    """
    public_path = public_path_of(path)
    for file in (path, public_path):
        if os.path.lexists(file):
            raise UsageError(f"{file} exists already", hint="a key is never overwritten: choose another name")
    key = ec.generate_private_key(ec.SECP256R1())
    public = PublicKey(key.public_key())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(str(path), private, mode=0o600)
        files.replace(str(public_path), public.pem, mode=0o644)
    except OSError as error:
        raise UsageError(f"cannot write the key: {os_reason(error)}") from error
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
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} is not a readable public key: {os_reason(error, str(path))}") from error
    return load_public_key(content, str(path))


def load_public_key(content: bytes, name: str) -> PublicKey:
    """Return the public key in a content in PEM or DER; ``name`` is the key's name in the error.

    Raises:
        UsageError: it is not a P-256 public key.
    """
    load = serialization.load_pem_public_key if content.lstrip().startswith(b"-----") else serialization.load_der_public_key
    try:
        key = load(content)
    except ValueError as error:
        raise UsageError(f"{name} is not a readable public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{name} is not a public key on the curve P-256")
    return PublicKey(key)


def public_key_of(key: Path | None) -> PublicKey | None:
    """Return the public key of a private key's file, from ``key.pub`` if that is encrypted or not readable; None without both."""
    if key is None:
        return None
    try:
        return Signer(key).public
    except UsageError:
        try:
            return read_public_key(public_path_of(key))
        except UsageError:
            return None


def read_private_key(path: Path, passphrase: Callable[[], bytes] | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a private key from its PEM file; ``passphrase`` returns the passphrase of an encrypted one.

    Raises:
        UsageError: the file does not exist, is not a P-256 key in PEM, belongs to another user, or can be read by others.
    """
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            content = file.read()
        is_encrypted = _ENCRYPTED in content and passphrase is not None
        key = serialization.load_pem_private_key(content, password=passphrase() if passphrase and is_encrypted else None)
    except FileNotFoundError:
        raise UsageError(f"the key {path} does not exist", hint=f"create it with: publisher keys new --key {path}") from None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is not a readable private key: {os_reason(error, str(path))}") from error
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
