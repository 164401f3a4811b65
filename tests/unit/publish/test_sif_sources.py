"""SIFs as sources: what is asked of their servers, and what becomes of the answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.contract.records import Record, Version
from publisher.contract.reference import Reference
from publisher.errors import NotFoundError, UnavailableError, UnsupportedError
from publisher.images.entry import Entry
from publisher.plan.model import tag_reference
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.publish.fetch import fetch_image, fetch_layers
from publisher.publish.resolve import Resolver
from publisher.registry.blobs.store import BlobStore
from tests.support.images import foreign_sif
from tests.support.publisher.built_values import AMD64
from tests.support.registries.scripted_http import says
from tests.support.registries.scripted_registry import ScriptedClient, scripted_client
from tests.unit.publish.test_fetch import MANIFEST, holding, sha256

if TYPE_CHECKING:
    from pathlib import Path

SIF = b"a SIF" * 1000
SHA256 = "sha256:" + hashlib.sha256(SIF).hexdigest()
ARTIFACT = json.dumps(foreign_sif.manifest(SIF)).encode()
IN_REGISTRY = {
    "HEAD /v2/a/b/manifests/1": [says(200, Docker_Content_Digest=sha256(ARTIFACT))],
    f"GET /v2/a/b/manifests/{sha256(ARTIFACT)}": [says(200, ARTIFACT)],
    f"GET /v2/a/b/blobs/{SHA256}": [says(200, SIF)],
    f"GET /v2/a/b/referrers/{sha256(ARTIFACT)}": [says(200, json.dumps({"manifests": []}))],
}
AT_URL = {"HEAD /x.sif": [says(200, SIF)], "GET /x.sif": [says(200, SIF)]}


def oras(it: ScriptedClient) -> Reference:
    return Reference(it.reference.registry, "a/b", "1", None, "oras")


def url(it: ScriptedClient) -> Reference:
    return Reference(it.reference.registry, "x.sif", None, SHA256, "https")


def entry(reference: Reference) -> Entry:
    return Entry("lab/solver:1", reference, (AMD64,), frozenset({"sandbox", "sif"}))


def published(wanted: Entry, digest: str) -> Record:
    version = Version(digest, sandbox="s", sif=None, published=1, config=SHA256)
    return Record(wanted.name, tag_reference(wanted), digest, {"amd64": [version]})


def resolver(it: ScriptedClient, where: Path) -> Resolver:
    return Resolver(it.client, it.client, BlobStore(where), BundleVerifier(None), private_images=False)


async def test_a_sif_in_a_registry_has_the_digest_of_its_manifest_and_the_content_of_its_layer(tmp_path: Path) -> None:
    async with scripted_client(IN_REGISTRY) as it:
        answer = await resolver(it, tmp_path).resolve(entry(oras(it)), None)
        assert (answer.digest, answer.digests) == (sha256(ARTIFACT), {AMD64: sha256(ARTIFACT)})
        assert answer.configs == {AMD64: SHA256}
        manifests = await resolver(it, tmp_path).image_manifests(entry(oras(it)), answer)
        assert [layer.digest for layer in manifests[AMD64].layers] == [SHA256]


async def test_a_sif_at_a_url_is_known_by_its_sha256_and_its_size(tmp_path: Path) -> None:
    async with scripted_client(AT_URL) as it:
        answer = await resolver(it, tmp_path).resolve(entry(url(it)), None)
        assert (answer.digest, answer.digests, answer.configs) == (SHA256, {AMD64: SHA256}, {AMD64: SHA256})
        assert it.registry.lines == ["HEAD /x.sif"], "nothing can be attached to it"
        (image,) = await resolver(it, tmp_path).inspect(entry(url(it)))
        assert (image.is_sif, image.manifest.layers[0].size) == (True, len(SIF))


async def test_a_published_sif_at_a_url_is_not_asked_for_again(tmp_path: Path) -> None:
    async with scripted_client({}) as it:
        record = published(entry(url(it)), SHA256)
        assert (await resolver(it, tmp_path).resolve(entry(url(it)), record)).digests == {AMD64: SHA256}
        assert it.registry.lines == []


async def test_a_404_of_a_web_server_removes_nothing(tmp_path: Path) -> None:
    async with scripted_client({"HEAD /x.sif": [says(404)]}) as it:
        with pytest.raises(UnavailableError, match=r"has no x.sif"):
            await resolver(it, tmp_path).resolve(entry(url(it)), None)
        with pytest.raises(NotFoundError):  # but a pull request's check says so
            await resolver(it, tmp_path).inspect(entry(url(it)))


@pytest.mark.parametrize("routes", [IN_REGISTRY, AT_URL], ids=["registry", "URL"])
async def test_a_sif_is_fetched_once_and_has_no_index(routes: dict[str, list[object]], tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    async with scripted_client(routes) as it:  # type: ignore[arg-type]  # replies
        reference = oras(it) if routes is IN_REGISTRY else url(it)
        digest = sha256(ARTIFACT) if routes is IN_REGISTRY else SHA256
        for _ in range(2):
            image = await fetch_image(it.client, store, reference, digest, AMD64)
            (path,), indexes = await fetch_layers(it.client, store, image, reference, lambda *_: None)
            assert path.read_bytes() == SIF
            assert indexes == ()
            assert not path.with_name(f"{path.name}.index").exists()
        assert sum(line in {f"GET /v2/a/b/blobs/{SHA256}", "GET /x.sif"} for line in it.registry.lines) == 1


async def test_other_bytes_at_the_url_are_not_taken(tmp_path: Path) -> None:
    async with scripted_client({**AT_URL, "GET /x.sif": [says(200, SIF[::-1])]}) as it:
        image = await fetch_image(it.client, BlobStore(tmp_path), url(it), SHA256, AMD64)
        with pytest.raises(Exception, match=r"received for SIF sha256:.* do not match its digest"):
            await fetch_layers(it.client, BlobStore(tmp_path), image, url(it), lambda *_: None)


async def test_an_image_is_no_sif_and_a_sif_no_image(tmp_path: Path) -> None:
    async with scripted_client({**IN_REGISTRY, **holding(MANIFEST)}) as it:
        with pytest.raises(UnsupportedError, match="this is an image and not a SIF") as caught:
            await fetch_image(it.client, BlobStore(tmp_path), oras(it), sha256(MANIFEST), AMD64)
        assert "without oras://" in (caught.value.hint or "")
        with pytest.raises(UnsupportedError, match="this is a SIF and not an image") as caught:
            await fetch_image(it.client, BlobStore(tmp_path), it.reference, sha256(ARTIFACT), AMD64)
        assert "oras://" in (caught.value.hint or "")


async def test_an_artifact_of_two_sifs_is_refused(tmp_path: Path) -> None:
    document = foreign_sif.manifest(SIF)
    body = json.dumps({**document, "layers": [*document["layers"], *document["layers"]]}).encode()  # type: ignore[misc]
    async with scripted_client({f"GET /v2/a/b/manifests/{sha256(body)}": [says(200, body)]}) as it:
        with pytest.raises(UnsupportedError, match="has 2 layers; a SIF is a single one"):
            await fetch_image(it.client, BlobStore(tmp_path), oras(it), sha256(body), AMD64)


def test_the_manifest_has_the_reference_without_its_pin() -> None:
    reference = Reference("example.org", "dir/x.sif", None, SHA256, "https")
    record = published(entry(reference), SHA256)
    assert record.reference == "https://example.org/dir/x.sif"
    assert not [alias for alias in record.aliases() if "://" in alias], "jobs do not name it"
    assert replace(entry(reference), line=3) == entry(reference)
