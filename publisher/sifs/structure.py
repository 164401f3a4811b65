"""The structure of a SIF (github.com/apptainer/sif, pkg/sif): a header, a table of descriptors, and the data that they describe.

A SIF can be published if it has one partition, a squashfs with the root file system. Definition file, labels and signatures may
stand beside it. All offsets are checked against the file before anything is read there.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from publisher.contract.units import format_size
from publisher.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = struct.Struct("<32s10s3s3s16sqq4q2q")
_DESCRIPTOR = struct.Struct("<iBIIIqqqqqqq128s384s")
_PARTITION_KIND = struct.Struct("<ii3s")
_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")  # Linux, fs/squashfs/squashfs_fs.h, squashfs_super_block
_MAGIC, _VERSION = b"SIF_MAGIC\0", b"01\0"
_MAX_DESCRIPTORS = 1024
_PARTITION, _CRYPTO_MESSAGE, _OCI_ROOT_INDEX = 0x4004, 0x4008, 0x400A
_SQUASHFS, _ENCRYPTED_SQUASHFS, _PRIMARY_SYSTEM = 1, 5, 2
_SQUASHFS_MAGIC, _SQUASHFS_MAJOR = b"hsqs", 4
_LARGEST_BLOCK = 1 << 20
_NO_TABLE = (1 << 64) - 1
_ARCHITECTURES = {
    b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le", b"07": "mips", b"08": "mipsle",
    b"09": "mips64", b"10": "mips64le", b"11": "s390x", b"12": "riscv64",
}  # fmt: skip


class SifError(BuildError):
    """A SIF that cannot be published as it is; the reason says what is wrong with it."""


@dataclass(frozen=True)
class SifStructure:
    """What the headers of a SIF say.

    Attributes:
        architecture: Go's name of the architecture that its partition is for.
        offset: byte at which the squashfs begins.
        entries: number of inodes of the squashfs.
        has_xattrs: whether files have extended attributes.
    """

    architecture: str
    offset: int
    entries: int
    has_xattrs: bool


class _Part(NamedTuple):
    """A part of the file: where it begins and ends, its kind, and what is said about a partition."""

    start: int
    end: int
    kind: int
    extra: bytes = b""


def read_structure(descriptor: int) -> SifStructure:
    """Return the structure of a SIF, once it is sound.

    Args:
        descriptor: an open file.

    Raises:
        SifError: it is no SIF, is damaged, or has something that cannot be published.
        OSError: it cannot be read.
    """
    size = os.fstat(descriptor).st_size
    header = os.pread(descriptor, _HEADER.size, 0)
    if len(header) < _HEADER.size or header[32:42] != _MAGIC:
        raise SifError("it is not a SIF: its first bytes are not those of one", hint="apptainer build makes a SIF")
    _, _, version, arch, _, _, _, _, total, table, length, data, data_length = _HEADER.unpack(header)
    if version != _VERSION:
        raise SifError(f"it is a SIF of an unknown version, {version!r}", hint="apptainer build makes one of version 01")
    if not 0 < total <= _MAX_DESCRIPTORS or length < total * _DESCRIPTOR.size or table < _HEADER.size:
        raise SifError(f"the header of the SIF is damaged: {total} descriptors in {length} bytes at {table}")
    if max(table + length, data + data_length) > size:
        end = max(table + length, data + data_length)
        raise SifError(
            f"the SIF is truncated: its header says that it has {format_size(end)}, and there are {format_size(size)}",
            hint="upload it again",
        )
    parts = [_Part(0, _HEADER.size, 0), _Part(table, table + total * _DESCRIPTOR.size, 0)]
    parts += _read_parts(os.pread(descriptor, total * _DESCRIPTOR.size, table), size)
    _check_overlaps(parts)
    partition = _only_partition(parts)
    return _read_squashfs(descriptor, partition, _architecture(partition, arch))


def squashfs_offset(descriptor: int) -> int:
    """Return the byte at which the squashfs of a SIF begins. Raises as :func:`read_structure`."""
    return read_structure(descriptor).offset


def _read_parts(table: bytes, size: int) -> list[_Part]:
    """Return the parts that the used descriptors describe."""
    parts = []
    for values in _DESCRIPTOR.iter_unpack(table):
        kind, is_used, offset, length, extra = values[0], values[1], values[5], values[6], values[-1]
        if not is_used:
            continue
        if offset < 0 or length < 0 or offset + length > size:
            raise SifError(
                f"the SIF is truncated or damaged: a descriptor has {length} bytes at {offset}, and the file has {size} bytes",
                hint="upload it again",
            )
        parts.append(_Part(offset, offset + length, kind, extra))
    return parts


def _check_overlaps(parts: Sequence[_Part]) -> None:
    ordered = sorted(part for part in parts if part.end > part.start)
    for one, other in pairwise(ordered):
        if other.start < one.end:
            raise SifError(f"the SIF is damaged: two of its parts overlap at byte {other.start}")


def _only_partition(parts: Sequence[_Part]) -> _Part:
    """Return the one partition, a squashfs with the root file system."""
    kinds = {part.kind for part in parts}
    if _OCI_ROOT_INDEX in kinds:
        raise SifError("it is an OCI-SIF, which Apptainer cannot run", hint="push its image to a registry, and list that")
    partitions = [part for part in parts if part.kind == _PARTITION]
    systems = [_PARTITION_KIND.unpack_from(part.extra)[:2] for part in partitions]
    if _CRYPTO_MESSAGE in kinds or any(system == _ENCRYPTED_SQUASHFS for system, _ in systems):
        raise SifError("the SIF is encrypted, so that no execution point can run it", hint="build it without --encrypt")
    if len(partitions) != 1:
        raise SifError(
            f"the SIF has {len(partitions)} partitions; one is needed, a squashfs",
            hint="build it without an overlay (apptainer build)",
        )
    if systems[0] != (_SQUASHFS, _PRIMARY_SYSTEM):
        raise SifError(
            "the partition of the SIF is not a squashfs with the root file system", hint="build it with apptainer build"
        )
    return partitions[0]


def _architecture(partition: _Part, in_header: bytes) -> str:
    code = _PARTITION_KIND.unpack_from(partition.extra)[2]
    known = _ARCHITECTURES.get(code[:2])
    if known is None or code[:2] != in_header[:2]:
        raise SifError(
            f"the SIF contradicts itself: its header is for the architecture {in_header!r}, its partition for {code!r}"
        )
    return known


def _read_squashfs(descriptor: int, partition: _Part, architecture: str) -> SifStructure:
    raw = os.pread(descriptor, _SUPERBLOCK.size, partition.start)
    length = partition.end - partition.start
    if len(raw) < _SUPERBLOCK.size or length < _SUPERBLOCK.size or raw[:4] != _SQUASHFS_MAGIC:
        raise SifError("the partition of the SIF has no squashfs")
    block = _SUPERBLOCK.unpack(raw)
    entries, block_size, major, used, xattrs = block[1], block[3], block[9], block[12], block[14]
    if major != _SQUASHFS_MAJOR or not 0 < block_size <= _LARGEST_BLOCK:
        raise SifError(f"the squashfs of the SIF is of version {major} with blocks of {block_size} bytes; Linux mounts version 4")
    if used > length:
        raise SifError(
            f"the SIF is truncated: its squashfs has {format_size(used)}, its partition {format_size(length)}",
            hint="upload it again",
        )
    return SifStructure(architecture, partition.start, entries, xattrs != _NO_TABLE)
