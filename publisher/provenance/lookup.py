"""Looks up the provenance of an image: what is attached to it, and whether the signer that its entry requires has signed it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher import oci
from publisher.errors import BlobError, PublisherError, RegistryError, SignatureError, UnavailableError
from publisher.provenance import claims
from publisher.provenance.attachments import BUNDLE, SIGNATURE, find_attachments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from publisher.contract.reference import Reference
    from publisher.images.reader import Entry
    from publisher.images.signer import RequiredSigner
    from publisher.oci import Descriptor, Platform
    from publisher.provenance.attachments import Attachment
    from publisher.provenance.sigstore_bundle import BundleVerifier
    from publisher.registry.client import RegistryClient

_log = logging.getLogger(__name__)

_SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIMPLE_SIGNATURE = "dev.cosignproject.cosign/signature"
_MAX_LAYERS = 32  # signatures in one attached manifest that are tried; cosign 2 appends to it with every signing


@dataclass(frozen=True)
class Provenance:
    """The provenance of an image for one platform.

    Attributes:
        attached: what is attached to the image, or to the image index that it was chosen from.
        signer: whose signature was verified, None if none was required.
    """

    attached: tuple[Attachment, ...] = ()
    signer: RequiredSigner | None = None

    @property
    def signed(self) -> dict[str, str] | None:
        """Return the signer as the manifest has it."""
        return None if self.signer is None else self.signer.to_json()


async def look_up(
    client: RegistryClient, verifier: BundleVerifier, entry: Entry, digest: str, digests: Mapping[Platform, str]
) -> dict[Platform, Provenance]:
    """Return the provenance of each platform of an entry; empty if the registry does not say and no signature is required.

    A signature of the image index counts for each image in it.

    Args:
        client: the registry client.
        verifier: verifies bundles.
        entry: the entry.
        digest: digest of its tag.
        digests: platform -> digest of its image manifest.

    Raises:
        SignatureError: an image is not signed by the entry's signer.
        UnavailableError: the registry does not say what is attached, and a signature is required.
        UsageError: signatures cannot be verified on this host.
    """
    subjects = list(dict.fromkeys((digest, *digests.values())))
    try:
        found = await asyncio.gather(*(find_attachments(client, entry.reference, subject) for subject in subjects))
    except PublisherError as error:
        if entry.signer is not None:
            raise UnavailableError(f"its signatures are unknown: {error.reason}", hint=error.hint) from error
        _log.info("%s: what is attached to the image is unknown: %s", entry.name, error)
        return {}
    attached = dict(zip(subjects, found, strict=True))
    if entry.signer is not None:
        signatures = _Signatures(client, verifier, entry.reference, entry.signer)
        await _require(signatures, attached, digest, digests)
    return {
        platform: Provenance(tuple(dict.fromkeys((*attached[digest], *attached[own]))), entry.signer)
        for platform, own in digests.items()
    }


async def _require(
    signatures: _Signatures, attached: Mapping[str, Sequence[Attachment]], digest: str, digests: Mapping[Platform, str]
) -> None:
    """Raise SignatureError unless the signer has signed the index, or the image of every platform."""
    try:
        await signatures.verify(digest, attached[digest])
    except SignatureError:
        if set(digests.values()) == {digest}:
            raise
        for own in sorted(set(digests.values()) - {digest}):
            await signatures.verify(own, attached[own])


class _Signatures:
    """The signatures in one repository of a registry, and the signer that must have made one."""

    def __init__(self, client: RegistryClient, verifier: BundleVerifier, reference: Reference, signer: RequiredSigner) -> None:
        self._client = client
        self._verifier = verifier
        self._reference = reference
        self._signer = signer

    async def verify(self, digest: str, attached: Iterable[Attachment]) -> None:
        """Return if one of the attached signatures is the signer's signature of a digest.

        Raises:
            SignatureError: none is; the reason says why the last one that was tried is not.
            UnavailableError: a signature could not be fetched, and no other is the signer's.
            UsageError: signatures cannot be verified on this host.
        """
        problem: PublisherError = SignatureError("nothing that is attached to it is a signature")
        for attachment in attached:
            if attachment.kind != SIGNATURE:
                continue
            try:
                await self._verify_attachment(digest, attachment)
            except (SignatureError, RegistryError, BlobError) as error:
                problem = problem if isinstance(problem, UnavailableError) else error
            else:
                return
        if isinstance(problem, UnavailableError):
            raise problem
        short = digest.removeprefix("sha256:")[:12]
        raise SignatureError(
            f"the image {short} is not signed by {self._signer}: {problem.reason}", hint="sign it, or correct signed_by"
        ) from problem

    async def _verify_attachment(self, digest: str, attachment: Attachment) -> None:
        """Raise SignatureError unless one of the signatures in an attached manifest is the signer's."""
        _, body = await self._client.manifest(self._reference, attachment.digest)
        problem = SignatureError(f"a signature of the type {attachment.type!r} cannot be verified here")
        for layer, notes in _layers(body)[:_MAX_LAYERS]:
            try:
                if layer.media_type == _SIMPLE:
                    await self._verify_simple(digest, layer, notes.get(_SIMPLE_SIGNATURE))
                elif layer.media_type.startswith(BUNDLE):
                    await self._verify_bundle(digest, layer)
                else:
                    continue
            except SignatureError as error:
                problem = error
            else:
                return
        raise problem

    async def _verify_simple(self, digest: str, layer: Descriptor, signature: object) -> None:
        if not self._signer.public_key:
            text = "it has only a signature of cosign 2, which lacks the inclusion proof that sigstore's library asks for"
            raise SignatureError(text)
        payload = await self._fetch(layer)
        if not claims.is_signature_by(self._signer.public_key, payload, claims.decode(signature)):
            raise SignatureError("its signature is by another key")
        claims.check_simple(payload, digest)

    async def _verify_bundle(self, digest: str, layer: Descriptor) -> None:
        bundle = await self._fetch(layer)
        if self._signer.public_key:
            envelope = claims.envelope_of(bundle)
            signed, key = envelope.signed_bytes(), self._signer.public_key
            if not any(claims.is_signature_by(key, signed, signature) for signature in envelope.signatures):
                raise SignatureError("its signature is by another key")
            payload_type, payload = envelope.payload_type, envelope.payload
        else:
            payload_type, payload = await asyncio.to_thread(
                self._verifier.payload, bundle, self._signer.identity, self._signer.issuer
            )
        claims.check_statement(payload_type, payload, digest)

    async def _fetch(self, layer: Descriptor) -> bytes:
        """Return the content of a layer. Raise SignatureError if it is too long, BlobError if it does not match its digest."""
        if layer.size > claims.MAX_BYTES:
            raise SignatureError(f"a signature has {layer.size} bytes; the limit is {claims.MAX_BYTES}")
        content = bytearray()

        async def collect(chunk: bytes) -> None:
            content.extend(chunk)

        await self._client.blob(self._reference, layer, collect)
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != layer.digest:
            raise BlobError(f"the registry sent a signature that does not match {layer.digest}")
        return bytes(content)


def _layers(body: bytes) -> list[tuple[Descriptor, Mapping[str, object]]]:
    """Return the layers of an attached manifest, each with its annotations. Raise UnsupportedError if it is no manifest."""
    document = oci.parse_object(body, oci.MANIFEST_LIMIT, "signature")
    layers: list[tuple[Descriptor, Mapping[str, object]]] = []
    for number, entry in enumerate(oci.parse_list(document.get("layers"), "the signature's layers"), 1):
        descriptor = oci.parse_descriptor(entry, f"layer {number} of a signature")
        annotations = entry.get("annotations") if oci.is_object(entry) else None
        layers.append((descriptor, annotations if oci.is_object(annotations) else {}))
    return layers
