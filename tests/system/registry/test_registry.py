"""The registry client and the blob store against a real docker-registry."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import Reference
from publisher.errors import BlobError, DeniedError, LayerError, NotFoundError, UnavailableError, UnsupportedError
from publisher.layers.index import read_summary
from publisher.net.retry import RetryPolicy
from publisher.oci import Platform
from publisher.publish.fetch import fetch_image, fetch_layers
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.registry.credentials import Credentials
from tests.support.images.layers import directory, file, tar
from tests.support.registries.registry import (
    OCI,
    RegistryServer,
    Request,
    compress,
    describe,
    push_blob,
    push_image,
    push_index,
    push_manifest,
    sha256,
)

if TYPE_CHECKING:
    from pathlib import Path

    from publisher import oci

pytestmark = pytest.mark.system

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
BASE = tar([directory("etc"), file("etc/os-release", b"NAME=test\n"), file("big", os.urandom(300_000))])
TOP = tar([file("etc/motd", b"hello\n")])


def client_for(server: RegistryServer, credentials: Credentials | None = None) -> RegistryClient:
    async def no_sleep(_: float) -> None:
        pass

    return RegistryClient(
        insecure=frozenset({server.address}), credentials=lambda _: credentials, retry=RetryPolicy(sleep=no_sleep)
    )


async def get(
    server: RegistryServer, store: Path, name: str, tag: str = "1", platform: Platform = AMD64
) -> tuple[oci.Image, list[Path], list[Path]]:
    """Fetch an image as a run does: HEAD, image manifest, layers."""
    async with client_for(server) as client:
        reference, blobs = Reference(server.address, name, tag), BlobStore(store)
        digest = (await client.head(reference)).digest
        image = await fetch_image(client, blobs, reference, digest, platform)
        layers, indexes = await fetch_layers(client, blobs, image, reference, lambda _done, _total: None)
        return image, list(layers), list(indexes)


@pytest.mark.parametrize("oci_types", [True, False], ids=["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_an_image_comes_with_its_config_its_layers_in_order_and_their_indexes(
    registry: RegistryServer, tmp_path: Path, compression: str, oci_types: bool
) -> None:
    name = f"kinds/{compression}-{oci_types}".lower()
    digest = push_image(registry.address, name, "1", [BASE, TOP], {"Env": ["A=1"]}, compression=compression, oci=oci_types)
    image, layers, indexes = await get(registry, tmp_path, name)
    assert image.manifest.digest == digest
    assert image.platform == AMD64
    assert b'"Env": ["A=1"]' in image.config.raw
    assert [path.read_bytes() for path in layers] == [compress(layer, compression) for layer in (BASE, TOP)]
    summaries = [read_summary(path) for path in indexes]
    assert [summary and summary.diff_id for summary in summaries] == [sha256(BASE), sha256(TOP)] == list(image.config.diff_ids)


async def test_an_index_gives_each_platform_its_image_and_a_second_run_costs_one_head(
    registry: RegistryServer, tmp_path: Path
) -> None:
    amd64 = push_image(registry.address, "multi", "", [BASE, TOP])
    arm64 = push_image(registry.address, "multi", "", [BASE], oci=False, platform="linux/arm64/v8")
    push_index(registry.address, "multi", "1", {"linux/amd64": amd64, "linux/arm64/v8": arm64}, attested=True)
    for platform, digest in ((AMD64, amd64), (ARM64, arm64)):
        image, _, _ = await get(registry, tmp_path, "multi", platform=platform)
        assert image.manifest.digest == digest
    with pytest.raises(UnsupportedError, match=r"no image for linux/s390x \(it has linux/amd64, linux/arm64/v8\)"):
        await get(registry, tmp_path, "multi", platform=Platform("linux", "s390x"))
    registry.requests()
    for platform in (AMD64, ARM64):
        await get(registry, tmp_path, "multi", platform=platform)
    once = [Request("GET", "/v2/", 200), Request("HEAD", "/v2/multi/manifests/1", 200)]
    assert registry.requests() == once * 2


async def test_layers_that_images_share_are_fetched_once(registry: RegistryServer, tmp_path: Path) -> None:
    push_image(registry.address, "shared", "1", [BASE])
    push_image(registry.address, "shared", "2", [BASE, TOP, BASE])
    await get(registry, tmp_path, "shared", "1")
    registry.requests()
    _, layers, _ = await get(registry, tmp_path, "shared", "2")
    assert layers[0] == layers[2]
    fetched = [request.path for request in registry.requests() if "/blobs/" in request.path]
    assert f"/v2/shared/blobs/{sha256(compress(TOP, 'gzip'))}" in fetched
    assert f"/v2/shared/blobs/{sha256(compress(BASE, 'gzip'))}" not in fetched
    assert len(fetched) == 2  # and the config


async def test_a_manifest_without_a_media_type_is_an_image(registry: RegistryServer, tmp_path: Path) -> None:
    push_image(registry.address, "umoci", "1", [BASE])
    document = push_like(registry, "umoci", [BASE], None)
    digest = push_manifest(registry.address, "umoci", "bare", {key: document[key] for key in document if key != "mediaType"})
    image, _, _ = await get(registry, tmp_path, "umoci", "bare")
    assert image.manifest.digest == digest


def push_like(
    registry: RegistryServer, name: str, layers: list[bytes], diff_ids: list[str] | None, **config: str
) -> dict[str, object]:
    """Push the blobs of an image, with layers of any content; return its manifest, which is not pushed."""
    listed = [sha256(layer) for layer in layers] if diff_ids is None else diff_ids
    fields: dict[str, object] = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": listed}}
    raw = str(fields | config).replace("'", '"').encode()
    for blob in (*layers, raw):
        push_blob(registry.address, name, blob)
    return {
        "schemaVersion": 2,
        "mediaType": OCI["manifest"],
        "config": describe(raw, OCI["config"]),
        "layers": [describe(layer, OCI["none"]) for layer in layers],
    }


async def test_an_image_of_another_platform_is_refused_and_none_of_its_layers_fetched(
    registry: RegistryServer, tmp_path: Path
) -> None:
    push_image(registry.address, "arm", "1", [BASE], platform="linux/arm64")
    with pytest.raises(UnsupportedError, match=r"/arm:1: the image is for linux/arm64, not for linux/amd64"):
        await get(registry, tmp_path, "arm")
    push_manifest(registry.address, "arm", "windows", push_like(registry, "arm", [BASE], None, os="windows"))
    with pytest.raises(UnsupportedError, match="'windows', not for linux"):
        await get(registry, tmp_path, "arm", "windows")
    assert not (tmp_path / "sha256" / sha256(BASE)[7:9]).exists()


async def test_an_image_whose_config_speaks_of_other_layers_is_refused(registry: RegistryServer, tmp_path: Path) -> None:
    push_manifest(registry.address, "lies", "1", push_like(registry, "lies", [BASE, TOP], [sha256(BASE)]))
    with pytest.raises(UnsupportedError, match="2 layers, its config 1 diff_ids"):
        await get(registry, tmp_path, "lies")


async def test_an_artifact_is_refused_by_its_type(registry: RegistryServer, tmp_path: Path) -> None:
    document = push_like(registry, "chart", [BASE], None)
    helm = "application/vnd.cncf.helm.config.v1+json"
    push_manifest(registry.address, "chart", "1", document | {"config": dict(document["config"], mediaType=helm)})  # type: ignore[call-overload]  # a dict
    with pytest.raises(UnsupportedError, match=r"not an image but an artifact of the type '.*helm"):
        await get(registry, tmp_path, "chart")


async def test_a_layer_that_is_no_tar_is_refused_with_the_image_s_name(registry: RegistryServer, tmp_path: Path) -> None:
    push_manifest(registry.address, "text", "1", push_like(registry, "text", [BASE, b"no tar at all" * 100], None))
    with pytest.raises(LayerError, match=r"^127\.0\.0\.1:\d+/text:1: the layer is not a tar archive"):
        await get(registry, tmp_path, "text")


async def test_a_blob_that_was_damaged_in_the_registry_is_refused_and_leaves_nothing(
    registry: RegistryServer, tmp_path: Path
) -> None:
    layer = tar([file("a", os.urandom(100_000))])
    push_image(registry.address, "damaged", "1", [layer], compression="none")
    (data,) = (registry.storage / "blobs" / "sha256").glob(f"*/{sha256(layer)[7:]}/data")
    content = bytearray(data.read_bytes())
    content[70_000] ^= 1
    data.write_bytes(content)
    with pytest.raises(
        BlobError, match=r"/damaged:1: the \d+ bytes that were received for layer sha256:.* do not match its digest"
    ):
        await get(registry, tmp_path, "damaged")
    assert list((tmp_path / "partial").iterdir()) == []


async def test_a_broken_transfer_is_continued_by_the_next_run(registry: RegistryServer, tmp_path: Path) -> None:
    push_image(registry.address, "resumed", "1", [BASE], compression="none")
    BlobStore(tmp_path)
    (tmp_path / "partial" / sha256(BASE)[7:]).write_bytes(BASE[:200_000])
    registry.requests()
    _, (layer,), (index,) = await get(registry, tmp_path, "resumed")
    assert layer.read_bytes() == BASE
    summary = read_summary(index)
    assert summary is not None
    assert summary.diff_id == sha256(BASE)
    (request,) = [request for request in registry.requests() if request.path.endswith(sha256(BASE))]
    assert request.status == 206


async def test_an_image_that_is_not_there_is_not_found(registry: RegistryServer, tmp_path: Path) -> None:
    push_image(registry.address, "there", "1", [TOP])
    for name, tag in (("there", "2"), ("absent", "1")):
        with pytest.raises(NotFoundError, match=f"has no {name}:{tag}"):
            await get(registry, tmp_path, name, tag)


async def test_a_blob_that_is_gone_from_the_registry_is_not_found(registry: RegistryServer, tmp_path: Path) -> None:
    layer = tar([file("gone", b"gone")])
    push_image(registry.address, "gone", "1", [layer], compression="none")
    (link,) = (registry.storage / "repositories" / "gone" / "_layers" / "sha256" / sha256(layer)[7:]).iterdir()
    link.unlink()
    with pytest.raises(NotFoundError, match=f"has no blob {sha256(layer)}"):
        await get(registry, tmp_path, "gone")


async def test_progress_is_of_all_layers_together(registry: RegistryServer, tmp_path: Path) -> None:
    push_image(registry.address, "progress", "1", [BASE, TOP], compression="none")
    seen: list[tuple[int, int]] = []
    async with client_for(registry) as client:
        reference, store = Reference(registry.address, "progress", "1"), BlobStore(tmp_path)
        image = await fetch_image(client, store, reference, (await client.head(reference)).digest, AMD64)
        await fetch_layers(client, store, image, reference, lambda done, total: seen.append((done, total)))
    total = len(BASE) + len(TOP)
    assert {whole for _, whole in seen} == {total}
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


async def test_a_registry_with_passwords_shows_its_images_to_its_users_only(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry", user=("me", "s3cret")) as server:
        push_image(server.address, "private", "1", [TOP], user=("me", "s3cret"))
        reference = Reference(server.address, "private", "1")
        async with client_for(server, Credentials("me", "s3cret")) as client:
            assert (await client.head(reference)).digest
        for credentials in (None, Credentials("me", "wrong-s3cret")):
            async with client_for(server, credentials) as client:
                with pytest.raises(DeniedError) as failure:
                    await client.head(reference)
                assert "s3cret" not in str(failure.value)


async def test_a_registry_that_goes_down_is_could_not_tell(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry") as server:
        push_image(server.address, "there", "1", [TOP])
        async with client_for(server) as client:
            reference = Reference(server.address, "there", "1")
            await client.head(reference)
            await asyncio.to_thread(server.stop)
            with pytest.raises(UnavailableError, match="cannot be reached: Connection refused, after 4 attempts"):
                await client.head(reference)
