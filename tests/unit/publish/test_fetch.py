from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher import oci
from publisher.errors import BlobError, LayerError, NotFoundError, UnavailableError, UnsupportedError
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest, Platform
from publisher.publish.fetch import fetch_image, fetch_layers
from publisher.registry.blobs.store import BlobStore
from tests.support.images.layers import file, tar
from tests.support.registries.scripted_http import endless, hangs, says
from tests.support.registries.scripted_registry import scripted_client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.scripted_http import Reply

AMD64 = Platform("linux", "amd64")
LAYER = tar([file("a")])
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def described(content: bytes, media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content), **more}


CONFIG = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [sha256(LAYER)]}}).encode()
MANIFEST = json.dumps({"config": described(CONFIG, oci.OCI_CONFIG), "layers": [described(LAYER, LAYER_TYPE)]}).encode()


def index(content: bytes = MANIFEST, **more: object) -> bytes:
    entry = described(content, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}) | more
    return json.dumps({"manifests": [entry]}).encode()


def holding(*bodies: bytes) -> dict[str, list[Reply]]:
    """A registry that has these documents and the config."""
    routes = {f"GET /v2/a/b/manifests/{sha256(body)}": [says(200, body)] for body in bodies}
    return routes | {f"GET /v2/a/b/blobs/{sha256(CONFIG)}": [says(200, CONFIG)]}


async def test_an_image_behind_an_index_is_resolved_by_digests_and_then_from_the_store(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    async with scripted_client(holding(index(), MANIFEST)) as it:
        for _ in range(2):
            image = await fetch_image(it.client, store, it.reference, sha256(index()), AMD64)
            assert image.manifest.digest == sha256(MANIFEST)
            assert image.config.raw == CONFIG
        assert len(it.registry.asked) == 4


async def test_the_digest_decides_where_an_index_lies_about_a_manifest_s_size(tmp_path: Path) -> None:
    lying = index(size=len(MANIFEST) + 1)
    async with scripted_client(holding(lying, MANIFEST)) as it:
        image = await fetch_image(it.client, BlobStore(tmp_path), it.reference, sha256(lying), AMD64)
    assert image.manifest.digest == sha256(MANIFEST)


async def test_an_index_in_the_place_of_an_image_is_refused(tmp_path: Path) -> None:
    outer = index(index())
    async with scripted_client(holding(outer, index())) as it:
        with pytest.raises(UnsupportedError, match="another image index in place of the image for linux/amd64"):
            await fetch_image(it.client, BlobStore(tmp_path), it.reference, sha256(outer), AMD64)


async def test_a_config_of_another_digest_is_refused_and_not_kept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    async with scripted_client(holding(MANIFEST)) as it:
        it.registry.routes[f"GET /v2/a/b/blobs/{sha256(CONFIG)}"] = [says(200, CONFIG[:-1] + b" ")]
        with pytest.raises(BlobError, match=r"/a/b:1: \d+ bytes do not match the digest sha256:"):
            await fetch_image(it.client, store, it.reference, sha256(MANIFEST), AMD64)
        assert store.document(sha256(CONFIG)) is None


@pytest.mark.parametrize("asked", ["manifest", "config"])
async def test_a_document_of_gigabytes_is_cut_off_at_its_limit(asked: str, tmp_path: Path) -> None:
    """Announced with its length and without; none of it is kept, and little of it is taken."""
    for length in (None, 5 << 30):
        sent: list[int] = []
        async with scripted_client(holding(MANIFEST)) as it:
            route = f"manifests/{sha256(MANIFEST)}" if asked == "manifest" else f"blobs/{sha256(CONFIG)}"
            it.registry.routes[f"GET /v2/a/b/{route}"] = [endless(sent, length)]
            with pytest.raises((UnavailableError, BlobError), match=r"more than the \d+ bytes"):
                await fetch_image(it.client, BlobStore(tmp_path), it.reference, sha256(MANIFEST), AMD64)
        assert sum(sent) < 64 << 20
        assert [path for path in (tmp_path / "sha256").rglob("*") if path.is_file() and path.stat().st_size > len(MANIFEST)] == []


async def test_a_config_that_is_announced_with_gigabytes_is_not_asked_for(tmp_path: Path) -> None:
    config = described(CONFIG, oci.OCI_CONFIG) | {"size": 5 << 30}
    large = json.dumps({"config": config, "layers": []}).encode()
    async with scripted_client(holding(large)) as it:
        with pytest.raises(UnsupportedError, match="config has 5368709120 bytes; the limit is"):
            await fetch_image(it.client, BlobStore(tmp_path), it.reference, sha256(large), AMD64)
        assert [line for line in it.registry.lines if "blobs" in line] == []


async def test_a_refusal_names_the_image(tmp_path: Path) -> None:
    async with scripted_client(holding(b"{}")) as it:
        with pytest.raises(UnsupportedError, match=r"^127\.0\.0\.1:\d+/a/b:1: the registry's manifest is neither"):
            await fetch_image(it.client, BlobStore(tmp_path), it.reference, sha256(b"{}"), AMD64)


def image_of(*layers: bytes) -> Image:
    listed = tuple(Descriptor(LAYER_TYPE, sha256(layer), len(layer)) for layer in layers)
    config = Descriptor(oci.OCI_CONFIG, sha256(CONFIG), len(CONFIG))
    diff_ids = tuple(layer.digest for layer in listed)
    return Image(ImageManifest(sha256(MANIFEST), oci.OCI_MANIFEST, config, listed), ImageConfig(AMD64, diff_ids, CONFIG))


async def test_when_one_layer_fails_the_others_are_broken_off_and_let_go_of_their_locks(tmp_path: Path) -> None:
    hanging, absent = tar([file("hanging")]), tar([file("absent")])
    gone = says(404, Docker_Distribution_Api_Version="registry/2.0")
    routes: dict[str, list[Reply]] = {
        f"GET /v2/a/b/blobs/{sha256(hanging)}": [hangs],
        f"GET /v2/a/b/blobs/{sha256(absent)}": [gone],
    }
    store = BlobStore(tmp_path)
    async with scripted_client(routes) as it, asyncio.timeout(30):
        with pytest.raises(NotFoundError, match="has no blob"):
            await fetch_layers(it.client, store, image_of(hanging, absent), it.reference, lambda _done, _total: None)
        it.registry.routes[f"GET /v2/a/b/blobs/{sha256(hanging)}"] = [says(200, hanging)]
        blobs, indexes = await fetch_layers(it.client, store, image_of(hanging), it.reference, lambda _done, _total: None)
        assert [path.read_bytes() for path in blobs] == [hanging]
        assert all(path.exists() for path in indexes)


async def test_a_missing_foreign_layer_says_that_it_has_to_be_pushed(tmp_path: Path) -> None:
    absent = tar([file("absent")])
    gone = says(404, Docker_Distribution_Api_Version="registry/2.0")
    image = image_of(absent)
    foreign = replace(image.manifest.layers[0], media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    image = replace(image, manifest=replace(image.manifest, layers=(foreign,)))
    async with scripted_client({f"GET /v2/a/b/blobs/{sha256(absent)}": [gone]}) as it, asyncio.timeout(30):
        with pytest.raises(LayerError, match=r"a kind that is not pushed by default .*--allow-nondistributable-artifacts"):
            await fetch_layers(it.client, BlobStore(tmp_path), image, it.reference, lambda _done, _total: None)


async def test_an_image_without_layers_has_none(tmp_path: Path) -> None:
    async with scripted_client({}) as it:
        assert await fetch_layers(it.client, BlobStore(tmp_path), image_of(), it.reference, lambda *_: None) == ((), ())
