"""Finds what is attached to an image in its registry: signatures, attestations and SBOMs.

They are attached in three ways: by the referrers API (OCI distribution specification 1.1), by the referrers tag ``sha256-<hex>``
of registries without it, and by the tags of cosign 2, ``sha256-<hex>.sig``, ``.att`` and ``.sbom``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher import oci
from publisher.contract.reference import Reference
from publisher.errors import NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from publisher.registry.client import RegistryClient

SIGNATURE, ATTESTATION, SBOM, OTHER = "signature", "attestation", "sbom", "other"
MAX_ATTACHMENTS = 32
"""Attachments of an image that are recorded; whoever can push to its repository can attach any number."""
BUNDLE = "application/vnd.dev.sigstore.bundle"
"""The beginning of the media type of a Sigstore bundle, before its version."""
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""The in-toto predicate type with which cosign 3 says "this image is signed"."""
_TAG_KINDS = {".sig": SIGNATURE, ".att": ATTESTATION, ".sbom": SBOM}
_PREDICATE = "dev.sigstore.bundle.predicateType"  # the annotation by which cosign 3 tells signatures from attestations
_SIGNATURE_TYPES = ("vnd.dev.cosign.artifact.sig", "vnd.dev.cosign.simplesigning", "vnd.cncf.notary.signature")
_SBOM_WORDS = ("spdx", "cyclonedx", "syft", "sbom")
_ATTESTATION_WORDS = ("in-toto", "dsse", "slsa", BUNDLE)
_MAX_TYPE = 100  # characters


@dataclass(frozen=True, order=True)
class Attachment:
    """A manifest that is attached to an image.

    Attributes:
        digest: its digest.
        kind: :data:`SIGNATURE`, :data:`ATTESTATION`, :data:`SBOM` or :data:`OTHER`.
        type: the artifact type that its pusher gave it, or ``cosign tag .sig`` and so on.
    """

    digest: str
    kind: str
    type: str

    def to_json(self) -> dict[str, str]:
        """Return the attachment as the manifest has it."""
        return {"digest": self.digest, "kind": self.kind, "type": self.type}


async def find_attachments(client: RegistryClient, reference: Reference, digest: str) -> tuple[Attachment, ...]:
    """Return what is attached to a digest, signatures first, at most :data:`MAX_ATTACHMENTS`.

    Args:
        client: the registry client.
        reference: names registry and repository.
        digest: digest of an image index or image manifest.

    Raises:
        RegistryError, BlobError: the registry gave no usable answer.
    """
    tag = digest.replace(":", "-")
    found = await asyncio.gather(
        _referrers(client, reference, digest, tag), *(_tagged(client, reference, f"{tag}{suffix}") for suffix in _TAG_KINDS)
    )
    distinct = {attachment.digest: attachment for attachments in found for attachment in attachments}
    order = [SIGNATURE, ATTESTATION, SBOM, OTHER]
    return tuple(sorted(distinct.values(), key=lambda one: (order.index(one.kind), one))[:MAX_ATTACHMENTS])


async def _referrers(client: RegistryClient, reference: Reference, digest: str, tag: str) -> list[Attachment]:
    """Return the attachments of the referrers API; of the referrers tag if the registry has no such API."""
    pages = await client.referrers(reference, digest)
    if pages is None:
        try:
            descriptor = await client.head(Reference(reference.registry, reference.repository, tag))
            pages = [(await client.manifest(reference, descriptor.digest))[1]]
        except NotFoundError:
            return []
    return [attachment for page in pages for attachment in _parse_page(page)]


async def _tagged(client: RegistryClient, reference: Reference, tag: str) -> list[Attachment]:
    """Return the attachment with one of cosign's tags, if there is one."""
    suffix = tag[tag.index(".") :]
    try:
        descriptor = await client.head(Reference(reference.registry, reference.repository, tag))
    except NotFoundError:
        return []
    return [Attachment(descriptor.digest, _TAG_KINDS[suffix], f"cosign tag {suffix}")]


def _parse_page(body: bytes) -> Iterator[Attachment]:
    """Yield the attachments of an image index; entries that are not valid are left out, as is a body that is no index."""
    try:
        entries = oci.parse_list(
            oci.parse_object(body, oci.MANIFEST_LIMIT, "list of referrers").get("manifests"), "its manifests"
        )
    except UnsupportedError:
        return
    for entry in filter(oci.is_object, entries):
        digest, type_ = entry.get("digest"), entry.get("artifactType") or entry.get("mediaType")
        try:
            digest = oci.check_digest(digest, "a referrer")
        except UnsupportedError:
            continue
        text = type_[:_MAX_TYPE] if isinstance(type_, str) and type_.isprintable() else ""
        yield Attachment(digest, _kind(text, entry.get("annotations")), text)


def _kind(type_: str, annotations: object) -> str:
    predicate = annotations.get(_PREDICATE) if oci.is_object(annotations) else None
    is_bundle = type_.startswith(BUNDLE)
    if any(word in type_ for word in _SIGNATURE_TYPES) or (is_bundle and predicate in (None, SIGN_PREDICATE)):
        return SIGNATURE
    if _has_word(f"{type_} {predicate}", _SBOM_WORDS):
        return SBOM
    return ATTESTATION if _has_word(type_, _ATTESTATION_WORDS) else OTHER


def _has_word(text: str, words: Iterable[str]) -> bool:
    return any(word in text.lower() for word in words)
