"""The signer whose signature an entry of the list requires: an identity that an issuer vouches for, or a public key."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    SignerKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_MIN_RSA_BITS = 2048


@dataclass(frozen=True)
class RequiredSigner:
    """A signer: ``identity`` and ``issuer``, or ``public_key``.

    Attributes:
        identity: the subject of the signing certificate, such as the URL of a workflow or an e-mail address; else empty.
        issuer: URL of the OpenID Connect issuer that vouches for the identity; else empty.
        public_key: a public key (SubjectPublicKeyInfo) in DER; else empty.
    """

    identity: str = ""
    issuer: str = ""
    public_key: bytes = b""

    def __str__(self) -> str:
        """Return the signer for messages."""
        if self.public_key:
            return f"the key {self.to_json()['key'][:12]}"
        return f"{self.identity} (issuer {self.issuer})"

    def to_json(self) -> dict[str, str]:
        """Return the signer as the manifest has it: ``identity`` and ``issuer``, or the sha256 of the public key as ``key``."""
        if self.public_key:
            return {"key": hashlib.sha256(self.public_key).hexdigest()}
        return {"identity": self.identity, "issuer": self.issuer}


def parse_public_key(text: str) -> bytes:
    """Return the DER of a public key in PEM that images are signed with: ECDSA on P-256, Ed25519, or RSA of 2048 bits or more.

    Raises:
        ValueError: the text is no such key. The message is for the author of the list.
    """
    stripped = text.rstrip()
    if not stripped.startswith(_BEGIN) or not stripped.endswith(_END):
        raise ValueError(f"this is not a public key in PEM; copy the whole file cosign.pub, from {_BEGIN} on")
    try:
        der = base64.b64decode("".join(stripped[len(_BEGIN) : -len(_END)].split()), validate=True)
        load_key(der)
    except ValueError as error:
        raise ValueError(f"images cannot be signed with this key: {error}; copy the whole file cosign.pub") from None
    return der


def load_key(der: bytes) -> SignerKey:
    """Return the key of a SubjectPublicKeyInfo in DER. Raises ValueError if it is of no kind that images are signed with."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - few lists have keys
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    try:
        key = load_der_public_key(der)
    except UnsupportedAlgorithm as error:
        raise ValueError("its algorithm is not supported") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise ValueError(f"it must be ECDSA on P-256, Ed25519, or RSA of {_MIN_RSA_BITS} bits or more")
