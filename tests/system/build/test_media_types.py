"""Every kind of blob that registries hold, under every media type that goes with it, from a real registry to the tree.

The reference is Apptainer's own build from the same registry; the layers do no harm.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING

import pytest

from publisher import oci
from publisher.build.builder import BuildRequest
from publisher.build.local import LocalBuilder
from publisher.build.sandbox.unpack import unpack
from publisher.build.squash.find import find_squasher
from publisher.build.testrun import TestRunner
from publisher.contract.reference import Reference
from publisher.publish.fetch import fetch_image, fetch_layers
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.state.paths import CATALOG_MARK
from tests.support.images.apptainer import apptainers_tree
from tests.support.images.layers import Entry, Node, directory, file, hardlink, symlink, tar, tree_on_disk
from tests.support.images.lazy_pull_layers import estargz, several_members, zstd_chunked
from tests.support.images.tar_stream import NOW
from tests.support.images.tolerated_differences import expected, same
from tests.support.publisher.host import ORDINARY
from tests.support.registries.registry import DOCKER, OCI, RegistryServer, compress, describe, push_blob, push_manifest, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

pytestmark = pytest.mark.system

LOWER = [directory("etc"), file("etc/a", b"1" * 9000), file("etc/gone"), file("empty", b""), file("caf\udce9")]
UPPER = [file("etc/.wh.gone", b""), hardlink("etc/b", "etc/a"), symlink("l", "etc/a"), file("etc/new", bytes(range(256)) * 100)]
Blob = tuple[bytes, bytes]
"""A blob, and the layer that it unpacks to."""


def _as(packed: Callable[[bytes], bytes]) -> Callable[[Sequence[Entry]], Blob]:
    return lambda entries: (packed(tar(entries)), tar(entries))


_NOT_FOR_ALL = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
_KINDS: dict[str, tuple[Callable[[Sequence[Entry]], Blob], str, Mapping[str, str]]] = {
    "plain": (_as(bytes), OCI["none"], OCI),
    "gzip": (_as(gzip.compress), OCI["gzip"], OCI),
    "gzip of several members": (_as(several_members), OCI["gzip"], OCI),
    "zstd": (_as(lambda layer: compress(layer, "zstd")), OCI["zstd"], OCI),
    "eStargz": (estargz, OCI["gzip"], OCI),
    "zstd:chunked": (zstd_chunked, OCI["zstd"], OCI),
    "Docker's plain": (_as(bytes), DOCKER["none"], DOCKER),
    "Docker's gzip": (_as(gzip.compress), DOCKER["gzip"], DOCKER),
    "gzip that calls itself zstd": (_as(gzip.compress), OCI["zstd"], OCI),
    "zstd that calls itself gzip": (_as(lambda layer: compress(layer, "zstd")), DOCKER["gzip"], DOCKER),
    "gzip that calls itself plain": (_as(gzip.compress), OCI["none"], OCI),
    "non-distributable": (_as(bytes), _NOT_FOR_ALL, OCI),
    "non-distributable gzip": (_as(gzip.compress), f"{_NOT_FOR_ALL}+gzip", OCI),
    "non-distributable zstd": (_as(lambda layer: compress(layer, "zstd")), f"{_NOT_FOR_ALL}+zstd", OCI),
    "Docker's foreign": (_as(gzip.compress), _FOREIGN, DOCKER),
}
_NO_LAYER_TO_APPTAINER = "non-distributable zstd"
"""Apptainer ignores such layers silently; the tree is compared with that of the same layers uncompressed."""


@pytest.mark.parametrize("kind", _KINDS)
def test_the_tree_is_apptainers_whatever_the_blobs_are(kind: str, registry: RegistryServer, shared_path: Path) -> None:
    pack, media_type, types = _KINDS[kind]
    name = f"kinds/{sorted(_KINDS).index(kind)}"
    digest = _push(registry, name, [pack(LOWER), pack(UPPER)], media_type, types)
    source = name
    if kind == _NO_LAYER_TO_APPTAINER:
        source = f"{name}-open"
        _push(registry, source, [pack(LOWER), pack(UPPER)], OCI["zstd"], OCI)
    theirs = apptainers_tree(f"docker://{registry.address}/{source}:1", shared_path)
    assert theirs is not None
    ours = _published(registry, name, digest, shared_path)
    own = {path for path in ours if path.startswith((b"etc", b"empty", b"caf", b"l", b"stargz", b".no")) and path in theirs}
    assert {b"etc/a", b"etc/b", b"etc/new", b"empty", b"caf\xe9", b"l"} <= own
    assert b"etc/gone" not in ours.keys() | theirs.keys()
    assert (ours.keys() - {b"srv", b"cvmfs"}) == theirs.keys()
    wanted = expected(theirs)
    for path in own - {b"etc", b"etc/hosts", b"etc/resolv.conf"}:
        assert same(ours[path], wanted[path]), path


def _push(registry: RegistryServer, name: str, blobs: Sequence[Blob], media_type: str, types: Mapping[str, str]) -> str:
    """Push an image of these blobs; returns the manifest's digest."""
    rootfs = {"type": "layers", "diff_ids": [sha256(layer) for _, layer in blobs]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs}).encode()
    for content in (config, *(blob for blob, _ in blobs)):
        push_blob(registry.address, name, content)
    elsewhere = {"urls": ["http://127.0.0.1:9/layer"]} if "foreign" in media_type else {}
    manifest = {
        "schemaVersion": 2,
        "mediaType": types["manifest"],
        "config": describe(config, types["config"]),
        "layers": [describe(blob, media_type) | elsewhere for blob, _ in blobs],
    }
    return push_manifest(registry.address, name, "1", manifest)


def _published(registry: RegistryServer, name: str, digest: str, where: Path) -> dict[bytes, Node]:
    reference = Reference(registry.address, name, "1", None)

    async def fetched() -> BuildRequest:
        store = BlobStore(where / "store")
        async with RegistryClient(insecure=frozenset({registry.address})) as client:
            image = await fetch_image(client, store, reference, digest, oci.Platform("linux", "amd64"))
            layers, indexes = await fetch_layers(client, store, image, reference, lambda *_: None)
            return BuildRequest(name, image, layers, indexes)

    (where / "scratch").mkdir()
    builder = LocalBuilder(where / "builds", find_squasher(), TestRunner(ORDINARY, where / "scratch"), now=lambda: NOW)
    built = builder.build(asyncio.run(fetched()), lambda *_: None)
    unpack(built.sif, where / "published", deadline=60)
    (where / "published" / CATALOG_MARK).unlink()
    return tree_on_disk(where / "published")
