"""Cuts a SIF into chunks by its content (FastCDC), while its bytes pass for another purpose: no SIF is read for this alone.

The cuts depend on the library and on the three sizes. With others, a new SIF would share no chunk with earlier SIFs, so they are
no settings (docs/decisions/0047-chunk-tables.md).
"""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING

from publisher.contract.chunk_table import MAX_CHUNKS, ChunkTable, serialize

if TYPE_CHECKING:
    from pathlib import Path

MINIMUM, AVERAGE, MAXIMUM = 16 << 10, 64 << 10, 512 << 10
"""Sizes of chunks in bytes. docs/sif-sizes.md has what other averages give."""
LARGEST_SIF = 24 << 30
"""Bytes of the largest SIF that gets a table: a table has at most 32 GiB in chunks of the average size."""
_BATCH = 4 << 20  # bytes that are cut at a time
_PIECE = 1 << 20  # bytes that are read at a time


class ChunkCutter:
    """Makes the chunk table of a SIF that it gets in pieces, in constant memory but for the table itself."""

    def __init__(self) -> None:
        from pyfastcdc import FastCDC  # noqa: PLC0415 - a run in which nothing is cut starts without it

        self._fastcdc = FastCDC(AVERAGE, min_size=MINIMUM, max_size=MAXIMUM)
        self.restart()

    def restart(self) -> None:
        """Forget all bytes: the SIF begins again."""
        self._waiting: list[bytes] = []
        self._size = 0
        self._lengths = array("I")
        self._digests = bytearray()

    def update(self, data: bytes) -> None:
        """Take the next bytes of the SIF."""
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= _BATCH:
            self._cut(self._size - MAXIMUM)

    def finish(self, sha256: str) -> bytes | None:
        """Return the content of the table, after the last byte; None for a SIF that is too large for a table.

        Args:
            sha256: sha256 of the whole SIF, 64 hex digits.
        """
        self._cut(self._size)
        size = sum(self._lengths)
        if size > LARGEST_SIF or len(self._lengths) > MAX_CHUNKS:
            return None
        table = ChunkTable(
            sha256,
            size,
            minimum=MINIMUM,
            average=AVERAGE,
            maximum=MAXIMUM,
            lengths=self._lengths,
            digests=bytes(self._digests),
        )
        return serialize(table)

    def _cut(self, last: int) -> None:
        """Cut the chunks that begin at ``last`` or before: what follows can change those that begin later."""
        content, end = b"".join(self._waiting), 0
        for chunk in self._fastcdc.cut_buf(content):
            if chunk.offset > last:
                break
            self._lengths.append(chunk.length)
            self._digests += hashlib.sha256(chunk.data).digest()
            end = chunk.offset + chunk.length
        self._waiting, self._size = [content[end:]], len(content) - end


def cut_file(path: Path) -> tuple[str, bytes | None]:
    """Return the sha256 of a SIF, 64 hex digits, and the content of its chunk table as in :meth:`ChunkCutter.finish`.

    Raises OSError.
    """
    cutter, sha256 = ChunkCutter(), hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            sha256.update(data)
            cutter.update(data)
    return sha256.hexdigest(), cutter.finish(sha256.hexdigest())
