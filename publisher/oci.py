"""What registries hold: descriptors, platforms, manifests, indexes and configs, parsed and checked, without any network.

Media types and fields: OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md, config.md) and Docker's image
manifest version 2, schema 2. Sizes are bytes; digests are ``sha256:<64 hex>``. Whatever is not a Linux image that can be
published is refused with an :class:`publisher.errors.UnsupportedError` that says why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeGuard

from publisher.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest or index; what registries accept (distribution-spec 1.1, "Pushing Manifests")."""
CONFIG_LIMIT = 8 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_SCHEMA_1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(?:json|prettyjws)")
_LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?"
)
_MISNAMED_CONFIGS = ("application/octet-stream", "application/json", "text/html", "")
"""What Docker manifests call an image's config where an old registry or tool lost its type; Docker pulls those too."""
_DEEPEST = 100  # lists and objects in each other; real configs have six
_LONGEST_WORD = 64  # characters of the parts of a platform
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}


class Kind(Enum):
    """What a manifest's body is."""

    INDEX = "index"
    MANIFEST = "manifest"


@dataclass(frozen=True, order=True)
class Platform:
    """Operating system and architecture in Go's words: ``linux/amd64``, ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True)
class Descriptor:
    """A blob or manifest: what it is, its digest, its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None


@dataclass(frozen=True)
class ImageManifest:
    """One platform's manifest: its own digest, the config, the layers from the bottom up."""

    digest: str
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class ImageConfig:
    """The image's config: platform, digests of the unpacked layers, and the very bytes (Apptainer reads those)."""

    platform: Platform
    diff_ids: tuple[str, ...]
    raw: bytes


@dataclass(frozen=True)
class Image:
    """A platform of an image as the registry has it."""

    manifest: ImageManifest
    config: ImageConfig

    @property
    def platform(self) -> Platform:
        """The platform that the config declares."""
        return self.config.platform


def kind_of(media_type: str, body: bytes) -> Kind:
    """Whether a body is an index or one image's manifest.

    Args:
        media_type: the registry's Content-Type, ``""`` where it is not known. The body's own ``mediaType`` goes before it, and
            the fields decide where neither names a known type (in OCI manifests ``mediaType`` may be missing: umoci).
        body: the manifest or index.

    Raises:
        UnsupportedError: schema 1, neither of the two, or something that could be read as both (CVE-2021-41190).
    """
    document = _parse(body, MANIFEST_LIMIT, "manifest")
    declared = document.get("mediaType", "")
    if not isinstance(declared, str):
        raise UnsupportedError("the manifest's mediaType is not a text")
    named = declared or media_type.partition(";")[0].strip()
    if _SCHEMA_1.fullmatch(named) or document.get("schemaVersion") == 1:
        raise UnsupportedError(
            "the registry has this image only as a schema 1 manifest, which Docker gave up in 2019", hint="push it again"
        )
    is_index, is_manifest = "manifests" in document, "config" in document or "layers" in document
    if is_index == is_manifest:
        what = (
            "could be read as an index and as a manifest" if is_index else f"is neither an image nor an index but {_shown(named)}"
        )
        raise UnsupportedError(f"what the registry has {what}")
    kind = Kind.INDEX if is_index else Kind.MANIFEST
    if _KINDS.get(named, kind) is not kind:
        raise UnsupportedError(f"the manifest calls itself {_shown(named)}, but its fields are those of the kind {kind.value!r}")
    return kind


_KINDS = {OCI_INDEX: Kind.INDEX, DOCKER_LIST: Kind.INDEX, OCI_MANIFEST: Kind.MANIFEST, DOCKER_MANIFEST: Kind.MANIFEST}


def parse_index(body: bytes) -> tuple[Descriptor, ...]:
    """The images in an index, in its order: attestations, other artifacts and indexes within the index are passed over.

    Raises:
        UnsupportedError: not an index, or not a sound one.
    """
    document = _parse(body, MANIFEST_LIMIT, "index")
    found = []
    for number, entry in enumerate(_list(document.get("manifests"), "the index's manifests"), 1):
        descriptor = _descriptor(entry, f"entry {number} of the index")
        is_image = descriptor.media_type in (OCI_MANIFEST, DOCKER_MANIFEST)
        if is_image and _is_object(entry) and not _is_attached(entry, descriptor.platform):
            found.append(descriptor)
    return tuple(found)


def choose_platform(descriptors: tuple[Descriptor, ...], platform: Platform) -> Descriptor:
    """The image for a platform: as containerd and Docker choose, the best variant, and of equals the first.

    A platform without a variant stands for the oldest one of its architecture (amd64 v1, arm64 v8; arm: v7). Higher variants
    than the one asked for do not run there; lower ones do. An image without a platform is taken where it is the only one, and
    its config is asked (:func:`check_platform`).

    Raises:
        UnsupportedError: none fits; the hint lists those there are.
    """
    fitting = [(rank, descriptor) for descriptor in descriptors if (rank := _rank(descriptor.platform, platform)) is not None]
    if fitting:
        return max(fitting, key=lambda pair: pair[0])[1]
    if len(descriptors) == 1 and descriptors[0].platform is None:
        return descriptors[0]
    offered = ", ".join(sorted({str(descriptor.platform or "unnamed") for descriptor in descriptors})) or "no image at all"
    raise UnsupportedError(f"the index has no image for {platform}", hint=f"it has {offered}")


def check_platform(config: ImageConfig, platform: Platform) -> None:
    """Refuse an image whose own config is of another platform than the one asked for (Apptainer takes it silently).

    Raises:
        UnsupportedError: it is.
    """
    if _rank(config.platform, platform) is None:
        raise UnsupportedError(f"the image is for {config.platform}, not for {platform}")


def parse_manifest(body: bytes, digest: str) -> ImageManifest:
    """One image's manifest; ``digest`` is that of ``body``.

    Layers that say "non-distributable" are like any other: the registry is asked for them, their ``urls`` are never followed.

    Raises:
        UnsupportedError: not an image's manifest, or not a sound one.
    """
    document = _parse(body, MANIFEST_LIMIT, "manifest")
    media_type = document.get("mediaType", OCI_MANIFEST)
    config = _descriptor(document.get("config"), "the manifest's config")
    known = (OCI_CONFIG, DOCKER_CONFIG, *(_MISNAMED_CONFIGS if media_type == DOCKER_MANIFEST else ()))
    if config.media_type not in known:
        artifact = document.get("artifactType") or config.media_type
        raise UnsupportedError(f"this is not an image but an artifact of the type {_shown(artifact)}")
    if config.size > CONFIG_LIMIT:
        raise UnsupportedError(f"the image's config has {config.size} bytes, more than {CONFIG_LIMIT} are allowed")
    layers = []
    for number, entry in enumerate(_list(document.get("layers"), "the manifest's layers"), 1):
        layer = _descriptor(entry, f"layer {number}")
        if not _LAYER.fullmatch(layer.media_type):
            raise UnsupportedError(f"layer {number} is no tar archive but {_shown(layer.media_type)}")
        layers.append(layer)
    return ImageManifest(check_digest(digest, "the manifest"), str(media_type), config, tuple(layers))


def parse_config(raw: bytes) -> ImageConfig:
    """An image's config. Other names of an architecture (``x86_64``) become Go's.

    Raises:
        UnsupportedError: not an image's config, not for Linux, or without architecture or ``rootfs.diff_ids``.
    """
    document = _parse(raw, CONFIG_LIMIT, "config")
    platform = _platform(document, "the image's config")
    if platform.os != "linux":
        raise UnsupportedError(f"the image is for the operating system {_shown(platform.os)}, not for linux")
    if not platform.architecture:
        raise UnsupportedError(
            "the image's config names no architecture", hint="set it when building the image, like linux/amd64"
        )
    rootfs = document.get("rootfs")
    if not _is_object(rootfs):
        raise UnsupportedError("the image's config has no rootfs")
    diff_ids = _list(rootfs.get("diff_ids"), "the config's rootfs.diff_ids")
    return ImageConfig(platform, tuple(check_digest(diff_id, "a diff_id of the config") for diff_id in diff_ids), raw)


def join(manifest: ImageManifest, config: ImageConfig) -> Image:
    """A manifest and its config as one image.

    Raises:
        UnsupportedError: they do not speak of the same layers.
    """
    if len(config.diff_ids) != len(manifest.layers):
        raise UnsupportedError(f"the manifest has {len(manifest.layers)} layers, its config {len(config.diff_ids)} diff_ids")
    return Image(manifest, config)


def check_digest(digest: object, what: str) -> str:
    """``digest`` itself, if it is ``sha256:<64 hex>``.

    Raises:
        UnsupportedError: it is not; sha512, which the specification allows, is refused by name.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        kind = "a sha512 digest" if str(digest).startswith("sha512:") else f"no sound digest ({_shown(digest)})"
        raise UnsupportedError(f"{what} has {kind}: only sha256:<64 hexadecimal digits> is supported")
    return digest


def _rank(offered: Platform | None, wanted: Platform) -> int | None:
    """How well the offered variant suits the wanted platform: the higher the better, None where it does not run there."""
    if offered is None or (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    here, there = _variant(offered), _variant(wanted)
    if here == there:
        return _SAME  # also variants that are not numbered
    lower, upper = _number(here), _number(there)
    return lower if 0 < lower < upper else None


_SAME = 1 << 16


def _variant(platform: Platform) -> str:
    """With containerd's defaults for one that is not named (platforms/database.go: ``normalizeArch``)."""
    return platform.variant or {"amd64": "v1", "arm64": "v8", "arm": "v7"}.get(platform.architecture, "")


def _number(variant: str) -> int:
    number = variant.removeprefix("v")
    return int(number) if number.isdecimal() and len(number) < 4 else 0  # noqa: PLR2004 - v999 is far off


def _is_attached(entry: dict[str, object], platform: Platform | None) -> bool:
    """BuildKit's attestations and other things that are about an image in the same index."""
    annotations = entry.get("annotations")
    reference_type = annotations.get("vnd.docker.reference.type") if _is_object(annotations) else None
    unknown = platform is not None and "unknown" in (platform.os, platform.architecture)
    return unknown or reference_type is not None or bool(entry.get("artifactType"))


def _descriptor(value: object, what: str) -> Descriptor:
    if not _is_object(value):
        raise UnsupportedError(f"{what} is missing or not an object")
    media_type, size, platform = value.get("mediaType", ""), value.get("size"), value.get("platform")
    if not isinstance(media_type, str):
        raise UnsupportedError(f"{what} has a mediaType that is not a text")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise UnsupportedError(f"{what} has no size in bytes")
    where = None if platform is None else _platform(platform, what)
    return Descriptor(media_type, check_digest(value.get("digest"), what), size, where)


def _platform(value: object, what: str) -> Platform:
    if not _is_object(value):
        raise UnsupportedError(f"{what} has a platform that is not an object")
    parts = [value.get(key) or "" for key in ("os", "architecture", "variant")]
    texts = [part for part in parts if isinstance(part, str) and len(part) <= _LONGEST_WORD]
    if len(texts) != len(parts):
        raise UnsupportedError(f"{what} has a platform whose parts are no short texts")
    system, architecture, variant = (text.strip().lower() for text in texts)
    return Platform(system, _ARCHITECTURES.get(architecture, architecture), variant or {"armel": "v6"}.get(architecture, ""))


def _shown(value: object) -> str:
    """A stranger's text in a message of ours."""
    return repr(value[:100]) if isinstance(value, str) and value else "nothing named"


def _list(value: object, what: str) -> list[object]:
    """Go writes an empty list as null; both are an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnsupportedError(f"{what} are not a list")
    return value


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _parse(body: bytes, limit: int, what: str) -> dict[str, object]:
    if len(body) > limit:
        raise UnsupportedError(f"the {what} has {len(body)} bytes, more than {limit} are allowed")
    try:
        document: object = json.loads(body.decode("utf-8"))
    except RecursionError:
        raise UnsupportedError(f"the {what} is JSON nested without end") from None
    except ValueError as error:
        raise UnsupportedError(f"the {what} is not JSON: {error}") from None
    if not _is_object(document):
        raise UnsupportedError(f"the {what} is not a JSON object")
    _check_depth(document, what)
    return document


def _check_depth(document: object, what: str) -> None:
    """Whoever reads or writes it later may be deeper in Python's stack than this: what passes here must pass everywhere."""
    level = [document]
    for _ in range(_DEEPEST):
        level = [child for value in level if isinstance(value, dict | list) for child in _children(value)]
    if level:
        raise UnsupportedError(f"the {what} is JSON nested without end")


def _children(value: dict[str, object] | list[object]) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value
