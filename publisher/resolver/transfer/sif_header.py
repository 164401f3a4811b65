"""The header of a SIF (github.com/sylabs/sif, "pkg/sif"): 128 bytes, little-endian. This module is pure.

The layout: launch script (32 bytes), magic (10), version (3), architecture (3), id (16), then eight 64-bit numbers: creation
time, modification time, free descriptors, total descriptors, offset and length of the descriptors, offset and length of the data.
"""

from __future__ import annotations

HEADER_BYTES = 128
_MAGIC_AT, _MAGIC = 32, b"SIF_MAGIC\0"
_ARCH_AT = 45
_NUMBERS_AT = 64
_DESCRIPTORS, _DESCRIPTORS_LENGTH, _DATA_OFFSET, _DATA_LENGTH = 4, 5, 6, 7  # indexes of the numbers
_DESCRIPTOR_BYTES, _PARTITION, _SQUASHFS, _PRIMARY_SYSTEM = 585, 0x4004, 1, 2
_USED_AT, _OFFSET_AT, _EXTRA_AT = 4, 17, 201  # of a descriptor; the extra data of a partition are its file system and its kind
_ARCHITECTURES = {
    b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le", b"07": "mips", b"08": "mipsle",
    b"09": "mips64", b"10": "mips64le", b"11": "s390x", b"12": "riscv64",
}  # fmt: skip


class SifHeader:
    """The header of a SIF.

    Attributes:
        arch: architecture as Go names it, ``unknown`` for an unknown code.
        end: byte at which the data ends.
    """

    __slots__ = ("arch", "end")

    def __init__(self, arch: str, end: int) -> None:
        self.arch = arch
        self.end = end

    @classmethod
    def parse(cls, content: bytes) -> SifHeader | None:
        """Return the header in the first bytes of a file, or None if the file is not a SIF."""
        if len(content) < HEADER_BYTES or content[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
            return None
        arch = _ARCHITECTURES.get(content[_ARCH_AT : _ARCH_AT + 2], "unknown")
        return cls(arch, _number(content, _DATA_OFFSET) + _number(content, _DATA_LENGTH))


def squashfs_offset(content: bytes) -> int | None:
    """Return the byte at which the squashfs of the image begins; None if the file is no SIF, or its image is no squashfs.

    Args:
        content: the beginning of the file with all descriptors: 64 kB have always been enough.
    """
    if SifHeader.parse(content) is None:
        return None
    first, length = _number(content, _DESCRIPTORS), _number(content, _DESCRIPTORS_LENGTH)
    for start in range(first, min(first + length, len(content) - _DESCRIPTOR_BYTES + 1), _DESCRIPTOR_BYTES):
        one = content[start : start + _DESCRIPTOR_BYTES]
        kind = int.from_bytes(one[:4], "little")
        extra = one[_EXTRA_AT : _EXTRA_AT + 4], one[_EXTRA_AT + 4 : _EXTRA_AT + 8]
        wanted = _SQUASHFS.to_bytes(4, "little"), _PRIMARY_SYSTEM.to_bytes(4, "little")
        if one[_USED_AT] and kind == _PARTITION and extra == wanted:
            return int.from_bytes(one[_OFFSET_AT : _OFFSET_AT + 8], "little")
    return None


def _number(content: bytes, index: int) -> int:
    """Return one of the eight numbers of a header."""
    start = _NUMBERS_AT + 8 * index
    return int.from_bytes(content[start : start + 8], "little", signed=True)
