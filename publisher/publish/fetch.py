"""Fetches an image by digest: its image manifest and config, then its layers.

A tag is resolved once per run (:mod:`publisher.publish.resolve`); only digests count here, so that the image that was planned is
the one that is fetched. Documents that the blob store has are not fetched again.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from publisher import oci
from publisher.errors import LayerError, NotFoundError, UnsupportedError
from publisher.images.sif_sources import is_url
from publisher.registry.client import image_in_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from publisher.contract.reference import Reference
    from publisher.registry.blobs.store import BlobStore, StoredLayer
    from publisher.registry.client import RegistryClient

    Progress = Callable[[int, int], None]


async def fetch_image(
    client: RegistryClient, store: BlobStore, reference: Reference, digest: str, platform: oci.Platform
) -> oci.Image:
    """Return the image for a platform: its image manifest and config, without layers.

    Args:
        client: fetches what the store does not have.
        store: keeps image indexes, image manifests and configs.
        reference: registry and repository of the image; its tag is ignored.
        digest: digest of the image index or image manifest, from the registry's answer to HEAD.
        platform: the wanted platform.

    A SIF at a URL is not fetched: its digest says what it is, and its server only how large it is.

    Raises:
        UnsupportedError: not an image that can be published, or not available for this platform.
        BlobError: a body does not match its digest.
        NotFoundError, DeniedError, UnavailableError: as the registry answers.
        SpaceError: no space left in the store.
    """
    with image_in_errors(reference):
        if is_url(reference):
            return oci.sif_image(await client.head(reference.pointing_at(None, digest)), platform)
        media_type, body = await fetch_image_manifest(client, store, reference, digest)
        if oci.kind_of(media_type, body) is oci.Kind.INDEX:
            digest = oci.choose_platform(oci.parse_index(body), platform).digest
            media_type, body = await fetch_image_manifest(client, store, reference, digest)
            if oci.kind_of(media_type, body) is not oci.Kind.MANIFEST:
                raise UnsupportedError(f"the image index has another image index in place of the image for {platform}")
        if reference.scheme:
            return oci.parse_sif(body, digest, platform)
        parsed = oci.parse_manifest(body, digest)
        config = oci.parse_config(await _fetch_config(client, store, reference, parsed.config))
        oci.check_platform(config, platform)
        return oci.join(parsed, config)


async def fetch_layers(
    client: RegistryClient, store: BlobStore, image: oci.Image, reference: Reference, progress: Progress
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the paths of an image's layers, and of their header indexes, from the bottom up; of a SIF it is the only layer.

    Missing layers are fetched, several at a time; if one fails the others are cancelled, and what they have fetched is kept.

    Args:
        client: fetches what the store does not have.
        store: keeps the layers.
        image: the image, from :func:`fetch_image`.
        reference: registry and repository of the image.
        progress: called as ``progress(done, total)``, in bytes of all layers together.

    Raises:
        LayerError: a layer is not a sound tar archive, or exceeds a limit.
        BlobError, SpaceError, NotFoundError, DeniedError, UnavailableError: as :meth:`BlobStore.layer`.
    """
    wanted = {layer.digest: layer for layer in image.manifest.layers}  # some images have one layer twice
    total = sum(layer.size for layer in wanted.values())
    done: dict[str, int] = {}

    def advance(digest: str, count: int) -> None:
        done[digest] = count
        progress(sum(done.values()), total)

    async def fetch(layer: oci.Descriptor) -> StoredLayer:
        source = functools.partial(client.blob, reference, layer)
        try:
            return await store.layer(layer, source, functools.partial(advance, layer.digest))
        except NotFoundError as error:
            if layer.is_foreign:
                reason = f"the registry does not have the layer {layer.digest}, which is of a kind that is not pushed by default"
                hint = "the image's owner has to push it again with --allow-nondistributable-artifacts"
                raise LayerError(reason, hint=hint) from error
            raise

    with image_in_errors(reference):
        stored = dict(zip(wanted, await _all_or_none([fetch(layer) for layer in wanted.values()]), strict=True))
    layers = [stored[layer.digest] for layer in image.manifest.layers]
    return tuple(layer.blob for layer in layers), () if image.is_sif else tuple(layer.index for layer in layers)


async def fetch_image_manifest(client: RegistryClient, store: BlobStore, reference: Reference, digest: str) -> tuple[str, bytes]:
    """Return Content-Type and body of an image index or image manifest; from the store, the Content-Type is ``""``.

    Raises:
        BlobError, NotFoundError, DeniedError, UnavailableError: as :meth:`RegistryClient.manifest`.
        SpaceError: no space left in the store.
    """
    stored = store.document(digest)
    if stored is not None:
        return "", stored
    media_type, body = await client.manifest(reference, digest)
    await asyncio.to_thread(store.put_document, digest, body)
    return media_type, body


async def _fetch_config(client: RegistryClient, store: BlobStore, reference: Reference, descriptor: oci.Descriptor) -> bytes:
    stored = store.document(descriptor.digest)
    if stored is not None:
        return stored
    body = bytearray()

    async def collect(chunk: bytes) -> None:
        body.extend(chunk)

    await client.blob(reference, descriptor, collect)
    await asyncio.to_thread(store.put_document, descriptor.digest, bytes(body))
    return bytes(body)


async def _all_or_none(fetches: list[Coroutine[None, None, StoredLayer]]) -> list[StoredLayer]:
    """Return the results in order; cancel the others and raise the error as soon as one fails."""
    tasks = [asyncio.ensure_future(fetch) for fetch in fetches]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
