"""SIFs as others make them, sound or not: a squashfs of a tree, with any descriptors around it."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from publisher import oci
from publisher.build.builder import BuildRequest
from tests.support.images.layers import tar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.support.images.layers import Entry

SQUASHFS, EXT3, ENCRYPTED = 1, 2, 5
SYSTEM, OVERLAY = 2, 4
DEFINITION, LABELS, PARTITION, SIGNATURE, CRYPTO_MESSAGE, OCI_ROOT_INDEX = 0x4001, 0x4003, 0x4004, 0x4005, 0x4008, 0x400A
TABLE, DATA = 4096, 36864


class Part(NamedTuple):
    """One descriptor and its data. ``at`` and ``length`` are what the descriptor says, None for the truth."""

    kind: int
    content: bytes
    extra: bytes = b""
    at: int | None = None
    length: int | None = None


def partition(content: bytes, *, system: int = SQUASHFS, use: int = SYSTEM, arch: bytes = b"02") -> Part:
    return Part(PARTITION, content, struct.pack("<ii3s", system, use, arch))


def sif(*parts: Part, arch: bytes = b"02", version: bytes = b"01", magic: bytes = b"SIF_MAGIC", total: int = 48) -> bytes:
    """Return a SIF with these parts."""
    table, data = b"", b""
    for number, part in enumerate(parts, 1):
        at = DATA + len(data) if part.at is None else part.at
        length = len(part.content) if part.length is None else part.length
        table += struct.pack(
            "<iBIIIqqqqqqq128s384s", part.kind, 1, number, 0xF0000001, 0, at, length, length, 0, 0, 0, 0, b"", part.extra
        )
        data += part.content
    numbers = (0, 0, total - len(parts), total, TABLE, total * 585, DATA, len(data))
    head = struct.pack("<32s10s3s3s16s8q", b"#!/usr/bin/env run-singularity\n", magic, version, arch, b"i" * 16, *numbers)
    return (head.ljust(TABLE, b"\0") + table).ljust(DATA, b"\0") + data


def squashfs(where: Path, entries: Iterable[Entry], *options: str) -> bytes:
    """Return a squashfs with these entries, whose tables are not compressed, so that a test can change names in it."""
    made = where / "made.squashfs"
    argv = ["mksquashfs", "-", str(made), "-tar", "-noappend", "-quiet", "-no-progress", "-noI", "-root-mode", "755", *options]
    subprocess.run(argv, input=tar(entries), check=True, capture_output=True, timeout=60)
    return made.read_bytes()


def request(content: bytes, where: Path, architecture: str = "amd64", name: str = "lab/solver:1") -> BuildRequest:
    """Return the request to publish a SIF, which is written to ``where``."""
    path = where / "fetched.sif"
    path.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    image = oci.sif_image(oci.Descriptor(oci.SIF_LAYER, digest, len(content)), oci.Platform("linux", architecture))
    return BuildRequest(name, image, (path,), ())


def manifest(content: bytes, layer_type: str = oci.SIF_LAYER) -> dict[str, object]:
    """Return the manifest that ``apptainer push`` writes for a SIF."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    empty = {"mediaType": "application/vnd.sylabs.sif.config.v1+json", "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}"}
    layers: Sequence[dict[str, object]] = [{"mediaType": layer_type, "digest": digest, "size": len(content)}]
    return {"schemaVersion": 2, "mediaType": oci.OCI_MANIFEST, "config": {**empty, "size": 2}, "layers": layers}
