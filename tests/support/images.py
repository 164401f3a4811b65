"""Images for the builder: layers with their indexes, a config, and the manifest that names both."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from publisher.builders import BuildRequest
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest, Platform
from tests.support.layers import indexed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image(layers: Sequence[bytes], config: Mapping[str, object] | None = None, architecture: str = "amd64") -> Image:
    """An image of uncompressed layers; ``config`` is the part that says what runs."""
    diff_ids = tuple(digest(layer) for layer in layers)
    described = {
        "architecture": architecture,
        "os": "linux",
        "created": "2020-02-02T02:02:02Z",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    raw = json.dumps(described).encode()
    of_config = Descriptor("application/vnd.oci.image.config.v1+json", digest(raw), len(raw))
    of_layers = tuple(Descriptor("application/vnd.oci.image.layer.v1.tar", digest(layer), len(layer)) for layer in layers)
    manifest = ImageManifest(digest(raw + b"manifest"), "application/vnd.oci.image.manifest.v1+json", of_config, of_layers)
    return Image(manifest, ImageConfig(Platform("linux", architecture), diff_ids, raw))


def request(
    layers: Sequence[bytes], where: Path, config: Mapping[str, object] | None = None, architecture: str = "amd64"
) -> BuildRequest:
    """What the builder is asked for; blobs and indexes are written to ``where``."""
    where.mkdir(parents=True, exist_ok=True)
    blobs, indexes = indexed(layers, where)
    return BuildRequest("test/image:1", image(layers, config, architecture), tuple(blobs), tuple(indexes))
