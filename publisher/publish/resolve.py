"""From a reference to what a build needs: the image's manifest and config, then its layers, all by digest.

A tag is resolved once per run, by the caller (:meth:`publisher.registry.RegistryClient.head`); here only digests count, so
that what is fetched is what was planned. Documents that the store has are not asked for again.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from publisher import oci
from publisher.errors import BlobError, UnsupportedError
from publisher.registry.client import about

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from publisher.contract.reference import Reference
    from publisher.registry.blobs.store import BlobStore, StoredLayer
    from publisher.registry.client import RegistryClient

    Progress = Callable[[int, int], None]


async def resolve(
    client: RegistryClient, store: BlobStore, reference: Reference, digest: str, platform: oci.Platform
) -> oci.Image:
    """The image for a platform behind a digest.

    Args:
        client: asked for what the store does not have.
        store: keeps index, manifest and config.
        reference: says where the image is; its tag is not looked at.
        digest: of the index or manifest, as the registry's answer to HEAD gave it.
        platform: the one that is wanted.

    Raises:
        UnsupportedError: no image that can be published, or none for this platform.
        BlobError: a body is not what its digest or size says.
        NotFoundError, DeniedError, UnavailableError: the registry's answers.
        SpaceError: no room left in the store.
    """
    with about(reference):
        media_type, body = await manifest(client, store, reference, digest)
        if oci.kind_of(media_type, body) is oci.Kind.INDEX:
            chosen = oci.choose_platform(oci.parse_index(body), platform)
            digest = chosen.digest
            media_type, body = await manifest(client, store, reference, digest)
            if len(body) != chosen.size:
                raise BlobError(f"manifest {digest} has {len(body)} bytes, its index says {chosen.size}")
            if oci.kind_of(media_type, body) is not oci.Kind.MANIFEST:
                raise UnsupportedError(f"the index has another index in the place of the image for {platform}")
        parsed = oci.parse_manifest(body, digest)
        config = oci.parse_config(await _config(client, store, reference, parsed.config))
        oci.check_platform(config, platform)
        return oci.join(parsed, config)


async def layers(
    client: RegistryClient, store: BlobStore, image: oci.Image, reference: Reference, progress: Progress
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """An image's layers from the bottom up: paths of the blobs, paths of their header indexes.

    Missing ones are fetched, several at a time; when one fails the others are broken off (what they have is kept).

    Args:
        client: asked for what the store does not have.
        store: keeps them.
        image: as :func:`resolve` gave it.
        reference: says where the image is.
        progress: ``progress(done, total)`` in bytes, summed over the layers.

    Raises:
        LayerError: a layer is not a sound tar archive, or beyond a limit.
        BlobError, SpaceError, NotFoundError, DeniedError, UnavailableError: as :meth:`BlobStore.layer`.
    """
    wanted = {layer.digest: layer for layer in image.manifest.layers}  # some images have one layer twice
    total = sum(layer.size for layer in wanted.values())
    done: dict[str, int] = {}

    def here(digest: str, count: int) -> None:
        done[digest] = count
        progress(sum(done.values()), total)

    def one(layer: oci.Descriptor) -> Coroutine[None, None, StoredLayer]:
        source = functools.partial(client.blob, reference, layer)
        return store.layer(layer, source, functools.partial(here, layer.digest))

    with about(reference):
        stored = dict(zip(wanted, await _all_or_none([one(layer) for layer in wanted.values()]), strict=True))
    inside = [stored[layer.digest] for layer in image.manifest.layers]
    return tuple(layer.blob for layer in inside), tuple(layer.index for layer in inside)


async def _all_or_none(work: list[Coroutine[None, None, StoredLayer]]) -> list[StoredLayer]:
    """The results in order; after the first failure the others are cancelled and it is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def manifest(client: RegistryClient, store: BlobStore, reference: Reference, digest: str) -> tuple[str, bytes]:
    """Content-Type (``""`` from the store: the body has to say what it is) and body of an index or manifest.

    Raises:
        BlobError, NotFoundError, DeniedError, UnavailableError: as :meth:`RegistryClient.manifest`.
        SpaceError: no room left in the store.
    """
    kept = store.document(digest)
    if kept is not None:
        return "", kept
    media_type, body = await client.manifest(reference, digest)
    await asyncio.to_thread(store.put_document, digest, body)
    return media_type, body


async def _config(client: RegistryClient, store: BlobStore, reference: Reference, descriptor: oci.Descriptor) -> bytes:
    kept = store.document(descriptor.digest)
    if kept is not None:
        return kept
    body = bytearray()

    async def collect(chunk: bytes) -> None:
        body.extend(chunk)

    await client.blob(reference, descriptor, collect)
    await asyncio.to_thread(store.put_document, descriptor.digest, bytes(body))
    return bytes(body)
