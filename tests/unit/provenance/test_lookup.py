"""What is attached to an image, and which of it counts as its signature, with a registry in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from publisher.errors import NotFoundError, SignatureError, UnavailableError
from publisher.images.signer import RequiredSigner, parse_public_key
from publisher.provenance.attachments import ATTESTATION, OTHER, SBOM, SIGNATURE, Attachment
from publisher.provenance.lookup import Provenance, look_up
from tests.support.publisher.built_values import AMD64, ARM64, entry
from tests.support.registries.cosign import BUNDLE, SIGN_PREDICATE, PlainKey, simple_payload, statement, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from publisher.contract.reference import Reference
    from publisher.oci import Descriptor, Platform

INDEX, IMAGE, ARM = (f"sha256:{letter * 64}" for letter in "abc")
SIMPLE, SIMPLE_NOTE = "application/vnd.dev.cosign.simplesigning.v1+json", "dev.cosignproject.cosign/signature"
PREDICATE_NOTE = "dev.sigstore.bundle.predicateType"
WHO = RequiredSigner(identity="https://example.org/release.yml", issuer="https://login.example.org")
KEY, STRANGER = PlainKey(), PlainKey()
BY_KEY = RequiredSigner(public_key=parse_public_key(KEY.pem))


class Registry:
    """The part of a registry's client that is asked, with content in memory."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.has_referrers = True
        self.failing: set[str] = set()

    def store(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.content[digest] = content
        return digest

    def manifest_of(self, content: bytes, media_type: str, **notes: str) -> str:
        """Store a manifest with one layer, and return its digest."""
        layer = {"mediaType": media_type, "digest": self.store(content), "size": len(content), "annotations": notes}
        return self.store(json.dumps({"schemaVersion": 2, "layers": [layer]}).encode())

    def attach(self, to: str, content: bytes, media_type: str = BUNDLE, **notes: str) -> str:
        digest = self.manifest_of(content, media_type)
        self.lists.setdefault(to, []).append({"digest": digest, "artifactType": media_type, "annotations": notes})
        return digest

    def tag(self, to: str, suffix: str, content: bytes, media_type: str, **notes: str) -> str:
        digest = self.tags[f"{to.replace(':', '-')}{suffix}"] = self.manifest_of(content, media_type, **notes)
        return digest

    async def referrers(self, _: Reference, digest: str) -> list[bytes] | None:
        return [self._page(digest), b"no index"] if self.has_referrers else None

    async def head(self, reference: Reference) -> SimpleNamespace:
        tag = str(reference.tag)
        if "down" in self.failing:
            raise UnavailableError("the registry does not answer")
        if not self.has_referrers and any(tag == digest.replace(":", "-") for digest in self.lists):
            return SimpleNamespace(digest=self.store(self._page(tag.replace("-", ":"))))
        if tag not in self.tags:
            raise NotFoundError(f"there is no tag {tag}")
        return SimpleNamespace(digest=self.tags[tag])

    async def manifest(self, _: Reference, digest: str) -> tuple[str, bytes]:
        return "", self.content[digest]

    async def blob(self, _: Reference, layer: Descriptor, collect: Callable[[bytes], Awaitable[None]]) -> None:
        if layer.digest in self.failing:
            raise UnavailableError("the registry does not answer")
        await collect(self.content[layer.digest])

    def _page(self, digest: str) -> bytes:
        broken: list[object] = ["nothing", {"digest": "md5:1"}]
        return json.dumps({"manifests": broken + self.lists.get(digest, [])}).encode()


class Verifier:
    """Stands for sigstore's library: it returns the payload of every bundle of one identity."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def payload(self, _: bytes, identity: str, issuer: str) -> tuple[str, bytes]:
        assert (identity, issuer) == (WHO.identity, WHO.issuer)
        return "application/vnd.in-toto+json", self._payload


def found(
    registry: Registry, signer: RequiredSigner | None = None, payload: bytes = b"", *, has_index: bool = False
) -> dict[Platform, Provenance]:
    """Look up an image for AMD64; with ``has_index``, one for ARM64 as well, both in an index."""
    platforms = {AMD64: IMAGE, **({ARM64: ARM} if has_index else {})}
    top = INDEX if has_index else IMAGE
    wanted = entry("lab/app:1", signer=signer)
    return asyncio.run(look_up(cast("Any", registry), cast("Any", Verifier(payload)), wanted, top, platforms))


@pytest.mark.parametrize("has_referrers", [True, False])
def test_attachments_are_listed_by_kind_signatures_first(*, has_referrers: bool) -> None:
    registry = Registry()
    registry.has_referrers = has_referrers
    other = registry.attach(IMAGE, b"1", "text/plain")
    sbom = registry.attach(IMAGE, b"2", "application/spdx+json")
    attestation = registry.attach(IMAGE, b"3", BUNDLE, **{PREDICATE_NOTE: "https://slsa.dev/provenance/v1"})
    signature = registry.attach(IMAGE, b"4", BUNDLE, **{PREDICATE_NOTE: SIGN_PREDICATE})
    tagged = registry.tag(IMAGE, ".sbom", b"5", "text/plain")
    attached = found(registry)[AMD64].attached
    kinds = {one.digest: one.kind for one in attached}
    assert kinds == {signature: SIGNATURE, attestation: ATTESTATION, sbom: SBOM, tagged: SBOM, other: OTHER}
    assert attached[0] == Attachment(signature, SIGNATURE, BUNDLE)
    assert found(registry)[AMD64].signed is None


def test_without_a_required_signature_a_silent_registry_is_no_failure() -> None:
    registry = Registry()
    registry.failing.add("down")
    assert found(registry) == {}
    with pytest.raises(UnavailableError, match="its signatures are unknown: the registry does not answer"):
        found(registry, BY_KEY)


def test_a_bundle_by_the_key_counts_among_others() -> None:
    registry = Registry()
    registry.attach(IMAGE, STRANGER.bundle(IMAGE))
    with pytest.raises(SignatureError, match="its signature is by another key"):
        found(registry, BY_KEY)
    registry.attach(IMAGE, KEY.bundle(IMAGE))
    assert found(registry, BY_KEY)[AMD64].signed == {"key": KEY.sha256}


def test_a_signature_of_the_index_or_of_each_image_counts() -> None:
    registry = Registry()
    registry.attach(IMAGE, KEY.bundle(IMAGE))
    with pytest.raises(SignatureError, match=f"the image {'c' * 12} is not signed"):
        found(registry, BY_KEY, has_index=True)
    registry.attach(ARM, KEY.bundle(ARM))
    assert found(registry, BY_KEY, has_index=True).keys() == {AMD64, ARM64}
    whole = Registry()
    whole.attach(INDEX, KEY.bundle(INDEX))
    assert found(whole, BY_KEY, has_index=True).keys() == {AMD64, ARM64}


def test_a_bundle_by_the_identity_counts_if_it_is_of_this_image() -> None:
    registry = Registry()
    registry.attach(IMAGE, b"{}")
    assert found(registry, WHO, statement(IMAGE))[AMD64].signed == {"identity": WHO.identity, "issuer": WHO.issuer}
    with pytest.raises(SignatureError, match="the signature is of another image"):
        found(registry, WHO, statement(ARM))


def test_a_signature_of_cosign_2_counts_for_a_key_alone() -> None:
    registry = Registry()
    payload = simple_payload(IMAGE)
    registry.tag(IMAGE, ".sig", payload, SIMPLE, **{SIMPLE_NOTE: text(STRANGER.sign(payload))})
    with pytest.raises(SignatureError, match="its signature is by another key"):
        found(registry, BY_KEY)
    registry.tag(IMAGE, ".sig", payload, SIMPLE, **{SIMPLE_NOTE: text(KEY.sign(payload))})
    assert found(registry, BY_KEY)[AMD64].signed == {"key": KEY.sha256}
    with pytest.raises(SignatureError, match="lacks the inclusion proof"):
        found(registry, WHO)


def test_what_is_no_signature_says_why_it_does_not_count() -> None:
    registry = Registry()
    registry.attach(IMAGE, b"x", "application/spdx+json")
    with pytest.raises(SignatureError, match="nothing that is attached to it is a signature"):
        found(registry, BY_KEY)
    registry.tag(IMAGE, ".sig", b"x", "text/plain")
    with pytest.raises(SignatureError, match=r"of the type 'cosign tag \.sig' cannot be verified here"):
        found(registry, BY_KEY)
    registry.tag(IMAGE, ".sig", bytes((4 << 20) + 1), SIMPLE)
    with pytest.raises(SignatureError, match=r"a signature has 4194305 bytes; the limit is 4194304"):
        found(registry, BY_KEY)


def test_a_signature_that_cannot_be_fetched_is_not_a_missing_one() -> None:
    registry = Registry()
    bundle = KEY.bundle(IMAGE)
    registry.attach(IMAGE, bundle)
    registry.attach(IMAGE, STRANGER.bundle(IMAGE))
    registry.failing.add(registry.store(bundle))
    with pytest.raises(UnavailableError, match="the registry does not answer"):
        found(registry, BY_KEY)


def test_bytes_of_another_digest_are_no_signature() -> None:
    registry = Registry()
    bundle = KEY.bundle(IMAGE)
    registry.attach(IMAGE, bundle)
    registry.content[registry.store(bundle)] = bundle + b" "
    with pytest.raises(SignatureError, match="the registry sent a signature that does not match sha256:"):
        found(registry, BY_KEY)
