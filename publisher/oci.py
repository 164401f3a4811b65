"""Documents of a registry: descriptors, platforms, image manifests, indexes and configs, parsed and validated without network.

Media types and fields: OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md, config.md) and Docker's image
manifest version 2, schema 2. Sizes are bytes; digests are ``sha256:<64 hex>``. Anything but a Linux image that can be published
is refused with an :class:`publisher.errors.UnsupportedError` that says why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TypeGuard

from publisher.errors import UnsupportedError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

MANIFEST_LIMIT = 4 << 20
"""Bytes that an image manifest or index may have; registries accept as many (distribution-spec 1.1, "Pushing Manifests")."""
CONFIG_LIMIT = 8 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_SCHEMA_1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(?:json|prettyjws)")
_LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?"
)
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
"""The media type of a SIF in a registry, as ``apptainer push`` gives it (github.com/apptainer/apptainer, pkg/oras)."""
_SIF_LAYERS = (SIF_LAYER, "appliciation/vnd.sylabs.sif.layer.tar")  # the second, misspelt, is Singularity's before 3.7
_MISNAMED_CONFIGS = ("application/octet-stream", "application/json", "text/html", "")
"""Media types of an image config in Docker manifests whose real type an old registry or tool lost; Docker accepts them too."""
_MAX_DEPTH = 100  # nested lists and objects; real configs have six levels
_SAME = 1 << 16  # rank of the very variant
_MAX_PART = 64  # characters of a part of a platform
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}


class Kind(Enum):
    """The kind of document that a registry returned for a manifest."""

    INDEX = "index"
    MANIFEST = "manifest"


@dataclass(frozen=True, order=True)
class Platform:
    """An operating system and architecture with Go's names: ``linux/amd64``, ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class Descriptor:
    """A reference to a blob or manifest: its media type, digest, size in bytes, and platform if it has one."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether it is a layer of a kind that is not pushed to registries by default."""
        return ".foreign." in self.media_type or ".nondistributable." in self.media_type

    @property
    def is_sif(self) -> bool:
        """Whether it is a SIF, and not a layer of an image."""
        return self.media_type in _SIF_LAYERS


@dataclass(frozen=True)
class ImageManifest:
    """An image manifest of one platform: its own digest, its config, and its layers from the bottom up."""

    digest: str
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class ImageConfig:
    """An image config: platform, digests of the uncompressed layers, and its original bytes, which Apptainer reads."""

    platform: Platform
    diff_ids: tuple[str, ...]
    raw: bytes


@dataclass(frozen=True)
class Image:
    """An image for one platform: its manifest and its config."""

    manifest: ImageManifest
    config: ImageConfig

    @property
    def is_sif(self) -> bool:
        """Whether it is a finished SIF, which is published as it is: its only layer, and its config too, is the SIF."""
        return self.manifest.config.is_sif

    @property
    def platform(self) -> Platform:
        """The platform that the config declares."""
        return self.config.platform

    @property
    def content(self) -> str:
        """The digest of the config: it names the uncompressed layers, so that equal ones mean equal trees."""
        return self.manifest.config.digest

    @property
    def identities(self) -> frozenset[str]:
        """The digests that the image is known by: its image manifest's, and its config's."""
        return frozenset({self.manifest.digest, self.content})


def kind_of(media_type: str, body: bytes) -> Kind:
    """Return whether a body is an index or an image manifest.

    Args:
        media_type: the registry's Content-Type, ``""`` if unknown. The body's own ``mediaType`` takes precedence, and its fields
            decide if neither is a known type (``mediaType`` is optional in OCI manifests; umoci omits it).
        body: the manifest or index.

    Raises:
        UnsupportedError: the body is schema 1, neither of the two, or could be read as both (CVE-2021-41190).
    """
    document = parse_object(body, MANIFEST_LIMIT, "manifest")
    declared = document.get("mediaType", "")
    if not isinstance(declared, str):
        raise UnsupportedError("the manifest's mediaType is not a string")
    named = declared or media_type.partition(";")[0].strip()
    if _SCHEMA_1.fullmatch(named) or document.get("schemaVersion") == 1:
        raise UnsupportedError(
            "the registry has this image only as a schema 1 manifest, which Docker removed in 2019", hint="push the image again"
        )
    is_index, is_manifest = "manifests" in document, "config" in document or "layers" in document
    if is_index == is_manifest:
        both = "could be read both as an index and as an image manifest"
        neither = f"is neither an image nor an index; its type is {_shown(named)}"
        raise UnsupportedError(f"the registry's manifest {both if is_index else neither}")
    kind = Kind.INDEX if is_index else Kind.MANIFEST
    if _KINDS.get(named, kind) is not kind:
        raise UnsupportedError(f"the manifest claims to be {_shown(named)}, but its fields are those of the kind {kind.value!r}")
    return kind


_KINDS = {OCI_INDEX: Kind.INDEX, DOCKER_LIST: Kind.INDEX, OCI_MANIFEST: Kind.MANIFEST, DOCKER_MANIFEST: Kind.MANIFEST}


def parse_index(body: bytes) -> tuple[Descriptor, ...]:
    """Return the images in an index, in its order; attestations, other artifacts and nested indexes are skipped.

    Raises:
        UnsupportedError: the body is not a valid index, or has entries but no image among them.
    """
    document = parse_object(body, MANIFEST_LIMIT, "index")
    images, others = [], 0
    for number, entry in enumerate(parse_list(document.get("manifests"), "the index's manifests"), 1):
        descriptor = parse_descriptor(entry, f"entry {number} of the index")
        is_image = descriptor.media_type in (OCI_MANIFEST, DOCKER_MANIFEST)
        if is_image and is_object(entry) and not _is_attached(entry, descriptor.platform):
            images.append(descriptor)
        others += descriptor.media_type in (OCI_INDEX, DOCKER_LIST)
    if others and not images:
        raise UnsupportedError(
            "the index has other indexes and no images, which no container runtime supports",
            hint="list the image by the digest of one of them, or ask its owner to push one index of all platforms",
        )
    if document.get("manifests") and not images:
        raise UnsupportedError(
            "the index has attestations or other artifacts and no image", hint="its owner has to push the image itself again"
        )
    return tuple(images)


def choose_platform(descriptors: tuple[Descriptor, ...], platform: Platform) -> Descriptor:
    """Return the image for a platform: the best variant, and the first of equal ones, as containerd and Docker choose.

    A platform without a variant has the default of its architecture (amd64: v1, arm64: v8, arm: v7). Lower variants than the
    requested one run on it, higher ones do not. A single image without a platform is accepted; its config is checked later
    (:func:`check_platform`).

    Raises:
        UnsupportedError: no image fits; the hint lists the platforms that exist.
    """
    fitting = [(rank, descriptor) for descriptor in descriptors if (rank := _rank(descriptor.platform, platform)) is not None]
    if fitting:
        return max(fitting, key=lambda pair: pair[0])[1]
    if len(descriptors) == 1 and descriptors[0].platform is None:
        return descriptors[0]
    offered = ", ".join(sorted({str(descriptor.platform or "unnamed") for descriptor in descriptors})) or "no image at all"
    raise UnsupportedError(f"the index has no image for {platform}", hint=f"it has {offered}")


def check_platform(config: ImageConfig, platform: Platform) -> None:
    """Refuse an image whose config is for another platform than the requested one (Apptainer accepts it silently).

    Raises:
        UnsupportedError: the platforms differ.
    """
    if _rank(config.platform, platform) is None:
        hint = f"under platforms:, name {config.platform}, or ask the image's owner for one that is built for {platform}"
        raise UnsupportedError(f"the image is for {config.platform}, not for {platform}", hint=hint)


def parse_manifest(body: bytes, digest: str) -> ImageManifest:
    """Return the image manifest in ``body``, whose digest is ``digest``.

    "Non-distributable" layers are treated like others: they are fetched from the registry, and their ``urls`` are ignored.

    Raises:
        UnsupportedError: the body is not a valid image manifest.
    """
    document = parse_object(body, MANIFEST_LIMIT, "manifest")
    media_type = document.get("mediaType", OCI_MANIFEST)
    config = parse_descriptor(document.get("config"), "the manifest's config")
    known = (OCI_CONFIG, DOCKER_CONFIG, *(_MISNAMED_CONFIGS if media_type == DOCKER_MANIFEST else ()))
    if config.media_type not in known:
        artifact = document.get("artifactType") or config.media_type
        if ".sif." in str(artifact) or _has_sif(document):
            raise UnsupportedError("this is a SIF and not an image", hint="write oras:// before its reference")
        raise UnsupportedError(f"this is not an image but an artifact of the type {_shown(artifact)}")
    if config.size > CONFIG_LIMIT:
        raise UnsupportedError(f"the image's config has {config.size} bytes; the limit is {CONFIG_LIMIT}")
    layers = []
    for number, entry in enumerate(parse_list(document.get("layers"), "the manifest's layers"), 1):
        layer = parse_descriptor(entry, f"layer {number}")
        if not _LAYER.fullmatch(layer.media_type):
            hint = "the image's owner has to push it with layers that are compressed with gzip or zstd"
            raise UnsupportedError(f"layer {number} is not a tar archive but {_shown(layer.media_type)}", hint=hint)
        layers.append(layer)
    return ImageManifest(check_digest(digest, "the manifest"), str(media_type), config, tuple(layers))


def parse_sif(body: bytes, digest: str, platform: Platform) -> Image:
    """Return the SIF that ``body``, the manifest with the digest ``digest``, has as its only layer.

    Args:
        body: the manifest.
        digest: its digest.
        platform: the platform that the SIF is listed for; the SIF itself is checked when it has been fetched.

    Raises:
        UnsupportedError: the body is not a valid manifest, or not one of a SIF.
    """
    document = parse_object(body, MANIFEST_LIMIT, "manifest")
    layers = [
        parse_descriptor(entry, f"layer {number}")
        for number, entry in enumerate(parse_list(document.get("layers"), "the manifest's layers"), 1)
    ]
    if not any(layer.is_sif for layer in layers):
        what = "an image" if _LAYER.fullmatch(layers[0].media_type if layers else "") else "another artifact"
        raise UnsupportedError(f"this is {what} and not a SIF", hint="write its reference without oras://, or push a SIF")
    if len(layers) > 1:
        raise UnsupportedError(f"this artifact has {len(layers)} layers; a SIF is a single one, as apptainer push makes it")
    return sif_image(layers[0], platform, digest)


def sif_image(sif: Descriptor, platform: Platform, digest: str | None = None) -> Image:
    """Return a SIF as an image for a platform; without the digest of a manifest, the SIF's own stands for it."""
    own = Descriptor(SIF_LAYER, sif.digest, sif.size)
    manifest = ImageManifest(check_digest(digest or sif.digest, "the manifest"), OCI_MANIFEST, own, (own,))
    return Image(manifest, ImageConfig(platform, (), b"{}"))


def _has_sif(document: dict[str, object]) -> bool:
    layers = document.get("layers")
    return isinstance(layers, list) and any(is_object(layer) and layer.get("mediaType") in _SIF_LAYERS for layer in layers)


def parse_config(raw: bytes) -> ImageConfig:
    """Return the image config in ``raw``; other names of an architecture (``x86_64``) become Go's.

    Raises:
        UnsupportedError: the body is not an image config, is not for Linux, or lacks the architecture or ``rootfs.diff_ids``.
    """
    document = parse_object(raw, CONFIG_LIMIT, "config")
    platform = _platform(document, "the image's config")
    if not platform.os:
        raise UnsupportedError(
            "the image's config has no operating system", hint="its owner has to build it for a platform such as linux/amd64"
        )
    if platform.os != "linux":
        raise UnsupportedError(f"the image is for the operating system {_shown(platform.os)}, not for linux")
    if not platform.architecture:
        raise UnsupportedError(
            "the image's config has no architecture", hint="build the image for a platform such as linux/amd64"
        )
    rootfs = document.get("rootfs")
    if not is_object(rootfs):
        raise UnsupportedError("the image's config has no rootfs")
    diff_ids = parse_list(rootfs.get("diff_ids"), "the config's rootfs.diff_ids")
    return ImageConfig(platform, tuple(check_digest(diff_id, "a diff_id of the config") for diff_id in diff_ids), raw)


def join(manifest: ImageManifest, config: ImageConfig) -> Image:
    """Return the image made of a manifest and its config.

    Raises:
        UnsupportedError: they have different numbers of layers.
    """
    if len(config.diff_ids) != len(manifest.layers):
        raise UnsupportedError(f"the manifest has {len(manifest.layers)} layers, its config {len(config.diff_ids)} diff_ids")
    return Image(manifest, config)


def check_digest(digest: object, what: str) -> str:
    """Return ``digest`` if it is ``sha256:<64 hex>``; ``what`` is its owner in the error.

    Raises:
        UnsupportedError: it is not. The reason mentions sha512, which the specification allows.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        kind = "a sha512 digest" if str(digest).startswith("sha512:") else f"no valid digest ({_shown(digest)})"
        raise UnsupportedError(f"{what} has {kind}: only sha256:<64 hexadecimal digits> is supported")
    return digest


def _rank(offered: Platform | None, wanted: Platform) -> int | None:
    """Return how well an offered variant suits the wanted platform, higher is better; None if it does not run there."""
    if offered is None or (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    variant, wanted_variant = _variant(offered), _variant(wanted)
    if variant == wanted_variant:
        return _SAME  # also variants without a number
    number = _number(variant)
    return number if 0 < number < _number(wanted_variant) else None


def _variant(platform: Platform) -> str:
    """Return a platform's variant, or containerd's default for it (platforms/database.go: ``normalizeArch``)."""
    return platform.variant or {"amd64": "v1", "arm64": "v8", "arm": "v7"}.get(platform.architecture, "")


def _number(variant: str) -> int:
    number = variant.removeprefix("v")
    return int(number) if number.isdecimal() and len(number) < 4 else 0  # noqa: PLR2004 - up to v999


def _is_attached(entry: dict[str, object], platform: Platform | None) -> bool:
    """Return whether an entry describes another image of the index, like BuildKit's attestations."""
    annotations = entry.get("annotations")
    reference_type = annotations.get("vnd.docker.reference.type") if is_object(annotations) else None
    unknown = platform is not None and "unknown" in (platform.os, platform.architecture)
    return unknown or reference_type is not None or bool(entry.get("artifactType"))


def parse_descriptor(value: object, what: str) -> Descriptor:
    """Return a descriptor; ``what`` names it in the UnsupportedError that is raised if it is not valid."""
    if not is_object(value):
        raise UnsupportedError(f"{what} is missing or not an object")
    media_type, size, platform = value.get("mediaType", ""), value.get("size"), value.get("platform")
    if not isinstance(media_type, str):
        raise UnsupportedError(f"{what} has a mediaType that is not a string")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise UnsupportedError(f"{what} has no valid size")
    where = None if platform is None else _platform(platform, what)
    return Descriptor(media_type, check_digest(value.get("digest"), what), size, where)


def _platform(value: object, what: str) -> Platform:
    if not is_object(value):
        raise UnsupportedError(f"{what} has a platform that is not an object")
    parts = [value.get(key) or "" for key in ("os", "architecture", "variant")]
    texts = [part for part in parts if isinstance(part, str) and len(part) <= _MAX_PART]
    if len(texts) != len(parts):
        raise UnsupportedError(f"{what} has a platform with a part that is not a short string")
    system, architecture, variant = (text.strip().lower() for text in texts)
    return Platform(system, _ARCHITECTURES.get(architecture, architecture), variant or {"armel": "v6"}.get(architecture, ""))


def _shown(value: object) -> str:
    """Return a registry's text for use in an error message: quoted and cut."""
    return repr(value[:100]) if isinstance(value, str) and value else "unknown"


def parse_list(value: object, what: str) -> list[object]:
    """Return a value that has to be a list; null is an empty one, as Go writes it."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnsupportedError(f"{what} are not a list")
    return value


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Return whether a value of a JSON document is an object."""
    return isinstance(value, dict)


def parse_object(body: bytes, limit: int, what: str) -> dict[str, object]:
    """Return the JSON object in ``body``; raise UnsupportedError if it is none, is nested too deeply, or is too long."""
    if len(body) > limit:
        raise UnsupportedError(f"the {what} has {len(body)} bytes; the limit is {limit}")
    try:
        document: object = json.loads(body.decode("utf-8"))
    except RecursionError:
        raise UnsupportedError(f"the {what} is JSON that is nested too deeply") from None
    except ValueError as error:
        raise UnsupportedError(f"the {what} is not JSON: {error}") from None
    if not is_object(document):
        raise UnsupportedError(f"the {what} is not a JSON object")
    _check_depth(document, what)
    return document


def _check_depth(document: object, what: str) -> None:
    """Refuse deep nesting: code that reads or writes the document later may be deeper in Python's stack than the parser."""
    level = [document]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise UnsupportedError(f"the {what} is JSON that is nested too deeply")
