"""Attacker: a thief of the signing key, who can also write to some or all of the places where execution points look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ExpectedError, ManifestError
from publisher.errors import PublishedManifestError, UsageError
from publisher.resolver.errors import UnknownImageError
from publisher.signing.manifest_signer import JointSigner
from publisher.state import snapshot as snapshots
from publisher.state.authorization import Authorization, open_authorization
from publisher.state.signing import PublicKey, Signer, new_key
from publisher.state.snapshot import Snapshot
from tests.support.ep.execution_point import NOW, ExecutionPoint, Key, lay_down, record, revision, version, with_keys
from tests.support.ep.two_levels import DAY, keys_document
from tests.support.publisher.prepublished import NAME as PLACE
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.contract.manifest import Envelope

pytestmark = pytest.mark.usefixtures("own_reads")

ROOT, STOLEN, NEW = Key(), Key(), Key()
GOOD, EVIL = "htc/rocky:9", "evil/image:1"
OLD_KEYS, NEW_KEYS = keys_document(STOLEN, root=ROOT, version=1), keys_document(NEW, root=ROOT, version=2)


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    """An execution point that has the root's public key; repository and origin have a manifest of the key that gets stolen."""
    made = ExecutionPoint(tmp_path)
    (made.keys / "current.pem").write_bytes(ROOT.pem)
    made.two_levels = lambda _: OLD_KEYS
    made.publish(record(GOOD), key=STOLEN)
    return made


def forge(place: Path, keys: Envelope, key: Key = STOLEN, *cosigners: Key) -> None:
    """Write a manifest with another image and a serial far ahead to a place."""
    lay_down(with_keys(revision([record(EVIL)], key, serial=1_000_000), keys, *cosigners), place)


def places(ep: ExecutionPoint) -> tuple[Path, Path]:
    return ep.repository / ".publisher", ep.origin / "manifest"


@pytest.mark.parametrize("shows", ["repository", "origin"])
def test_a_key_that_any_place_shows_to_be_revoked_signs_nothing(ep: ExecutionPoint, shows: str) -> None:
    right, forged = places(ep) if shows == "repository" else reversed(places(ep))
    forge(forged, OLD_KEYS)
    with pytest.raises(UnknownImageError):
        ep.resolve(GOOD)
    lay_down(with_keys(revision([record(GOOD)], NEW, serial=2), NEW_KEYS), right)
    assert ep.resolve(GOOD).manifest.index.serial == 2


def test_a_revocation_cannot_be_taken_back(ep: ExecutionPoint) -> None:
    for place in places(ep):
        lay_down(with_keys(revision([record(GOOD)], NEW, serial=2), NEW_KEYS), place)
    assert ep.resolve(GOOD).manifest.index.serial == 2
    for place in places(ep):
        forge(place, OLD_KEYS)
    assert ep.resolve(GOOD).manifest.index.serial == 2
    with pytest.raises(ExpectedError, match="no image 'evil/image:1' is published"):
        ep.resolve(EVIL)


def test_a_revocation_is_remembered_without_an_index_that_can_be_used(ep: ExecutionPoint) -> None:
    for place in places(ep):
        lay_down(with_keys(revision([record(GOOD)], STOLEN, serial=2), NEW_KEYS), place)
    with pytest.raises(ManifestError):
        ep.resolve(GOOD)
    for place in places(ep):
        forge(place, OLD_KEYS)
    with pytest.raises(ManifestError, match="no manifest can be used"):
        ep.resolve(EVIL)


def test_a_thief_who_withholds_everything_new_has_days(ep: ExecutionPoint) -> None:
    for place in places(ep):
        forge(place, OLD_KEYS)
    sandbox = version(EVIL).sandbox
    assert sandbox is not None
    (ep.repository / sandbox / "bin").mkdir(parents=True)
    assert ep.resolve(EVIL, NOW + 13 * DAY).path, "until then the key is good"
    with pytest.raises(ManifestError, match="too old to be trusted"):
        ep.resolve(EVIL, NOW + 15 * DAY)
    assert any("were valid until" in line for line in ep.notes.warnings)


def test_a_thief_cannot_let_himself_sign_for_longer(ep: ExecutionPoint) -> None:
    later = NOW + 15 * DAY
    for keys in (
        keys_document(STOLEN, root=STOLEN, version=9, now=later),
        keys_document(STOLEN, root=ROOT, version=9, now=NOW, days=36),
    ):
        for place in places(ep):
            forge(place, keys)
        with pytest.raises(ManifestError):
            ep.resolve(EVIL, later)


def test_one_stolen_key_of_two_is_not_enough(ep: ExecutionPoint) -> None:
    both = keys_document(STOLEN, NEW, root=ROOT, version=2, threshold=2)
    for place in places(ep):
        lay_down(with_keys(revision([record(GOOD)], STOLEN, serial=2), both, NEW), place)
    assert ep.resolve(GOOD).manifest.index.serial == 2
    forge(ep.origin / "manifest", both, STOLEN, STOLEN)
    forge(ep.repository / ".publisher", OLD_KEYS)
    assert ep.resolve(GOOD).manifest.index.serial == 2


def test_an_expired_stolen_key_does_not_keep_an_execution_point_from_the_manifest(ep: ExecutionPoint) -> None:
    repository, origin = places(ep)
    forge(origin, OLD_KEYS)
    later = NOW + 15 * DAY
    listed = keys_document(NEW, root=ROOT, version=2, now=NOW + DAY, days=30, until={STOLEN: NOW + 14 * DAY})
    lay_down(with_keys(revision([record(GOOD)], NEW, serial=2, now=later), listed), repository)
    assert ep.resolve(GOOD, later).manifest.index.serial == 2


def test_the_manifest_does_not_have_to_continue_what_an_expired_stolen_key_signed(ep: ExecutionPoint) -> None:
    """An execution point that remembers the thief's manifest would call the publisher's a fork of it, and refuse that."""
    repository, origin = places(ep)
    ep.resolve(GOOD)
    forge(origin, OLD_KEYS)
    with pytest.raises(UnknownImageError):
        ep.resolve(GOOD)
    later = NOW + 15 * DAY
    listed = keys_document(NEW, root=ROOT, version=2, now=NOW + DAY, days=30, until={STOLEN: NOW + 14 * DAY})
    lay_down(with_keys(revision([record(GOOD)], NEW, serial=2, now=later), listed), repository)
    assert ep.resolve(GOOD, later, forks="refuse").manifest.index.serial == 2
    assert ep.notes.fork == ""


class TwoKeys:
    """A publisher whose keys document asks for two signatures."""

    def __init__(self, where: Path) -> None:
        self.place = Place(where)
        new_key(where / "root")
        new_key(where / "second")
        self.root = Signer(where / "root")
        self.first, self.second = self.place.signer, Signer(where / "second")

    def authorization(self, version: int, *keys: PublicKey) -> Authorization:
        root = _as_key(self.root)
        envelope = keys_document(*map(_as_public_key, keys), root=root, version=version, now=self.place.now, repository=PLACE)
        document = open_authorization(envelope.content(), [self.root.public], PLACE)
        document.document.threshold = len(keys)
        return document

    def publish(self, authorization: Authorization, *keys: Signer) -> None:
        self.place.signer = JointSigner(keys, authorization)  # type: ignore[assignment]  # another kind of signer
        self.place.publish(self.place.publication())


def _as_public_key(public: PublicKey) -> Key:
    key = Key()
    key.keyid, key.pem = public.keyid, public.pem
    return key


def _as_key(signer: Signer) -> Key:
    key = _as_public_key(signer.public)
    key.sign = lambda payload: signer.sign(payload)[signer.public.keyid]  # type: ignore[method-assign]  # of a real file
    return key


def test_the_publisher_does_not_complete_the_signatures_of_a_thief(tmp_path: Path) -> None:
    """A manifest with one stolen signature lies in the repository: the next run would sign it with both keys."""
    host = TwoKeys(tmp_path)
    both = host.authorization(1, host.first.public, host.second.public)
    host.publish(both, host.first, host.second)
    stolen = snapshots.make_revision(Snapshot(PLACE), JointSigner([host.first], both), serial=9, now=host.place.now)
    (host.place.repository.root / ".publisher/index.json").write_bytes(stolen.index)
    with pytest.raises(PublishedManifestError, match="has 1 of the 2 signatures"):
        host.publish(both, host.first, host.second)


def test_an_older_keys_document_on_the_publisher_host_is_not_published(tmp_path: Path) -> None:
    """It would let the stolen key sign again on hosts that have not seen the newer one."""
    host = TwoKeys(tmp_path)
    host.publish(host.authorization(2, host.second.public), host.second)
    with pytest.raises(PublishedManifestError, match="has version 2, this publisher's 1"):
        host.publish(host.authorization(1, host.first.public, host.second.public), host.first, host.second)
    with pytest.raises(UsageError, match="does not let the key"):
        host.authorization(3, host.second.public).check([host.first.public], host.place.now)
