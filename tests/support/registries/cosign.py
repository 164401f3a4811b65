"""Signatures and other attachments of images, pushed into a registry as cosign 2 and cosign 3 push them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.registries.registry import OCI, ask, describe, push_blob, push_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
IN_TOTO = "application/vnd.in-toto+json"
_SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
_EMPTY = b"{}"
_OK = 200


class PlainKey:
    """A key pair of cosign: ``pem`` is the content of cosign.pub, ``sha256`` is the key's id in the manifest."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public, form = self._key.public_key(), serialization.PublicFormat.SubjectPublicKeyInfo
        self.pem = public.public_bytes(serialization.Encoding.PEM, form).decode()
        self.sha256 = hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()

    def sign(self, payload: bytes) -> bytes:
        return self._key.sign(payload, ec.ECDSA(hashes.SHA256()))

    def bundle(self, digest: str, predicate: str = SIGN_PREDICATE) -> bytes:
        """Return the bundle that cosign 3 makes with this key."""
        content = statement(digest, predicate)
        material = {"publicKey": {"hint": self.sha256}}
        return bundle_of(content, self.sign(pae(content)), material)


def statement(digest: str, predicate: str = SIGN_PREDICATE) -> bytes:
    """Return the in-toto statement that cosign 3 signs."""
    subject = [{"name": "", "digest": {"sha256": digest.split(":")[1]}}]
    document = {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": predicate, "predicate": {}}
    return json.dumps(document).encode()


def pae(payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature of an in-toto statement is of."""
    return b"DSSEv1 %d %s %d %s" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)


def bundle_of(payload: bytes, signature: bytes, material: Mapping[str, object]) -> bytes:
    """Return a Sigstore bundle with a DSSE envelope."""
    envelope = {"payload": text(payload), "payloadType": IN_TOTO, "signatures": [{"sig": text(signature)}]}
    return json.dumps({"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def simple_payload(digest: str) -> bytes:
    """Return the payload that cosign 2 signs."""
    identity, image = {"docker-reference": "example.org/x"}, {"docker-manifest-digest": digest}
    critical = {"identity": identity, "image": image, "type": "cosign container image signature"}
    return json.dumps({"critical": critical, "optional": None}).encode()


def push_simple_signature(address: str, repository: str, digest: str, payload: bytes, signature: bytes) -> str:
    """Push a signature with cosign 2's tag; return the digest of its manifest."""
    push_blob(address, repository, payload)
    layer = {**describe(payload, _SIMPLE), "annotations": {"dev.cosignproject.cosign/signature": text(signature)}}
    return push_tagged(address, repository, f"{digest.replace(':', '-')}.sig", layer)


def push_tagged(address: str, repository: str, tag: str, layer: Mapping[str, object]) -> str:
    """Push a manifest with one layer, which the registry has, under a tag."""
    push_blob(address, repository, _EMPTY)
    config = describe(_EMPTY, OCI["config"])
    document = {"schemaVersion": 2, "mediaType": OCI["manifest"], "config": config, "layers": [layer]}
    return push_manifest(address, repository, tag, document)


def attach(address: str, repository: str, digest: str, content: bytes, *, artifact: str = BUNDLE, predicate: str = "") -> str:
    """Attach a manifest with one blob to a digest, and list it under the referrers tag, as clients of docker-registry 2 do.

    Args:
        address: ``host:port`` of the registry.
        repository: the name there.
        digest: digest of what it is attached to.
        content: the blob.
        artifact: artifact type of the manifest, and media type of the blob.
        predicate: the predicate type in cosign's annotation, if any.
    """
    for blob in (content, _EMPTY):
        push_blob(address, repository, blob)
    annotations = {"dev.sigstore.bundle.predicateType": predicate} if predicate else {}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI["manifest"],
        "artifactType": artifact,
        "config": describe(_EMPTY, "application/vnd.oci.empty.v1+json"),
        "layers": [describe(content, artifact)],
        "annotations": annotations,
    }
    attached = push_manifest(address, repository, "", document)
    size = len(json.dumps(document, indent=1).encode())
    entry = {"mediaType": OCI["manifest"], "digest": attached, "size": size, "artifactType": artifact, "annotations": annotations}
    tag = digest.replace(":", "-")
    found = ask(address, "GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": OCI["index"]})
    listed = json.loads(found.body)["manifests"] if found.status == _OK else []
    index = {"schemaVersion": 2, "mediaType": OCI["index"], "manifests": [*listed, entry]}
    push_manifest(address, repository, tag, index)
    return attached
