"""What registries hold: descriptors, platforms, manifests, indexes and configs, parsed and checked, without any network.

Media types and fields: OCI image specification 1.1 (manifest.md, image-index.md, config.md) and Docker's image manifest
version 2, schema 2. Sizes are bytes; digests are ``sha256:<64 hex>``.
"""

from __future__ import annotations

from dataclasses import dataclass


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
