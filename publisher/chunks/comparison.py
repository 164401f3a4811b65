"""Compares chunk tables with SIFs and with each other. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from publisher.contract.chunk_table import ChunkTable


class TableCheck:
    """Compares a table with its SIF, which it gets in pieces.

    Args:
        table: the table.
    """

    def __init__(self, table: ChunkTable) -> None:
        self._table = table
        self.restart()

    def restart(self) -> None:
        """Forget all bytes: the SIF begins again."""
        self._number = 0
        self._left = self._table.lengths[0]
        self._chunk = hashlib.sha256()
        self._differs = False

    def update(self, data: bytes) -> None:
        """Take the next bytes of the SIF."""
        rest = memoryview(data)
        while rest and not self._differs:
            if self._number == len(self._table):
                self._differs = True
                return
            part, rest = rest[: self._left], rest[self._left :]
            self._chunk.update(part)
            self._left -= len(part)
            if not self._left:
                self._end_chunk()

    def fits(self) -> bool:
        """Return whether the bytes so far were exactly the chunks of the table."""
        return not self._differs and self._number == len(self._table)

    def _end_chunk(self) -> None:
        self._differs = self._chunk.digest() != self._table.digest(self._number)
        self._number += 1
        self._left = self._table.lengths[self._number] if self._number < len(self._table) else 0
        self._chunk = hashlib.sha256()


@dataclass(frozen=True)
class SifDifference:
    """What a host that has some SIFs needs for another one.

    Attributes:
        size: bytes of the wanted SIF.
        needed: bytes of those of its chunks that no given SIF has; each content counts once.
        ranges: number of pieces of the wanted SIF that they are, before pieces are merged.
    """

    size: int
    needed: int
    ranges: int

    def __str__(self) -> str:
        share = f"1/{self.size / self.needed:.0f}" if self.needed else "nothing"
        return f"{format_size(self.needed)} of {format_size(self.size)} ({share}), in {self.ranges} range(s)"


def difference(given: Iterable[ChunkTable], wanted: ChunkTable) -> SifDifference:
    """Return what a host with the ``given`` SIFs needs for the ``wanted`` one."""
    known = {table.digest(number) for table in given for number in range(len(table))}
    needed = ranges = 0
    before = False
    for number, length in enumerate(wanted.lengths):
        digest = wanted.digest(number)
        is_missing = digest not in known
        known.add(digest)
        needed += length if is_missing else 0
        ranges += is_missing and not before
        before = is_missing
    return SifDifference(wanted.sif_size, needed, ranges)
