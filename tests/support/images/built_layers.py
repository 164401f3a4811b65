"""Images for the builder: layers with their indexes, a config and an image manifest."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING

from publisher.build.builder import BuildRequest
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest, Platform
from tests.support.images.layers import indexed, layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image(layers: Sequence[bytes], config: Mapping[str, object] | None = None, architecture: str = "amd64") -> Image:
    """Return an image of layers, compressed or not; ``config`` is the object with environment and command."""
    diff_ids = tuple(digest(gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer) for layer in layers)
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


def layout_of(asked: BuildRequest, layers: Sequence[bytes], where: Path) -> Path:
    """Write an OCI layout of an image with its own config and return its path."""
    made = layout(layers, where)
    blobs = made / "blobs" / "sha256"
    config = asked.image.config.raw
    manifest = json.loads((made / "index.json").read_bytes())["manifests"][0]
    content = json.loads((blobs / manifest["digest"].removeprefix("sha256:")).read_bytes())
    content["config"] |= {"digest": digest(config), "size": len(config)}
    raw = json.dumps(content).encode()
    for blob in (config, raw):
        (blobs / digest(blob).removeprefix("sha256:")).write_bytes(blob)
    described = {"schemaVersion": 2, "manifests": [manifest | {"digest": digest(raw), "size": len(raw)}]}
    (made / "index.json").write_text(json.dumps(described))
    return made


def request(
    layers: Sequence[bytes], where: Path, config: Mapping[str, object] | None = None, architecture: str = "amd64"
) -> BuildRequest:
    """Return a build request; blobs and indexes are written to ``where``."""
    where.mkdir(parents=True, exist_ok=True)
    blobs, indexes = indexed(layers, where)
    return BuildRequest("test/image:1", image(layers, config, architecture), tuple(blobs), tuple(indexes))
