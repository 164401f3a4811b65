"""SIFs with chunk tables, made without the publisher: contents of blocks, each of which is a chunk; and a near network."""

from __future__ import annotations

import hashlib
from itertools import accumulate
from typing import TYPE_CHECKING

from publisher.contract.chunk_table import ChunkTable, serialize
from publisher.contract.records import Chunks, Sif
from publisher.resolver.transfer.sources import NetworkOptions
from tests.support.ep.execution_point import sif_content

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 16 << 10


class Near(NetworkOptions):
    """A network whose servers are near, however busy this machine is."""

    @property
    def round_trip(self) -> float:
        return 1e-9

    @round_trip.setter
    def round_trip(self, _: float) -> None:
        pass


def block(name: str) -> bytes:
    """Return a block of bytes that follow from its name."""
    return hashlib.shake_128(name.encode()).digest(BLOCK)


def content_of(*names: str) -> bytes:
    """Return a file that the resolver takes for a SIF: a first block that all have, and the blocks with these names."""
    return sif_content("family", BLOCK) + b"".join(map(block, names))


def table_of(content: bytes, lengths: Iterable[int] = ()) -> ChunkTable:
    """Return the table of a SIF that is cut into blocks, or into chunks of these lengths."""
    cut = list(lengths) or [min(BLOCK, len(content) - start) for start in range(0, len(content), BLOCK)]
    starts = accumulate([0, *cut[:-1]])
    digests = b"".join(hashlib.sha256(content[start : start + length]).digest() for start, length in zip(starts, cut))
    sha256 = hashlib.sha256(content).hexdigest()
    return ChunkTable(sha256, len(content), minimum=1, average=BLOCK, maximum=1 << 20, lengths=cut, digests=digests)


def with_table(content: bytes, table: bytes | None = None) -> tuple[Sif, dict[str, bytes]]:
    """Return a SIF whose record names its table, and both objects of the origin; ``table`` is what is stored instead."""
    stored = serialize(table_of(content)) if table is None else table
    chunks = Chunks(hashlib.sha256(stored).hexdigest(), len(stored))
    sha256 = hashlib.sha256(content).hexdigest()
    sif = Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, len(content), chunks)
    return sif, {sif.path: content, chunks.path: stored}
