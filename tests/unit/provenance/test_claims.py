"""What a signature must say to count, whoever made it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from publisher.errors import SignatureError
from publisher.provenance import claims
from tests.support.registries.cosign import IN_TOTO, PlainKey, pae, simple_payload, statement

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_a_statement_counts_only_for_its_own_image_and_as_a_signature() -> None:
    claims.check_statement(IN_TOTO, statement(DIGEST), DIGEST)
    with pytest.raises(SignatureError, match="the signature is of another image"):
        claims.check_statement(IN_TOTO, statement(OTHER), DIGEST)
    with pytest.raises(SignatureError, match="an attestation about the image, not the image"):
        claims.check_statement(IN_TOTO, statement(DIGEST, "https://cosign.sigstore.dev/attestation/vuln/v1"), DIGEST)
    with pytest.raises(SignatureError, match="not an in-toto statement"):
        claims.check_statement("text/plain", statement(DIGEST), DIGEST)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{}", b'{"predicateType": "https://sigstore.dev/cosign/sign/v1", "subject": 7}', b"[" * 5000, b"\xff"],
)
def test_a_statement_that_is_none_is_no_signature(payload: bytes) -> None:
    with pytest.raises(SignatureError):
        claims.check_statement(IN_TOTO, payload, DIGEST)


def test_a_payload_of_cosign_2_counts_only_for_its_own_image() -> None:
    claims.check_simple(simple_payload(DIGEST), DIGEST)
    with pytest.raises(SignatureError, match="the signature is of another image"):
        claims.check_simple(simple_payload(OTHER), DIGEST)
    for payload in (b"{}", b'{"critical": {"type": "atomic container signature", "image": {}}}', b"null"):
        with pytest.raises(SignatureError):
            claims.check_simple(payload, DIGEST)


def test_the_signed_bytes_of_an_envelope_are_those_of_dsse() -> None:
    """The example of the DSSE specification."""
    assert claims.DsseEnvelope("http://example.com/HelloWorld", b"hello world", ()).signed_bytes() == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_envelope_is_read_from_a_bundle() -> None:
    key = PlainKey()
    envelope = claims.envelope_of(key.bundle(DIGEST))
    assert (envelope.payload_type, envelope.payload) == (IN_TOTO, statement(DIGEST))
    der = base64.b64decode("".join(key.pem.splitlines()[1:-1]))
    assert claims.is_signature_by(der, pae(statement(DIGEST)), envelope.signatures[0])
    assert not claims.is_signature_by(der, pae(statement(OTHER)), envelope.signatures[0])


@pytest.mark.parametrize(
    "envelope",
    [None, [], {}, {"payloadType": 1, "payload": "", "signatures": []}, {"payloadType": "a", "payload": "!", "signatures": []}],
)
def test_a_bundle_without_an_envelope_is_refused(envelope: object) -> None:
    with pytest.raises(SignatureError):
        claims.envelope_of(json.dumps({"dsseEnvelope": envelope}).encode())


def test_keys_of_each_kind_verify() -> None:
    one, two = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = [
        (one.public_key().public_bytes(*form), one.sign(b"text")),
        (two.public_key().public_bytes(*form), two.sign(b"text", padding.PKCS1v15(), SHA256())),
    ]
    for der, signature in signed:
        assert claims.is_signature_by(der, b"text", signature)
        assert not claims.is_signature_by(der, b"other", signature)
