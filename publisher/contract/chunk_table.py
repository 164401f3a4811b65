"""Chunk tables: the content-defined chunks of one SIF, so that an execution point fetches only those that it does not have.

The publisher makes a table for each SIF and stores it beside the SIF; the SIF's record names it
(:class:`publisher.contract.records.Chunks`). A chunk ends where the content says so, and so two SIFs that share most of their
bytes share most of their chunks. ``docs/manifest.md`` describes the format for other readers.
"""

from __future__ import annotations

import struct
import sys
from array import array

from publisher.contract.errors import ChunkTableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"SIFCHUNK"
VERSION = 1
MAX_CHUNKS = 1 << 19
"""Number of chunks of one table: 32 GiB in chunks of 64 KiB, in a table of 19 MB."""
MAX_CHUNK_BYTES = 16 << 20
"""The largest ``maximum`` of a table: a reader holds one chunk in memory."""
DIGEST_BYTES = 32
_LENGTH_BYTES = 4
_HEADER = struct.Struct("<8sHHIIIIQ32s")
HEADER_BYTES = _HEADER.size
MAX_HEADER_BYTES = 1024
MAX_TABLE_BYTES = MAX_HEADER_BYTES + MAX_CHUNKS * (_LENGTH_BYTES + DIGEST_BYTES)
"""Bytes of the largest table that a reader accepts."""


class ChunkTable:
    """The chunks of one SIF, in their order: together they are the whole SIF.

    Attributes:
        sif_sha256: sha256 of the SIF, 64 hex digits.
        sif_size: size of the SIF in bytes.
        minimum: bytes that every chunk but the last one has at least.
        average: bytes of a chunk on average, as it was asked for.
        maximum: bytes that no chunk exceeds.
        lengths: bytes of each chunk, an ``array('I')``.
        digests: the sha256 of each chunk, 32 bytes each, without anything between them.
    """

    __slots__ = ("average", "digests", "lengths", "maximum", "minimum", "sif_sha256", "sif_size")

    def __init__(
        self,
        sif_sha256: str,
        sif_size: int,
        *,
        minimum: int,
        average: int,
        maximum: int,
        lengths: Iterable[int],
        digests: bytes,
    ) -> None:
        self.sif_sha256 = sif_sha256
        self.sif_size = sif_size
        self.minimum = minimum
        self.average = average
        self.maximum = maximum
        self.lengths = lengths if isinstance(lengths, array) else array("I", lengths)
        self.digests = digests

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.lengths)

    def digest(self, number: int) -> bytes:
        """Return the sha256, 32 bytes, of a chunk by its number, which begins with 0."""
        return self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]

    def check(self) -> None:
        """Raise ChunkTableError unless the chunks can be those of the SIF: numbers, lengths, and their sum."""
        if not 0 < self.minimum <= self.average <= self.maximum <= MAX_CHUNK_BYTES:
            raise ChunkTableError(f"the sizes of its chunks are {self.minimum}, {self.average} and {self.maximum}")
        if not 0 < len(self) <= MAX_CHUNKS:
            raise ChunkTableError(f"it has {len(self)} chunks, not 1 to {MAX_CHUNKS}")
        if len(self.digests) != len(self) * DIGEST_BYTES:
            raise ChunkTableError(f"it has {len(self)} chunks, and {len(self.digests)} bytes of their digests")
        if self.lengths[-1] == 0 or max(self.lengths) > self.maximum:
            raise ChunkTableError(f"a chunk is empty or has more than {self.maximum} bytes")
        if min(self.lengths[:-1], default=self.minimum) < self.minimum:
            raise ChunkTableError(f"a chunk before the last one has less than {self.minimum} bytes")
        if sum(self.lengths) != self.sif_size:
            raise ChunkTableError(f"its chunks have {sum(self.lengths)} bytes, its SIF {self.sif_size}")


def parse_chunk_table(content: bytes, *, checked: bool = True) -> ChunkTable:
    """Return the table that the content of an object is.

    Args:
        content: at most :data:`MAX_TABLE_BYTES` of it need to be read: more cannot be a table.
        checked: whether the chunks are checked too, which takes most of the time; else only their number is.

    Raises:
        ChunkTableError: the content is not a chunk table of a known version, or its chunks cannot be those of its SIF.
    """
    if len(content) < HEADER_BYTES:
        raise ChunkTableError(f"it has {len(content)} bytes, less than a header of {HEADER_BYTES}")
    magic, version, header, minimum, average, maximum, count, size, sha256 = _HEADER.unpack_from(content)
    if magic != MAGIC or version != VERSION:
        raise ChunkTableError("it is not a chunk table of version 1")
    if not HEADER_BYTES <= header <= MAX_HEADER_BYTES:
        raise ChunkTableError(f"its header has {header} bytes, not {HEADER_BYTES} to {MAX_HEADER_BYTES}")
    if count > MAX_CHUNKS:
        raise ChunkTableError(f"it has {count} chunks, more than {MAX_CHUNKS}")
    digests = header + count * _LENGTH_BYTES
    if len(content) != digests + count * DIGEST_BYTES:
        raise ChunkTableError(f"it has {len(content)} bytes, which is not right for {count} chunks")
    table = ChunkTable(
        sha256.hex(),
        size,
        minimum=minimum,
        average=average,
        maximum=maximum,
        lengths=_little_endian(array("I", content[header:digests])),
        digests=content[digests:],
    )
    if checked:
        table.check()
    return table


def serialize(table: ChunkTable) -> bytes:
    """Return the content of a table's object, which is always the same for the same table.

    Raises:
        ChunkTableError: the table would not be accepted by :func:`parse_chunk_table`.
    """
    table.check()
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        table.minimum,
        table.average,
        table.maximum,
        len(table),
        table.sif_size,
        bytes.fromhex(table.sif_sha256),
    )
    return b"".join((header, _little_endian(array("I", table.lengths)).tobytes(), table.digests))


def _little_endian(numbers: array[int]) -> array[int]:
    """Return the numbers with their bytes in the other order on a big-endian machine, as they are on all others."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
