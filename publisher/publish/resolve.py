"""Resolves the references of entries: one HEAD for each, and a GET for an image index or image that was not seen before.

An image that only the publisher's credentials or mirrors can reach is refused, unless both its entry and the operator allow
private images.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher import oci
from publisher.errors import DeniedError, NotFoundError, RegistryError, UnavailableError, UnsupportedError
from publisher.images import tag_order
from publisher.images.sif_sources import is_url
from publisher.images.variant import ImageVariant, plain
from publisher.plan.model import ResolvedReference
from publisher.provenance.lookup import look_up
from publisher.publish.fetch import fetch_image, fetch_image_manifest
from publisher.state.paths import platform_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from publisher.contract.records import Record, Version
    from publisher.contract.reference import Reference
    from publisher.images.reader import Entry
    from publisher.oci import Platform
    from publisher.provenance.sigstore_bundle import BundleVerifier
    from publisher.registry.blobs.store import BlobStore
    from publisher.registry.client import RegistryClient


class Resolver:
    """The connections that references are resolved with.

    Args:
        client: the registry client, with credentials and mirrors.
        public: a registry client without either, which sees what everybody can see.
        store: keeps image indexes, image manifests and configs.
        verifier: verifies the signatures that entries require.
        private_images: the operator allows private images, where their entries say so too.
    """

    def __init__(
        self,
        client: RegistryClient,
        public: RegistryClient,
        store: BlobStore,
        verifier: BundleVerifier,
        *,
        private_images: bool,
    ) -> None:
        self._client = client
        self._public = public
        self._store = store
        self._verifier = verifier
        self._private_images = private_images

    async def resolve(self, entry: Entry, record: Record | None) -> ResolvedReference:
        """Return what an entry's reference means now, with the provenance of images that are new or not verified yet.

        Args:
            entry: the entry.
            record: the published record of its name, None where there is none: what is known is not asked again.

        Raises:
            DeniedError: it is private, and not allowed to be.
            SignatureError: it is not signed by the signer that the entry requires.
            UnsupportedError: it is not an image that can be published, or not for any wanted platform.
            UsageError: required signatures cannot be verified on this host.
            BlobError, NotFoundError, UnavailableError, SpaceError: as :func:`publisher.publish.fetch.fetch_image_manifest`.
        """
        current = _current_versions(record, entry.platforms)
        if not any(isinstance(platform, ImageVariant) for platform in entry.platforms):
            return await self._resolve_part(entry, None if record is None else record.digest, current)
        found: dict[Reference, ResolvedReference] = {}
        gone: list[NotFoundError] = []
        for part in entry.parts():
            of_part = (platform for platform in current if entry.reference_for(platform) == part.reference)
            try:
                found[part.reference] = await self._resolve_part(part, None, {plain(one): current[one] for one in of_part})
            except NotFoundError as error:
                gone.append(error)
        if gone and not found:
            raise gone[0]
        if gone:
            raise UnavailableError(f"a variant is gone: {gone[0].reason}", hint="list another image in its place, or remove it")
        return _join(entry, found)

    async def _resolve_part(self, entry: Entry, known: str | None, current: Mapping[Platform, Version]) -> ResolvedReference:
        """Return what a reference means now, with provenance.

        Args:
            entry: the entry, whose platforms have no conditions.
            known: the digest that the reference had when it was last published, None if that is not known.
            current: platform -> the version that is published.
        """
        resolved = await self._resolve(entry, known, {platform: version.digest for platform, version in current.items()})
        if is_url(entry.reference) or all(
            _is_verified(entry, current.get(platform), digest) for platform, digest in resolved.digests.items()
        ):
            return resolved
        found = await look_up(self._client, self._verifier, entry, resolved.digest, resolved.digests)
        return replace(resolved, provenance=found)

    async def _resolve(self, entry: Entry, known: str | None, current: Mapping[Platform, str]) -> ResolvedReference:
        """Return what a reference means now, without provenance; ``current`` has the published digests."""
        reference = entry.reference
        digest = reference.digest or (await self._client.head(reference)).digest
        if set(current.values()) == {digest} and len(current) == len(entry.platforms):
            return ResolvedReference(digest, current)  # not an index: the image manifest that is published
        if known != digest:
            await self._check_public(entry)
        if is_url(reference):
            return await self._resolve_file(entry, digest)
        try:
            media_type, body = await fetch_image_manifest(self._client, self._store, reference, digest)
            if oci.kind_of(media_type, body) is oci.Kind.INDEX:
                return await self._resolve_index(entry, digest, oci.parse_index(body), current)
            return await self._resolve_single(entry, digest)
        except NotFoundError as error:
            if reference.digest is not None and self._store.document(digest) is None:
                raise
            raise UnavailableError(f"{reference.registry} has the tag, but not the image behind it: {error.reason}") from error

    async def _resolve_file(self, entry: Entry, digest: str) -> ResolvedReference:
        """Return the resolved reference of a SIF at a URL. Its server's 404 removes nothing: files and servers come and go."""
        try:
            return await self._resolve_single(entry, digest)
        except NotFoundError as error:
            raise UnavailableError(error.reason, hint="put the SIF there again, or change its entry") from error

    async def inspect(self, entry: Entry) -> list[oci.Image]:
        """Return an image for each platform of an entry, fetched anonymously unless the entry may be private.

        Raises:
            SignatureError: the image is not signed by the signer that the entry requires.
            UsageError: required signatures cannot be verified on this host.
            RegistryError, BlobError, SpaceError: as :func:`publisher.publish.fetch.fetch_image`.
        """
        return [image for part in entry.parts() for image in await self._inspect(part)]

    async def _inspect(self, entry: Entry) -> list[oci.Image]:
        """Return an image for each platform of an entry whose platforms have no conditions; see :meth:`inspect`."""
        client = self._client if entry.private and self._private_images else self._public
        digest = entry.reference.digest or await _find_digest(client, entry.reference)
        images = [await fetch_image(client, self._store, entry.reference, digest, platform) for platform in entry.platforms]
        if entry.signer is not None:
            digests = {platform: image.manifest.digest for platform, image in zip(entry.platforms, images, strict=True)}
            await look_up(client, self._verifier, entry, digest, digests)
        return images

    async def image_manifests(self, entry: Entry, resolved: ResolvedReference) -> dict[Platform, oci.ImageManifest]:
        """Return platform -> image manifest of a resolved reference.

        Raises:
            RegistryError, BlobError, SpaceError: as :func:`publisher.publish.fetch.fetch_image_manifest`.
        """
        manifests = {}
        for platform, digest in resolved.digests.items():
            reference = entry.reference_for(platform)
            if reference.scheme:
                image = await fetch_image(self._client, self._store, reference, digest, plain(platform))
                manifests[platform] = image.manifest
                continue
            _, body = await fetch_image_manifest(self._client, self._store, reference, digest)
            manifests[platform] = oci.parse_manifest(body, digest)
        return manifests

    async def _resolve_single(self, entry: Entry, digest: str) -> ResolvedReference:
        """Return the resolved reference of a tag that means one image manifest: its config says for which platform."""
        errors = []
        for platform in entry.platforms:
            try:
                image = await fetch_image(self._client, self._store, entry.reference, digest, platform)
            except UnsupportedError as error:
                errors.append(error)
            else:
                return ResolvedReference(digest, {platform: digest}, (str(image.platform),), configs={platform: image.content})
        raise errors[0]

    async def _resolve_index(
        self, entry: Entry, digest: str, descriptors: tuple[oci.Descriptor, ...], current: Mapping[Platform, str]
    ) -> ResolvedReference:
        """Return the resolved reference of an image index; manifests and configs of images that are not current are read."""
        digests, configs = {}, {}
        for platform in entry.platforms:
            with contextlib.suppress(UnsupportedError):
                digests[platform] = oci.choose_platform(descriptors, platform).digest
        for platform, manifest in digests.items():
            if current.get(platform) == manifest:
                continue
            image = await fetch_image(self._client, self._store, entry.reference, manifest, platform)
            if image.manifest.digest != manifest:
                raise UnsupportedError(f"the image index has another image index in place of the image for {platform}")
            configs[platform] = image.content
        offered = sorted({str(descriptor.platform) for descriptor in descriptors if descriptor.platform is not None})
        return ResolvedReference(digest, digests, tuple(offered), configs=configs)

    async def _check_public(self, entry: Entry) -> None:
        """Raise if only our credentials or a mirror let us see an image.

        Raises:
            DeniedError: it is private, and not both the list and the operator allow that.
            UnavailableError: the registry does not answer.
        """
        if (entry.private and self._private_images) or not await self._client.sees_private_images(entry.reference):
            return
        try:
            await self._public.head(entry.reference)
        except (DeniedError, NotFoundError) as error:
            hint = "make it public; or its entry needs private: allowed, and the operator's settings private_images: allowed"
            if entry.private:
                hint = "its entry allows that, but the operator's settings also need private_images: allowed"
            raise DeniedError(f"it cannot be pulled anonymously: {error.reason}", hint=hint) from None


async def _find_digest(client: RegistryClient, reference: Reference) -> str:
    """Return the digest of a tag; the error for a missing one says whether its repository exists, and which tags are similar."""
    try:
        return (await client.head(reference)).digest
    except NotFoundError as missing:
        try:
            tags = await client.tags(reference)
        except NotFoundError:
            reason = f"{reference.registry} has no repository {reference.repository}"
            raise NotFoundError(reason, hint="check its name") from missing
        except RegistryError:
            raise missing from None
        reason = f"{reference.registry} has the repository {reference.repository}, but not the tag {reference.tag}"
        raise NotFoundError(reason, hint=_tag_advice(reference.tag or "", tags)) from missing


def _tag_advice(tag: str, tags: Sequence[str]) -> str:
    """Return which tags may have been meant: similar ones, else the newest."""
    if not tags:
        return "it has no tags"
    similar = difflib.get_close_matches(tag, tags, 3, 0.6)
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    return f"its newest tags are {', '.join(sorted(tags, key=tag_order.key('version'), reverse=True)[:5])}"


def _join(entry: Entry, found: Mapping[Reference, ResolvedReference]) -> ResolvedReference:
    """Return what the name of a family means: the images of its variants, and one digest for all of them together."""
    answers = [(platform, plain(platform), found[entry.reference_for(platform)]) for platform in entry.platforms]
    digests = {platform: answer.digests[own] for platform, own, answer in answers if own in answer.digests}
    together = "".join(f"{platform}={digest}\n" for platform, digest in digests.items())
    return ResolvedReference(
        f"sha256:{hashlib.sha256(together.encode()).hexdigest()}",
        digests,
        tuple(dict.fromkeys(offered for answer in found.values() for offered in answer.offered)),
        provenance={platform: answer.provenance[own] for platform, own, answer in answers if own in answer.provenance},
        configs={platform: answer.configs[own] for platform, own, answer in answers if own in answer.configs},
    )


def _current_versions(record: Record | None, platforms: Iterable[Platform]) -> dict[Platform, Version]:
    """Return platform -> the version that is current under a name."""
    if record is None:
        return {}
    current = {platform: record.current(platform_key(platform)) for platform in platforms}
    return {platform: version for platform, version in current.items() if version is not None}


def _is_verified(entry: Entry, current: Version | None, digest: str) -> bool:
    """Return whether an image is published with the signature that its entry requires, if it requires any."""
    if current is None or current.digest != digest:
        return False
    return entry.signer is None or current.signed == entry.signer.to_json()
