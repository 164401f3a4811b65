from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.errors import ExpectedError, ManifestError
from publisher.contract.manifest import Envelope
from publisher.resolver.trust import signatures
from publisher.resolver.trust.signature_cache import SignatureCache
from tests.support.ep.execution_point import NOW, Key, revision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY, OTHER = Key(), Key()
KEYS = {KEY.keyid: KEY.pem}
BOTH = {**KEYS, OTHER.keyid: OTHER.pem}


def index(serial: int = 1, key: Key = KEY) -> bytes:
    return revision([], key, serial=serial, now=NOW)[manifest.INDEX_NAME]


def verify(memory: SignatureCache, content: bytes, keys: Mapping[str, bytes]) -> bytes:
    return memory.verify(manifest.Envelope.parse(content), keys)


@pytest.fixture
def memory(tmp_path: Path) -> SignatureCache:
    return SignatureCache(str(tmp_path / "manifest" / "verified"))


def without_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/absent")


def test_a_verified_signature_is_not_verified_again(memory: SignatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    content = index()
    payload = verify(memory, content, KEYS)
    without_openssl(monkeypatch)
    assert verify(memory, content, KEYS) == payload == manifest.unseal(content)[0]


def test_other_bytes_and_other_keys_are_verified_again(memory: SignatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    content = index()
    verify(memory, content, BOTH)
    without_openssl(monkeypatch)
    for other, keys in ((index(2), BOTH), (content, KEYS), (index(), BOTH)):
        with pytest.raises(ExpectedError, match="cannot run openssl"):
            verify(memory, other, keys)


def test_a_signature_that_looks_like_a_trusted_key_is_not_mistaken_for_it(
    memory: SignatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts in one list, even with separators, would be the same for both calls."""
    verified: list[Envelope] = []
    monkeypatch.setattr(signatures, "verify", lambda envelope, *_args, **_options: verified.append(envelope))
    first, second = sorted(BOTH)
    content = Envelope.parse(index())
    longer = Envelope(content.payload, [*content.signatures, (first, second.encode())])
    memory.verify(content, BOTH)
    memory.verify(longer, {})
    memory.verify(content, BOTH, 2)
    assert verified == [content, longer, content]


def test_a_revoked_key_is_refused_at_once(memory: SignatureCache) -> None:
    content = index()
    verify(memory, content, BOTH)
    with pytest.raises(ManifestError, match="no such key is trusted"):
        verify(memory, content, {OTHER.keyid: OTHER.pem})


def test_an_invalid_signature_is_not_cached(memory: SignatureCache, tmp_path: Path) -> None:
    content = index().replace(b'\\"serial\\":1', b'\\"serial\\":9')
    for _ in range(2):
        with pytest.raises(ManifestError, match="signature of the manifest's index is not valid"):
            verify(memory, content, KEYS)
    assert not list(tmp_path.iterdir())


def test_a_few_indexes_are_cached(memory: SignatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [index(serial) for serial in range(1, 9)]
    for content in contents:
        verify(memory, content, KEYS)
    without_openssl(monkeypatch)
    for content in contents[2:]:
        assert verify(memory, content, KEYS)
    with pytest.raises(ExpectedError, match="cannot run openssl"):
        verify(memory, contents[0], KEYS)


@pytest.mark.parametrize("damage", [b"", b"\0" * 300, b"short\n" * 40])
def test_a_damaged_cache_is_ignored(memory: SignatureCache, tmp_path: Path, damage: bytes) -> None:
    verify(memory, index(), KEYS)
    (tmp_path / "manifest" / "verified").write_bytes(damage)
    assert verify(memory, index(), KEYS)


def test_without_a_file_each_signature_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    content = index()
    for memory in (SignatureCache(None), SignatureCache(str(tmp_path / "file" / "verified"))):
        assert verify(memory, content, KEYS)
    without_openssl(monkeypatch)
    with pytest.raises(ExpectedError, match="cannot run openssl"):
        verify(SignatureCache(None), content, KEYS)
