"""Two levels of keys, made without the publisher: a root key, and the keys documents that it signs."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from publisher.contract.keys_document import KeysDocument, SigningKey
from publisher.contract.manifest import Envelope
from tests.support.ep.execution_point import NOW, REPOSITORY, Key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

DAY = 86400


def signing_key(key: Key, until: int) -> SigningKey:
    return SigningKey(binascii.a2b_base64(b"".join(key.pem.splitlines()[1:-1])), until)


def keys_document(
    *keys: Key,
    root: Key,
    version: int = 1,
    now: int = NOW,
    days: int = 14,
    threshold: int = 1,
    repository: str = REPOSITORY,
    until: Optional[Mapping[Key, int]] = None,
) -> Envelope:
    """Return the keys document that lets ``keys`` sign for some days, and those of ``until`` until a time; ``root`` signs it."""
    times = {**dict.fromkeys(keys, now + days * DAY), **(until or {})}
    listed = {key.keyid: signing_key(key, time) for key, time in times.items()}
    payload = KeysDocument(repository, version=version, generated=now, threshold=threshold, keys=listed).payload()
    return Envelope(payload, [(root.keyid, root.sign(payload))])
