"""Attachments and required signatures at a real registry, which has no referrers API; one behind a proxy has it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from publisher.errors import PublisherError, SignatureError, UnavailableError, UsageError
from publisher.images.signer import RequiredSigner
from publisher.plan.make import make_plan
from publisher.plan.model import Action, ResolvedReference
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.publish.intake import Intake
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.state.snapshot import Snapshot
from publisher.system.progress import LineDisplay
from tests.support.images.layers import file, tar
from tests.support.publisher.built_values import AMD64, ARM64, carried_out, entry
from tests.support.registries.cosign import (
    BUNDLE,
    SIGN_PREDICATE,
    PlainKey,
    attach,
    push_simple_signature,
    push_tagged,
    simple_payload,
)
from tests.support.registries.proxy import misbehaving
from tests.support.registries.registry import OCI, RegistryServer, describe, push_blob, push_image, push_index
from tests.support.registries.scripted_http import says
from tests.support.registries.sigstore_instance import SigstoreInstance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.images.reader import Entry

pytestmark = pytest.mark.system
EMPTY = Snapshot("images.example.org")
WHO, ISSUER = "https://github.com/a/b/.github/workflows/release.yml@refs/tags/v1", "https://login.example.org"
SPDX = "application/spdx+json"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> SigstoreInstance:
    return SigstoreInstance(tmp_path_factory.mktemp("instance"))


@pytest.fixture
def intake(registry: RegistryServer, tmp_path: Path, instance: SigstoreInstance) -> Iterator[Intake]:
    with _opened(registry.address, tmp_path, instance) as intake:
        yield intake


def _opened(address: str, where: Path, instance: SigstoreInstance) -> Intake:
    return Intake(
        lambda: RegistryClient(insecure=frozenset({address})),
        lambda: BlobStore(where / "blobs"),
        LineDisplay(io.StringIO()),
        public=lambda: RegistryClient(insecure=frozenset({address})),
        verifier=BundleVerifier(instance.trust_root),
    )


def push(registry: RegistryServer, name: str, platform: str = "linux/amd64") -> str:
    repository, _, tag = name.partition(":")
    return push_image(registry.address, repository, tag, [tar([file("content", name.encode())])], platform=platform)


def by_key(key: PlainKey) -> RequiredSigner:
    return RequiredSigner(public_key=base64.b64decode("".join(key.pem.splitlines()[1:-1])))


def answer(intake: Intake, one: Entry) -> ResolvedReference:
    resolved = intake.resolve([one], {})[one.name]
    assert isinstance(resolved, ResolvedReference), resolved
    return resolved


def refusal(intake: Intake, one: Entry) -> PublisherError:
    resolved = intake.resolve([one], {})[one.name]
    assert isinstance(resolved, PublisherError), resolved
    return resolved


def required(address: str, name: str, signer: RequiredSigner, **more: Any) -> Entry:
    return entry(f"{address}/{name}", signer=signer, **more)


# --- attachments


def test_what_is_attached_in_any_way_is_recorded_with_its_kind(intake: Intake, registry: RegistryServer) -> None:
    digest, address = push(registry, "sig/attached:1"), registry.address
    sbom, bundle, key = b'{"spdxVersion": "SPDX-2.3"}', PlainKey().bundle(digest), PlainKey()
    attached = {
        attach(address, "sig/attached", digest, sbom, artifact=SPDX): ("sbom", SPDX),
        attach(address, "sig/attached", digest, bundle, predicate=SIGN_PREDICATE): ("signature", BUNDLE),
        attach(address, "sig/attached", digest, b"{}", predicate="https://slsa.dev/provenance/v1"): ("attestation", BUNDLE),
        attach(address, "sig/attached", digest, b"notes", artifact="text/markdown"): ("other", "text/markdown"),
    }
    payload = simple_payload(digest)
    attached[push_simple_signature(address, "sig/attached", digest, payload, key.sign(payload))] = (
        "signature",
        "cosign tag .sig",
    )
    for suffix, kind in ((".att", "attestation"), (".sbom", "sbom")):
        push_blob(address, "sig/attached", kind.encode())
        layer = describe(kind.encode(), "application/octet-stream")
        tag = f"{digest.replace(':', '-')}{suffix}"
        attached[push_tagged(address, "sig/attached", tag, layer)] = (kind, f"cosign tag {suffix}")
    found = answer(intake, entry(f"{address}/sig/attached:1")).provenance[AMD64]
    assert {one.digest: (one.kind, one.type) for one in found.attached} == attached
    assert [one.kind for one in found.attached][:2] == ["signature", "signature"]
    assert found.signed is None, "an entry that requires no signature gets none verified"


def test_the_referrers_api_is_asked_first_page_by_page(
    registry: RegistryServer, tmp_path: Path, instance: SigstoreInstance
) -> None:
    digest = push(registry, "sig/api:1")
    listed = [attach(registry.address, "sig/api", digest, text, artifact=SPDX) for text in (b"one", b"two")]
    entries = [{"mediaType": OCI["manifest"], "digest": one, "size": 1, "artifactType": SPDX} for one in listed]
    pages = [json.dumps({"schemaVersion": 2, "manifests": [one]}) for one in entries]
    path = f"/v2/sig/api/referrers/{digest}"
    with misbehaving(registry) as proxy, _opened(proxy.address, tmp_path, instance) as intake:
        proxy.faults[f"GET {path}"] = [
            says(200, pages[0], Content_Type=OCI["index"], Link=f'<{path}?page=2>; rel="next"'),
            says(200, pages[1], Content_Type=OCI["index"]),
        ]
        registry.requests()
        found = answer(intake, entry(f"{proxy.address}/sig/api:1")).provenance[AMD64]
    assert sorted(one.digest for one in found.attached) == sorted(listed)
    assert [one for one in registry.requests() if one.path.endswith(f"manifests/{digest.replace(':', '-')}")] == []


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_a_registry_that_does_not_say_what_is_attached_keeps_no_image_back(
    registry: RegistryServer, tmp_path: Path, instance: SigstoreInstance, status: int
) -> None:
    push(registry, "sig/silent:1")
    with misbehaving(registry) as proxy, _opened(proxy.address, tmp_path, instance) as intake:
        proxy.always("GET /v2/*/referrers/*", says(status))
        one = entry(f"{proxy.address}/sig/silent:1")
        assert not any(found.attached for found in answer(intake, one).provenance.values())


def test_a_list_of_attachments_by_a_stranger_is_bounded_and_checked(
    registry: RegistryServer, tmp_path: Path, instance: SigstoreInstance
) -> None:
    push(registry, "sig/many:1")
    sound = [{"digest": f"sha256:{number:064x}", "artifactType": "x" * 500} for number in range(1000)]
    broken: list[object] = [7, {"digest": "sha256:1"}, {"digest": 7, "artifactType": {}}, {"artifactType": SPDX}]
    with misbehaving(registry) as proxy, _opened(proxy.address, tmp_path, instance) as intake:
        body = json.dumps({"manifests": [*broken, *sound]})
        proxy.always("GET /v2/*/referrers/*", says(200, body, Content_Type=OCI["index"]))
        found = answer(intake, entry(f"{proxy.address}/sig/many:1")).provenance[AMD64]
        assert (len(found.attached), {len(one.type) for one in found.attached}) == (32, {100})
        proxy.always("GET /v2/*/referrers/*", says(200, "[" * 100_000, Content_Type=OCI["index"]))
        assert answer(intake, entry(f"{proxy.address}/sig/many:1")).provenance[AMD64].attached == ()


# --- required signatures


def test_a_signature_by_the_identity_is_found_among_others(
    intake: Intake, registry: RegistryServer, instance: SigstoreInstance
) -> None:
    digest, address = push(registry, "sig/identity:1"), registry.address
    attach(address, "sig/identity", digest, PlainKey().bundle(digest), predicate=SIGN_PREDICATE)
    attach(address, "sig/identity", digest, instance.sign(digest, "other@example.org", ISSUER), predicate=SIGN_PREDICATE)
    one = required(address, "sig/identity:1", RequiredSigner(WHO, ISSUER))
    assert isinstance(refusal(intake, one), SignatureError)
    attach(address, "sig/identity", digest, instance.sign(digest, WHO, ISSUER), predicate=SIGN_PREDICATE)
    assert answer(intake, one).provenance[AMD64].signed == {"identity": WHO, "issuer": ISSUER}
    assert isinstance(intake.inspect([one])[one.name], list), "publisher check verifies it as well"


def test_a_key_signs_as_cosign_2_or_as_cosign_3_does(intake: Intake, registry: RegistryServer) -> None:
    key, address = PlainKey(), registry.address
    old, new = push(registry, "sig/key:old"), push(registry, "sig/key:new")
    push_simple_signature(address, "sig/key", old, simple_payload(old), key.sign(simple_payload(old)))
    attach(address, "sig/key", new, key.bundle(new), predicate=SIGN_PREDICATE)
    for name in ("sig/key:old", "sig/key:new"):
        assert answer(intake, required(address, name, by_key(key))).provenance[AMD64].signed == {"key": key.sha256}
        error = refusal(intake, required(address, name, by_key(PlainKey())))
        assert isinstance(error, SignatureError)
        assert error.reason.endswith("its signature is by another key")


def test_what_is_no_signature_of_this_image_does_not_count(intake: Intake, registry: RegistryServer) -> None:
    key, address = PlainKey(), registry.address
    signed, other = push(registry, "sig/moved:signed"), push(registry, "sig/moved:other")
    one = required(address, "sig/moved:other", by_key(key))
    assert refusal(intake, one).reason.endswith("nothing that is attached to it is a signature")
    push_simple_signature(address, "sig/moved", other, simple_payload(signed), key.sign(simple_payload(signed)))
    assert refusal(intake, one).reason.endswith("the signature is of another image")
    attested = push(registry, "sig/moved:attested")
    attach(address, "sig/moved", attested, key.bundle(attested, "https://cosign.sigstore.dev/attestation/vuln/v1"))
    error = refusal(intake, required(address, "sig/moved:attested", by_key(key)))
    assert error.reason.endswith("an attestation about the image, not the image")
    by_name = required(address, "sig/moved:signed", RequiredSigner(WHO, ISSUER))
    payload = simple_payload(signed)
    push_simple_signature(address, "sig/moved", signed, payload, key.sign(payload))
    assert "a signature of cosign 2, which lacks the inclusion proof" in refusal(intake, by_name).reason


def test_a_signed_index_vouches_for_its_images_and_signed_images_need_no_signed_index(
    intake: Intake, registry: RegistryServer
) -> None:
    key, address = PlainKey(), registry.address
    digests = {platform: push(registry, "sig/index:", platform) for platform in ("linux/amd64", "linux/arm64")}
    index = push_index(address, "sig/index", "1", digests)
    one = required(address, "sig/index:1", by_key(key), platforms=(AMD64, ARM64))
    attach(address, "sig/index", digests["linux/amd64"], key.bundle(digests["linux/amd64"]), predicate=SIGN_PREDICATE)
    assert digests["linux/arm64"][7:19] in refusal(intake, one).reason, "one image of two is signed"
    attach(address, "sig/index", digests["linux/arm64"], key.bundle(digests["linux/arm64"]), predicate=SIGN_PREDICATE)
    assert [found.signed for found in answer(intake, one).provenance.values()] == [{"key": key.sha256}] * 2
    of_index = attach(address, "sig/index", index, key.bundle(index), predicate=SIGN_PREDICATE)
    found = answer(intake, one).provenance
    assert all(of_index in [attached.digest for attached in one.attached] for one in found.values())


@pytest.mark.parametrize("what", ["GET /v2/*/referrers/*", "* /v2/*.sig", "GET /v2/*/blobs/*", "GET /v2/*/manifests/{}"])
def test_a_registry_that_fails_leaves_it_open_whether_an_image_is_signed(
    registry: RegistryServer, tmp_path: Path, instance: SigstoreInstance, what: str
) -> None:
    """Neither "not signed" nor "gone": the next run asks again."""
    key, address = PlainKey(), registry.address
    digest = push(registry, "sig/down:1")
    payload = simple_payload(digest)
    signature = push_simple_signature(address, "sig/down", digest, payload, key.sign(payload))
    with misbehaving(registry) as proxy, _opened(proxy.address, tmp_path, instance) as intake:
        one = required(proxy.address, "sig/down:1", by_key(key))
        answer(intake, dataclasses.replace(one, signer=None))  # keeps the image's own documents
        for method in ("GET", "HEAD") if what.startswith("*") else (what[: what.index(" ")],):
            route = f"{method} {what.partition(' ')[2].format(signature)}"
            proxy.always(route, says(503 if "referrers" in what else 410))
        assert isinstance(refusal(intake, one), UnavailableError)
        proxy.faults.clear()
        assert answer(intake, one).provenance[AMD64].signed == {"key": key.sha256}


def test_a_signature_that_the_registry_lost_does_not_make_the_image_gone(
    registry: RegistryServer, tmp_path: Path, instance: SigstoreInstance
) -> None:
    key, address = PlainKey(), registry.address
    digest = push(registry, "sig/lost:1")
    attached = attach(address, "sig/lost", digest, key.bundle(digest), predicate=SIGN_PREDICATE)
    with misbehaving(registry) as proxy, _opened(proxy.address, tmp_path, instance) as intake:
        unknown = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        proxy.always(f"GET /v2/*/manifests/{attached}", says(404, unknown, Docker_Distribution_Api_Version="registry/2.0"))
        error = refusal(intake, required(proxy.address, "sig/lost:1", by_key(key)))
        assert isinstance(error, SignatureError), "a NotFoundError would remove the published image"


def test_a_published_image_is_not_verified_again_until_its_requirement_changes(intake: Intake, registry: RegistryServer) -> None:
    key, address = PlainKey(), registry.address
    digest = push(registry, "sig/again:1")
    plain = entry(f"{address}/sig/again:1")
    snapshot = carried_out(make_plan([plain], intake.resolve([plain], {}), EMPTY), EMPTY, 1)
    one = dataclasses.replace(plain, signer=by_key(key))
    item = make_plan([one], intake.resolve([one], snapshot.records), snapshot).items[0]
    assert (item.action, item.reason.endswith("; the published version stays")) == (Action.FAILED, True)
    push_simple_signature(address, "sig/again", digest, simple_payload(digest), key.sign(simple_payload(digest)))
    plan = make_plan([one], intake.resolve([one], snapshot.records), snapshot)
    assert [target.published is not None for target in plan.items[0].targets] == [True], "nothing is built anew"
    assert plan.items[0].action is Action.EXTENDED
    assert plan.items[0].reason == f"{digest[7:19]} stays, and is signed by {by_key(key)}"
    snapshot = carried_out(plan, snapshot, 2)
    assert snapshot.records[one.name].platforms["amd64"][0].signed == {"key": key.sha256}
    registry.requests()
    assert make_plan([one], intake.resolve([one], snapshot.records), snapshot).count(Action.UNCHANGED) == 1
    assert len(registry.requests()) == 1, "one HEAD"
    again = dataclasses.replace(one, signer=by_key(PlainKey()))
    assert isinstance(intake.resolve([again], snapshot.records)[one.name], SignatureError)


def test_a_host_without_a_usable_trust_root_says_so_for_the_images_concerned(
    registry: RegistryServer, tmp_path: Path, instance: SigstoreInstance
) -> None:
    digest = push(registry, "sig/root:1")
    attach(registry.address, "sig/root", digest, instance.sign(digest, WHO, ISSUER), predicate=SIGN_PREDICATE)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    client = frozenset({registry.address})
    with Intake(
        lambda: RegistryClient(insecure=client),
        lambda: BlobStore(tmp_path / "blobs"),
        LineDisplay(io.StringIO()),
        public=lambda: RegistryClient(insecure=client),
        verifier=BundleVerifier(broken),
    ) as intake:
        error = refusal(intake, required(registry.address, "sig/root:1", RequiredSigner(WHO, ISSUER)))
        assert isinstance(error, UsageError)
        answer(intake, entry(f"{registry.address}/sig/root:1"))
