"""The order in which SIFs of this host are tried as seeds, by a sample of the wanted SIF's chunks. Pure.

A sample of some thousand chunks says well enough who has most of a SIF, and takes far less time than looking for all of them.
"""

from __future__ import annotations

from heapq import heappop, heappush

from publisher.resolver.difference import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.contract.chunk_table import ChunkTable

_SAMPLE = 4096  # chunks


class Ranking:
    """SIFs by how much each adds to those that were taken.

    Args:
        wanted: the table of the wanted SIF.
        least: share of the wanted SIF that a SIF must add.
    """

    def __init__(self, wanted: ChunkTable, least: float) -> None:
        keys = plan.keys(wanted)
        self._sample = tuple(keys[:: -(-len(keys) // _SAMPLE)])
        self._sampled = frozenset(self._sample)
        self._least = int(len(self._sample) * least)
        self._missing = _mask(b"\1" * len(self._sample))
        self._masks: dict[int, int] = {}  # which chunks of the sample a SIF has
        self._heap: list[tuple[int, int]] = []

    def add(self, number: int, table: ChunkTable) -> None:
        """Add a SIF, under a number, by its table, of which only the digests are looked at."""
        has = self._sampled.intersection(plan.keys(table))
        if has:
            self._masks[number] = _mask(bytes(map(has.__contains__, self._sample)))
            heappush(self._heap, (-self._gain(number), number))

    def pop(self) -> int | None:
        """Return and remove the number of the SIF that adds most, the first of several; None if none adds enough."""
        while self._heap:
            _, number = heappop(self._heap)
            gain = self._gain(number)  # less than before if others were taken meanwhile
            if gain > self._least:
                if not self._heap or (-gain, number) <= self._heap[0]:
                    return number
                heappush(self._heap, (-gain, number))
        return None

    def take(self, number: int) -> None:
        """Take what a SIF has: others add only what it does not have."""
        self._missing &= ~self._masks[number]

    def _gain(self, number: int) -> int:
        """Return how many chunks of the sample that are still missing a SIF has."""
        return bin(self._masks[number] & self._missing).count("1")


def _mask(has: bytes) -> int:
    """Return a number with a bit for each byte that is 1."""
    return int.from_bytes(has, "big")
