"""The Singularity Image Format: a header written in front of a squashfs, without a second copy of the data.

The layout is that of the SIF specification as ``github.com/apptainer/sif`` version 2 writes it: a 128-byte header, a table of 48
descriptors at 4096, of which the first is used, and one data object at :data:`DATA_OFFSET`. Identifier and times, which Apptainer
would make from random numbers and the clock, are derived from the image, so that equal images are equal files.
"""

from __future__ import annotations

import os
import struct
import uuid
from typing import TYPE_CHECKING

from publisher.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

DATA_OFFSET = 32768
"""Offset of the squashfs, bytes."""

_HEADER = struct.Struct("<32s10s3s3s16sqq4q2q")
_DESCRIPTOR = struct.Struct("<iBIIIqqqqqqq128s384s")
_LAUNCH = b"#!/usr/bin/env run-singularity\n"
_TABLE_OFFSET = 4096
_DESCRIPTORS = 48
_PARTITION = 0x4004
_GROUP = 0xF0000001  # the first group: bit pattern and number
_SQUASHFS, _PRIMARY_SYSTEM = 1, 2
_ARCHITECTURES = {
    "386": b"01",
    "amd64": b"02",
    "arm": b"03",
    "arm64": b"04",
    "ppc64": b"05",
    "ppc64le": b"06",
    "mips": b"07",
    "mipsle": b"08",
    "mips64": b"09",
    "mips64le": b"10",
    "s390x": b"11",
    "riscv64": b"12",
}


def write_sif_header(path: Path, *, architecture: str, identity: bytes, epoch: int) -> None:
    """Turn a file that has a squashfs at :data:`DATA_OFFSET` into a SIF.

    Args:
        path: the file; its first bytes are overwritten.
        architecture: Go's name of the architecture.
        identity: 16 bytes or more that identify the image; they become the SIF's identifier.
        epoch: the times in the headers, seconds since the epoch.

    Raises:
        BuildError: the format has no code for the architecture, or the file has no squashfs.
    """
    arch = _ARCHITECTURES.get(architecture)
    if arch is None:
        raise BuildError(f"the SIF format has no code for the architecture {architecture}")
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(DATA_OFFSET)
        if file.read(4) != b"hsqs":
            raise BuildError(f"{path.name} has no squashfs at the offset {DATA_OFFSET}")
        file.seek(0)
        file.write(_header(arch, identity, epoch, size))
        file.seek(_TABLE_OFFSET)
        file.write(_descriptor(arch, epoch, size - DATA_OFFSET))
        file.flush()
        os.fsync(file.fileno())


def _header(arch: bytes, identity: bytes, epoch: int, end: int) -> bytes:
    identifier = uuid.UUID(bytes=identity[:16], version=4).bytes
    table = (_DESCRIPTORS - 1, _DESCRIPTORS, _TABLE_OFFSET, _DESCRIPTORS * _DESCRIPTOR.size)
    return _HEADER.pack(_LAUNCH, b"SIF_MAGIC", b"01", arch, identifier, epoch, epoch, *table, DATA_OFFSET, end - DATA_OFFSET)


def _descriptor(arch: bytes, epoch: int, size: int) -> bytes:
    extra = struct.pack("<ii3s", _SQUASHFS, _PRIMARY_SYSTEM, arch)
    extent = (DATA_OFFSET, size, size)
    return _DESCRIPTOR.pack(_PARTITION, 1, 1, _GROUP, 0, *extent, epoch, epoch, 0, 0, b"", extra)
