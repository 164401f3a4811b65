"""What a signature says: the payloads of cosign's signatures, DSSE envelopes and in-toto statements. Pure.

A signature counts only if what was signed names the digest of the image, and says that the image is signed: an attestation by the
same signer may say that the image is vulnerable.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, NamedTuple

from publisher import oci
from publisher.errors import SignatureError, UnsupportedError
from publisher.images import signer
from publisher.provenance.attachments import SIGN_PREDICATE

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 4 << 20
"""Bytes that a payload or a bundle may have."""
IN_TOTO = "application/vnd.in-toto+json"
_SIMPLE_TYPE = "cosign container image signature"


class DsseEnvelope(NamedTuple):
    """A DSSE envelope: the type and bytes of its payload, and its signatures."""

    payload_type: str
    payload: bytes
    signatures: Sequence[bytes]

    def signed_bytes(self) -> bytes:
        """Return the bytes that its signatures are of (DSSE's pre-authentication encoding)."""
        type_ = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(type_), type_, len(self.payload), self.payload)


def envelope_of(bundle: bytes) -> DsseEnvelope:
    """Return the DSSE envelope in a Sigstore bundle; nothing is verified.

    Raises:
        SignatureError: the bundle is not valid, or has no envelope.
    """
    envelope = _object(bundle, "bundle").get("dsseEnvelope")
    if not oci.is_object(envelope):
        raise SignatureError("the bundle has no DSSE envelope")
    type_, payload, listed = envelope.get("payloadType"), envelope.get("payload"), envelope.get("signatures")
    if not isinstance(type_, str) or not isinstance(listed, list):
        raise SignatureError("the bundle's DSSE envelope is not valid")
    signatures = [decode(one.get("sig")) for one in listed if oci.is_object(one)]
    return DsseEnvelope(type_, decode(payload), signatures)


def check_statement(payload_type: str, payload: bytes, digest: str) -> None:
    """Check that a verified DSSE payload is cosign's statement that the image with a digest is signed.

    Raises:
        SignatureError: it says something else.
    """
    if payload_type != IN_TOTO:
        raise SignatureError("what was signed is not an in-toto statement")
    statement = _object(payload, "statement")
    if statement.get("predicateType") != SIGN_PREDICATE:
        raise SignatureError("what was signed is an attestation about the image, not the image")
    subjects = statement.get("subject")
    digests = [one.get("digest") for one in subjects if oci.is_object(one)] if isinstance(subjects, list) else []
    if not any(oci.is_object(one) and one.get("sha256") == digest.removeprefix("sha256:") for one in digests):
        raise SignatureError("the signature is of another image")


def check_simple(payload: bytes, digest: str) -> None:
    """Check that the verified payload of a signature of cosign 2 ("simple signing") names the image with a digest.

    Raises:
        SignatureError: it says something else.
    """
    critical = _object(payload, "payload").get("critical")
    image = critical.get("image") if oci.is_object(critical) and critical.get("type") == _SIMPLE_TYPE else None
    if not oci.is_object(image):
        raise SignatureError("what was signed is not an image")
    if image.get("docker-manifest-digest") != digest:
        raise SignatureError("the signature is of another image")


def is_signature_by(public_key: bytes, payload: bytes, signature: bytes) -> bool:
    """Return whether a signature is one of a payload by a public key (DER); the hash is SHA-256, as cosign's."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - few lists have keys
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    key = signer.load_key(public_key)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, payload)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, payload, ec.ECDSA(SHA256()))
        else:
            key.verify(signature, payload, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def decode(value: object) -> bytes:
    """Return the bytes of a base64 text.

    Raises:
        SignatureError: the value is no such text.
    """
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else _refuse(value)
    except binascii.Error:
        return _refuse(value)


def _refuse(value: object) -> bytes:
    raise SignatureError(f"a value of the signature is not base64: {str(value)[:20]!r}")


def _object(body: bytes, what: str) -> dict[str, object]:
    try:
        return oci.parse_object(body, MAX_BYTES, what)
    except UnsupportedError as error:
        raise SignatureError(error.reason) from None
