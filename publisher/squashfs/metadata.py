"""Metadata of a squashfs: everything but the contents of files lies in blocks of 8 KiB, each compressed by itself."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Compress = Callable[[bytes], bytes | None]

BLOCK = 8192
_STORED = 0x8000
_LENGTH = struct.Struct("<H")


class MetadataWriter:
    """A table that grows at its end, in memory.

    Args:
        compress: returns a block compressed, None if it would not become smaller.
    """

    def __init__(self, compress: Compress) -> None:
        self._compress = compress
        self._blocks = bytearray()  # what is compressed
        self._rest = bytearray()  # what follows it

    @property
    def place(self) -> tuple[int, int]:
        """Return where the next byte will be: offset of its block, and where in the block's content.

        The last block may be full, or more than full: :meth:`pack` moves on to the next.
        """
        return len(self._blocks), len(self._rest)

    def append(self, data: bytes | bytearray) -> None:
        """Append to the table."""
        self._rest += data

    def pack(self) -> None:
        """Compress the blocks that are full."""
        while len(self._rest) >= BLOCK:
            self.pack_one()

    def pack_one(self) -> None:
        """Compress the first block that is not compressed, full or not."""
        self._blocks += packed(bytes(self._rest[:BLOCK]), self._compress)
        del self._rest[:BLOCK]

    def finish(self) -> bytes:
        """Return the whole table as it is on the disk."""
        while self._rest:
            self.pack_one()
        return bytes(self._blocks)


def packed(block: bytes, compress: Compress) -> bytes:
    """Return a metadata block as it is on the disk, with its length in front."""
    data = compress(block)
    return _LENGTH.pack(len(block) | _STORED) + block if data is None else _LENGTH.pack(len(data)) + data


def placed_table(content: bytes, start: int, compress: Compress, trailer: bytes = b"") -> tuple[bytes, int]:
    """Return a table of fixed entries as it is on the disk, and its place: that of the list of its blocks' offsets.

    Args:
        content: the entries.
        start: offset in the squashfs where the table will be.
        compress: as of :class:`MetadataWriter`.
        trailer: what comes between the blocks and the list of their offsets, not compressed; the place is its own then.
    """
    out, offsets = bytearray(), []
    for position in range(0, len(content), BLOCK):
        offsets.append(start + len(out))
        out += packed(content[position : position + BLOCK], compress)
    place = start + len(out)
    return bytes(out) + trailer + struct.pack(f"<{len(offsets)}Q", *offsets), place
