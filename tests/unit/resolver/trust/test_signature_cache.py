from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.errors import ExpectedError, ManifestError
from publisher.resolver.trust import signatures
from publisher.resolver.trust.signature_cache import SignatureCache
from tests.support.ep.execution_point import NOW, Key, revision

if TYPE_CHECKING:
    from pathlib import Path

KEY, OTHER = Key(), Key()
KEYS = {KEY.keyid: KEY.pem}
BOTH = {**KEYS, OTHER.keyid: OTHER.pem}


def index(serial: int = 1, key: Key = KEY) -> bytes:
    return revision([], key, serial=serial, now=NOW)[manifest.INDEX_NAME]


@pytest.fixture
def memory(tmp_path: Path) -> SignatureCache:
    return SignatureCache(str(tmp_path / "manifest" / "verified"))


def without_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/absent")


def test_a_verified_signature_is_not_verified_again(memory: SignatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    content = index()
    payload = memory.verify(content, KEYS)
    without_openssl(monkeypatch)
    assert memory.verify(content, KEYS) == payload == manifest.unseal(content)[0]


def test_other_bytes_and_other_keys_are_verified_again(memory: SignatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    content = index()
    memory.verify(content, BOTH)
    without_openssl(monkeypatch)
    for other, keys in ((index(2), BOTH), (content, KEYS), (content + b" ", BOTH)):
        with pytest.raises(ExpectedError, match="cannot run openssl"):
            memory.verify(other, keys)


def test_content_that_ends_like_a_key_is_not_mistaken_for_that_key(
    memory: SignatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content and ids in one string, with only separators between them, would be the same for both calls."""
    verified: list[bytes] = []
    monkeypatch.setattr(signatures, "verify", lambda content, _keys: verified.append(content))
    first, second = sorted((KEY, OTHER), key=lambda key: key.keyid)
    content = index()
    longer = content + b"\0" + first.keyid.encode()
    memory.verify(content, BOTH)
    with contextlib.suppress(ManifestError):  # it is no envelope
        memory.verify(longer, {second.keyid: second.pem})
    assert verified == [content, longer]


def test_a_revoked_key_is_refused_at_once(memory: SignatureCache) -> None:
    content = index()
    memory.verify(content, BOTH)
    with pytest.raises(ManifestError, match="no such key is trusted"):
        memory.verify(content, {OTHER.keyid: OTHER.pem})


def test_an_invalid_signature_is_not_cached(memory: SignatureCache, tmp_path: Path) -> None:
    content = index().replace(b'\\"serial\\":1', b'\\"serial\\":9')
    for _ in range(2):
        with pytest.raises(ManifestError, match="signature of the manifest's index is not valid"):
            memory.verify(content, KEYS)
    assert not list(tmp_path.iterdir())


def test_a_few_indexes_are_cached(memory: SignatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [index(serial) for serial in range(1, 7)]
    for content in contents:
        memory.verify(content, KEYS)
    without_openssl(monkeypatch)
    for content in contents[2:]:
        assert memory.verify(content, KEYS)
    with pytest.raises(ExpectedError, match="cannot run openssl"):
        memory.verify(contents[0], KEYS)


@pytest.mark.parametrize("damage", [b"", b"\0" * 300, b"short\n" * 40])
def test_a_damaged_cache_is_ignored(memory: SignatureCache, tmp_path: Path, damage: bytes) -> None:
    memory.verify(index(), KEYS)
    (tmp_path / "manifest" / "verified").write_bytes(damage)
    assert memory.verify(index(), KEYS)


def test_without_a_file_each_signature_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    content = index()
    for memory in (SignatureCache(None), SignatureCache(str(tmp_path / "file" / "verified"))):
        assert memory.verify(content, KEYS)
    without_openssl(monkeypatch)
    with pytest.raises(ExpectedError, match="cannot run openssl"):
        SignatureCache(None).verify(content, KEYS)
