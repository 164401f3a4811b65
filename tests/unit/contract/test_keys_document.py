from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.keys_document import MAX_LIFETIME, KeysDocument, SigningKey
from publisher.contract.manifest import CLOCK_ERROR
from tests.support.ep.execution_point import NOW, REPOSITORY, Key
from tests.support.ep.two_levels import DAY, keys_document, signing_key

ROOT, FIRST, SECOND = Key(), Key(), Key()


def changed(**fields: object) -> bytes:
    return manifest.canonical({**json.loads(keys_document(FIRST, root=ROOT).payload), **fields})


def entry(key: Key = FIRST, until: int = NOW) -> dict[str, Any]:
    payload = keys_document(key, root=ROOT).payload
    return {**json.loads(payload)["keys"][key.keyid], "until": until}


def test_a_document_is_read_as_it_was_written() -> None:
    document = KeysDocument.parse(keys_document(FIRST, SECOND, root=ROOT, version=7, threshold=2).payload, REPOSITORY)
    assert (document.version, document.generated, document.threshold) == (7, NOW, 2)
    assert document.valid_keys(NOW) == {FIRST.keyid: FIRST.pem, SECOND.keyid: SECOND.pem}


def test_the_spelling_of_a_document_is_fixed() -> None:
    key = SigningKey(signing_key(FIRST, 0).der, 2000)
    payload = KeysDocument("images.example.org", version=3, generated=1000, threshold=1, keys={key.keyid: key}).payload()
    public = json.loads(payload)["keys"][FIRST.keyid]["public"]
    assert payload.decode() == (
        f'{{"generated":1000,"keys":{{"{FIRST.keyid}":{{"public":"{public}","until":2000}}}},'
        '"repository":"images.example.org","schema":1,"threshold":1,"type":"container-image-keys","version":3}'
    )


def test_a_document_may_name_nobody() -> None:
    """As when all keys are lost: nothing is published until the next document."""
    assert KeysDocument.parse(keys_document(root=ROOT).payload, REPOSITORY).valid_keys(NOW) == {}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"type": manifest.TYPE}, "not a keys document"),
        ({"schema": 2}, "not a keys document"),
        ({"repository": "other.example.org"}, "other.example.org"),
        ({"threshold": 0}, "threshold of 1"),
        ({"threshold": True}, "not valid"),
        ({"version": 10**30}, "not valid"),
        ({"version": -1}, "not valid"),
        ({"keys": []}, "not valid"),
        ({"keys": {SECOND.keyid: entry()}}, "id of another"),
        ({"keys": {FIRST.keyid: {"until": 1}}}, "not valid"),
        ({"keys": {FIRST.keyid: entry(until=10**30)}}, "not valid"),
        ({"keys": {FIRST.keyid: entry(until=NOW + MAX_LIFETIME + 1)}}, "more than 35 days"),
        ({"keys": {key.keyid: entry(key) for key in [Key() for _ in range(17)]}}, "at most 16"),
    ],
)
def test_a_document_that_is_not_valid_is_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        KeysDocument.parse(changed(**wrong), REPOSITORY)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null"])
def test_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestError):
        KeysDocument.parse(content, REPOSITORY)


@pytest.mark.parametrize(
    "private", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())], ids=["RSA", "P-384"]
)
def test_only_keys_on_p_256_are_accepted(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="P-256"):
        SigningKey(der, NOW)


def test_a_key_is_valid_until_its_time_with_a_wrong_clock() -> None:
    key = signing_key(FIRST, NOW)
    assert key.may_sign(NOW + CLOCK_ERROR)
    assert not key.may_sign(NOW + CLOCK_ERROR + 1)
    assert key.may_sign(NOW - 30 * DAY)
    assert not key.may_sign(NOW - MAX_LIFETIME - CLOCK_ERROR - 1), "the root key's host had a clock far ahead"
