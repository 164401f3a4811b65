"""The plan of a difference: which chunks of a SIF other SIFs of this host have, and which ranges must be fetched. Pure.

Chunks are looked up by the first eight bytes of their digests, which an ``array`` reads fast; then whole digests are compared.
"""

from __future__ import annotations

from array import array
from itertools import accumulate

from publisher.contract.chunk_table import DIGEST_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from publisher.contract.chunk_table import ChunkTable

FETCH = -1
"""The place of a chunk that must be fetched."""
ITSELF = 0
"""The number that stands for the SIF itself, in which an equal chunk comes earlier; seeds are numbered from 1 on."""
MIN_GAP = 64 << 10
"""Bytes between two ranges up to which they are one, however near the server is (docs/sif-sizes.md has the measurement)."""
_MAX_GAP = 4 << 20  # bytes
_GAP_SPEED = 6_250_000  # bytes a second: a gap that is fetched in vain takes half a round trip at 100 Mbit/s
_SPEED = 12_500_000  # bytes a second
_MIN_GAIN = 0.05  # seconds that a difference must save: it is more work
_OFFSET_BITS = 40
_WORDS = 4  # of eight bytes in a digest


class ChunkMatcher:
    """Finds the chunks of a wanted SIF in seeds: other SIFs, by their tables.

    Args:
        wanted: the table of the SIF.
    """

    def __init__(self, wanted: ChunkTable) -> None:
        self._wanted = wanted
        self._keys = keys(wanted)
        self._first = dict(zip(reversed(self._keys), range(len(wanted) - 1, -1, -1)))
        self._missing = set(self._first)
        self._found: dict[int, int] = {}

    def gain(self, table: ChunkTable) -> int:
        """Return the bytes of the SIF that are still missing and that a seed with this table has."""
        shared = self._missing.intersection(keys(table))
        return sum(self._wanted.lengths[self._first[key]] for key in shared)

    def add_seed(self, number: int, table: ChunkTable) -> None:
        """Take from a seed what is still missing.

        Args:
            number: of the seed, 1 or more.
            table: its table.
        """
        its_keys, starts, wanted = keys(table), _starts(table.lengths), self._wanted
        shared = self._missing.intersection(its_keys)
        for index, key in enumerate(its_keys):
            if key not in shared:
                continue
            first = self._first[key]
            at, there = index * DIGEST_BYTES, first * DIGEST_BYTES
            is_equal = table.digests[at : at + DIGEST_BYTES] == wanted.digests[there : there + DIGEST_BYTES]
            if is_equal and table.lengths[index] == wanted.lengths[first]:
                self._found[key] = place(number, starts[index])
                shared.discard(key)
        self._missing.difference_update(self._found)

    def places(self) -> array[int]:
        """Return the place of each chunk (see :func:`place`), or :data:`FETCH`."""
        places, starts = array("q"), _starts(self._wanted.lengths)
        for number, (key, length) in enumerate(zip(self._keys, self._wanted.lengths)):
            first = self._first[key]
            found = self._found.get(key)
            if found is None and first < number and length == self._wanted.lengths[first]:
                found = place(ITSELF, starts[first])
            if first < number and self._wanted.digest(number) != self._wanted.digest(first):
                found = None  # only the first eight bytes are equal
            places.append(FETCH if found is None else found)
        return places


def place(seed: int, start: int) -> int:
    """Return the place of a chunk that begins at byte ``start`` of a seed."""
    return seed << _OFFSET_BITS | start


def split_place(where: int) -> tuple[int, int]:
    """Return the number of the seed, and the first byte in it, of a place."""
    return where >> _OFFSET_BITS, where & (1 << _OFFSET_BITS) - 1


class Segment:
    """Neighbouring bytes of a SIF that come from one place.

    Attributes:
        start: first byte.
        stop: the byte behind the last one.
        where: the place of the first byte, or :data:`FETCH`.
    """

    __slots__ = ("start", "stop", "where")

    def __init__(self, start: int, stop: int, where: int) -> None:
        self.start = start
        self.stop = stop
        self.where = where


def segments(lengths: Iterable[int], places: Iterable[int], gap: int) -> list[Segment]:
    """Return the segments of a SIF in their order; together they are all of it.

    Args:
        lengths: of its chunks, bytes.
        places: of its chunks.
        gap: what lies between two ranges that must be fetched, and has at most so many bytes, is fetched with them.
    """
    found: list[Segment] = []
    end = 0
    fetched: int | None = None  # index of the last segment that is fetched
    for length, where in zip(lengths, places):
        last = found[-1] if found else None
        continued = last is not None and (
            last.where == FETCH if where == FETCH else last.where != FETCH and last.where + last.stop - last.start == where
        )
        if last is not None and continued:
            last.stop += length
        elif where == FETCH and fetched is not None and end - found[fetched].stop <= gap:
            del found[fetched + 1 :]
            found[fetched].stop = end + length
        else:
            if where == FETCH:
                fetched = len(found)
            found.append(Segment(end, end + length, where))
        end += length
    return found


def gap_for(round_trip: float) -> int:
    """Return the bytes between two ranges up to which one request is faster than two, at that round trip in seconds."""
    return int(min(_MAX_GAP, max(MIN_GAP, round_trip * _GAP_SPEED)))


def is_worthwhile(parts: Sequence[Segment], round_trip: float) -> bool:
    """Return whether fetching by difference saves time, with one round trip for each range."""
    saved = sum(part.stop - part.start for part in parts if part.where != FETCH)
    ranges = sum(part.where == FETCH for part in parts)
    return saved / _SPEED > ranges * round_trip + _MIN_GAIN


def keys(table: ChunkTable) -> array[int]:
    """Return the first eight bytes of each digest, as numbers."""
    return array("Q", table.digests)[::_WORDS]


def _starts(lengths: Sequence[int]) -> array[int]:
    """Return the first byte of each chunk."""
    starts = array("Q", (0,))
    starts.extend(accumulate(lengths))
    starts.pop()
    return starts
