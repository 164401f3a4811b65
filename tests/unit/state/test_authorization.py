from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.errors import PublishedManifestError, UsageError
from publisher.state import snapshot as snapshots
from publisher.state.authorization import Authorization, check_published, open_authorization
from publisher.state.signing import load_public_key
from publisher.state.snapshot import Snapshot
from tests.support.ep.execution_point import NOW, REPOSITORY, Key
from tests.support.ep.two_levels import DAY, keys_document

if TYPE_CHECKING:
    from publisher.state.signing import PublicKey

ROOT, FIRST, SECOND = Key(), Key(), Key()


def public(key: Key) -> PublicKey:
    return load_public_key(key.pem, "key")


class Signing:
    """What signs with keys of the tests."""

    def __init__(self, *keys: Key, authorization: Authorization | None = None) -> None:
        self.publics = tuple(map(public, keys))
        self.authorization = authorization
        self._keys = keys

    def sign(self, payload: bytes) -> dict[str, bytes]:
        return {key.keyid: key.sign(payload) for key in self._keys}


def authorized(*keys: Key, version: int = 1, threshold: int = 1, root: Key = ROOT) -> Authorization:
    content = keys_document(*keys, root=root, version=version, threshold=threshold).content()
    return open_authorization(content, [public(root)], REPOSITORY)


def index(*keys: Key, authorization: Authorization | None = None) -> bytes:
    signer = Signing(*keys, authorization=authorization)
    return snapshots.make_revision(Snapshot(REPOSITORY), signer, serial=1, now=NOW).index


def test_only_a_document_of_the_root_and_for_the_repository_is_used() -> None:
    content = keys_document(FIRST, root=ROOT).content()
    assert [key.keyid for key in open_authorization(content, [public(ROOT)], REPOSITORY).publics] == [FIRST.keyid]
    for roots in ([], [public(FIRST)]):
        with pytest.raises(UsageError, match="no root key has signed"):
            open_authorization(content, roots, REPOSITORY)
    with pytest.raises(UsageError, match="not of 'other'"):
        open_authorization(content, [public(ROOT)], "other")
    with pytest.raises(UsageError, match="keys document cannot be used"):
        open_authorization(index(FIRST), [public(ROOT)], REPOSITORY)


def test_a_publisher_that_may_not_sign_stops_before_it_does() -> None:
    authorization = authorized(FIRST, SECOND, threshold=2)
    authorization.check([public(FIRST), public(SECOND)], NOW)
    with pytest.raises(UsageError, match="asks for signatures of 2 keys, and 1 are set"):
        authorization.check([public(FIRST)], NOW)
    with pytest.raises(UsageError, match="does not let the key"):
        authorization.check([public(Key())], NOW)
    with pytest.raises(UsageError, match="may sign only until 2025-06-29"):
        authorization.check([public(FIRST), public(SECOND)], NOW + 15 * DAY)


def test_the_publisher_warns_from_half_of_the_time_on() -> None:
    authorization = authorized(FIRST)
    assert authorization.expiry_warning([public(FIRST)], NOW + 6 * DAY) is None
    warning = authorization.expiry_warning([public(FIRST)], NOW + 8 * DAY)
    assert warning is not None
    assert "until 2025-06-29 only" in warning


def test_an_index_brings_the_keys_document_and_is_signed_again_for_a_new_one() -> None:
    old, new = authorized(FIRST), authorized(FIRST, SECOND, version=2)
    content = index(FIRST, authorization=old)
    keys = manifest.Envelope.parse(content).keys
    assert keys is not None
    assert keys.payload == old.envelope.payload
    for signer, same in (
        (Signing(FIRST, authorization=old), True),
        (Signing(FIRST, authorization=new), False),
        (Signing(FIRST, SECOND, authorization=old), False),
        (Signing(FIRST), False),
    ):
        assert snapshots.is_signed_by(content, signer) is same


def test_a_published_document_that_is_newer_stops_the_publisher() -> None:
    published = index(FIRST, authorization=authorized(FIRST, version=3))
    check_published(published, authorized(FIRST, version=3), ())
    check_published(None, None, ())
    with pytest.raises(PublishedManifestError, match="has version 3, this publisher's 2"):
        check_published(published, authorized(FIRST, version=2), ())
    with pytest.raises(PublishedManifestError, match="this publisher has none"):
        check_published(published, None, ())
    check_published(index(FIRST, authorization=authorized(FIRST, version=9, root=Key())), authorized(FIRST), ())


def test_a_published_manifest_needs_as_many_signatures_unless_a_key_is_named_for_it() -> None:
    both = authorized(FIRST, SECOND, threshold=2)
    check_published(index(FIRST, SECOND, authorization=both), both, ())
    with pytest.raises(PublishedManifestError, match="has 1 of the 2 signatures"):
        check_published(index(FIRST, authorization=both), both, ())
    check_published(index(FIRST), both, [public(FIRST)])
    with pytest.raises(PublishedManifestError, match="cannot be used"):
        check_published(b"{}", both, ())
