"""Two levels of keys, made without the publisher: a root key, and the keys documents that it signs."""

from __future__ import annotations

import binascii

from publisher.contract.keys_document import KeysDocument, SigningKey
from publisher.contract.manifest import Envelope
from tests.support.ep.execution_point import NOW, REPOSITORY, Key

DAY = 86400


def signing_key(key: Key, until: int) -> SigningKey:
    return SigningKey(binascii.a2b_base64(b"".join(key.pem.splitlines()[1:-1])), until)


def keys_document(
    *keys: Key, root: Key, version: int = 1, now: int = NOW, days: int = 14, threshold: int = 1, repository: str = REPOSITORY
) -> Envelope:
    """Return the keys document that lets ``keys`` sign for some days, signed by ``root``."""
    listed = {key.keyid: signing_key(key, now + days * DAY) for key in keys}
    payload = KeysDocument(repository, version=version, generated=now, threshold=threshold, keys=listed).payload()
    return Envelope(payload, [(root.keyid, root.sign(payload))])
