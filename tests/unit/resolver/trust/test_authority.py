"""Who may sign, with two levels of keys, as the loader of the manifest sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import pytest

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import DEAD, FRESH
from publisher.resolver.system.notes import Warnings
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.trust import manifest_loader
from publisher.resolver.trust.manifest_cache import ManifestCache
from publisher.resolver.trust.signature_cache import SignatureCache
from tests.support.ep.execution_point import NOW, REPOSITORY, Key, lay_down, revision, with_keys
from tests.support.ep.two_levels import DAY, keys_document

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.contract.manifest import Envelope
    from publisher.resolver.trust.manifest_loader import TrustedManifest

pytestmark = pytest.mark.usefixtures("own_reads")

ROOT, A, B, C = Key(), Key(), Key(), Key()


class Host:
    """A host that was given the root's public key, with two sources and a cache."""

    def __init__(self, root: Path) -> None:
        self.one, self.two = root / "one", root / "two"
        self.cache = root / "cache"
        self.trusted = {ROOT.keyid: ROOT.pem}
        self.notes = Warnings()

    def put(self, place: Path, key: Key, serial: int, keys: Optional[Envelope], *cosigners: Key) -> None:
        lay_down(with_keys(revision([], key, serial=serial), keys, *cosigners), place)

    def load(self, now: float = NOW, *, cached: bool = True) -> TrustedManifest:
        self.notes = Warnings()
        return manifest_loader.load(
            [open_source(str(self.one)), open_source(str(self.two))],
            ManifestCache(str(self.cache)) if cached else None,
            keys=self.trusted,
            repository=REPOSITORY,
            now=now,
            notes=self.notes,
            verify=SignatureCache(str(self.cache / "verified") if cached else None).verify,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_key_of_the_roots_document_may_sign(host: Host) -> None:
    host.put(host.one, A, 1, keys_document(A, root=ROOT))
    assert host.load().age == FRESH


def test_another_key_may_not_and_neither_may_one_whose_document_the_root_did_not_sign(host: Host) -> None:
    for keys in (keys_document(B, root=ROOT), keys_document(A, root=B), keys_document(A, root=A), None):
        host.put(host.one, A, 1, keys)
        with pytest.raises(ManifestError, match="no such key is trusted"):
            host.load(cached=False)


def test_a_document_of_another_repository_counts_for_nothing(host: Host) -> None:
    host.put(host.one, A, 1, keys_document(A, root=ROOT, repository="other.example.org"))
    with pytest.raises(ManifestError, match="no such key is trusted"):
        host.load()


def test_the_newest_document_of_any_source_counts_for_all(host: Host) -> None:
    """A thief's serial is far ahead in one place, and the other place knows that his key was revoked."""
    host.put(host.one, A, 999, keys_document(A, root=ROOT, version=1))
    assert host.load(cached=False).index.serial == 999
    host.put(host.two, B, 8, keys_document(B, root=ROOT, version=2))
    assert host.load(cached=False).index.serial == 8
    host.put(host.two, B, 9, keys_document(A, B, root=ROOT, version=1))
    assert host.load(cached=False).index.serial == 999, "the same version takes nothing away"


def test_a_revocation_that_was_seen_once_is_not_forgotten(host: Host) -> None:
    host.put(host.one, B, 8, keys_document(B, root=ROOT, version=2))
    host.load()
    for place in (host.one, host.two):
        host.put(place, A, 999, keys_document(A, root=ROOT, version=1))
    assert host.load().source == manifest_loader.CACHED_COPY
    (host.cache / "index.json").unlink()
    with pytest.raises(ManifestError, match="no such key is trusted"):
        host.load()


def test_an_index_that_brings_an_older_document_does_not_replace_the_newer_one(host: Host) -> None:
    host.put(host.one, B, 8, keys_document(B, root=ROOT, version=2))
    host.load()
    host.put(host.one, B, 9, keys_document(A, B, root=ROOT, version=1))
    assert host.load().index.serial == 9, "its key may still sign"
    host.put(host.two, A, 999, keys_document(A, root=ROOT, version=1))
    assert host.load().index.serial == 9


def test_a_revocation_reaches_a_host_even_where_no_index_can_be_used(host: Host) -> None:
    host.put(host.one, A, 1, keys_document(A, root=ROOT, version=1))
    host.load()
    host.put(host.one, A, 2, keys_document(B, root=ROOT, version=2))
    for _ in range(2):
        with pytest.raises(ManifestError, match="no such key is trusted"):
            host.load()
        host.put(host.one, A, 3, keys_document(A, root=ROOT, version=1))


def test_a_revocation_also_ends_what_was_verified_before(host: Host) -> None:
    """The first look at a host decides by the cached document, before any source is read."""
    host.put(host.one, A, 5, keys_document(A, root=ROOT, version=1))
    host.put(host.two, B, 4, keys_document(A, B, root=ROOT, version=1))
    assert host.load().index.serial == 5
    host.put(host.two, B, 4, keys_document(B, root=ROOT, version=2))
    assert host.load().index.serial == 4


def test_too_few_signatures_are_refused(host: Host) -> None:
    keys = keys_document(A, B, C, root=ROOT, threshold=2)
    host.put(host.one, A, 1, keys)
    with pytest.raises(ManifestError, match="1 valid signatures of different keys; it needs 2"):
        host.load()
    host.put(host.one, A, 1, keys, A)
    with pytest.raises(ManifestError, match="1 valid signatures of different keys; it needs 2"):
        host.load()
    host.put(host.one, A, 1, keys, C)
    assert host.load().index.serial == 1


def test_a_lower_threshold_of_an_older_document_is_not_believed(host: Host) -> None:
    host.put(host.one, A, 2, keys_document(A, B, root=ROOT, threshold=2, version=2), B)
    host.load()
    host.put(host.one, A, 3, keys_document(A, B, root=ROOT, threshold=1, version=1))
    assert host.load().index.serial == 2


def test_a_key_is_useless_after_its_time(host: Host) -> None:
    """A thief who keeps newer documents from a host has until then."""
    host.put(host.one, A, 999, keys_document(A, root=ROOT, days=7))
    assert host.load(NOW + 7 * DAY).age == FRESH
    late = host.load(NOW + 8 * DAY)
    assert late.age == DEAD
    assert any("were valid until 2025-06-22" in line for line in host.notes.warnings)
    host.put(host.two, B, 5, keys_document(B, root=ROOT, version=3, now=NOW + 8 * DAY))
    fresh = host.load(NOW + 8 * DAY)
    assert (fresh.age, fresh.index.serial) == (FRESH, 5)


def test_a_valid_index_goes_before_one_of_an_expired_key_whatever_its_serial(host: Host) -> None:
    """An expired stolen key must not keep a host from the newest valid manifest."""
    listed = keys_document(A, root=ROOT, days=7)
    both = keys_document(B, root=ROOT, version=2, days=21, until={A: NOW + 7 * DAY})
    host.put(host.one, A, 999, listed)
    host.put(host.two, B, 5, both)
    assert host.load(NOW + 8 * DAY).index.serial == 5


def test_a_document_from_the_future_is_refused(host: Host) -> None:
    host.put(host.one, A, 1, keys_document(A, root=ROOT, now=NOW + 60 * DAY))
    with pytest.raises(ManifestError, match="comes from the future"):
        host.load()


def test_a_host_that_trusts_the_signing_key_itself_goes_on_working(host: Host) -> None:
    """As in a deployment with one level of keys, before and while it migrates."""
    host.trusted = {A.keyid: A.pem}
    host.put(host.one, A, 1, None)
    assert host.load().index.serial == 1
    host.put(host.one, A, 2, keys_document(A, root=ROOT))
    assert host.load().index.serial == 2
    assert not any("keys document" in line for line in host.notes.all)
    host.trusted = {A.keyid: A.pem, ROOT.keyid: ROOT.pem}
    assert host.load().index.serial == 2
    host.trusted = {ROOT.keyid: ROOT.pem}
    assert host.load().index.serial == 2


def test_a_warm_answer_runs_no_openssl(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = keys_document(A, B, root=ROOT, threshold=2)
    host.put(host.one, A, 2, keys, B)
    host.put(host.two, A, 1, keys, B)
    host.load()
    monkeypatch.setenv("PATH", "/absent")
    assert host.load().index.serial == 2


def test_damaged_envelopes_of_keys_are_refused(host: Host) -> None:
    host.put(host.one, A, 1, keys_document(A, root=ROOT))
    index = host.one / "index.json"
    content = index.read_bytes()
    for damage in (b'{"keys":[],', b'{"keys":{"payload":1},', b'{"keys":3,'):
        index.write_bytes(damage + content[content.rindex(b'"payload"') :])
        with pytest.raises(ManifestError, match="not a signed envelope"):
            host.load()


def test_a_cached_document_that_was_tampered_with_is_not_used(host: Host) -> None:
    host.put(host.one, A, 1, keys_document(A, root=ROOT))
    host.load()
    kept = host.cache / "keys.json"
    kept.write_bytes(kept.read_bytes().replace(b'\\"version\\":1', b'\\"version\\":9'))
    assert host.load().index.serial == 1
    assert b'\\"version\\":1' in kept.read_bytes()


def test_a_cache_that_cannot_be_written_is_reported(host: Host) -> None:
    host.put(host.one, A, 1, keys_document(A, root=ROOT))
    host.cache.write_bytes(b"")
    assert host.load().index.serial == 1
    assert any("cannot cache the manifest's keys document" in line for line in host.notes.all)
