"""A SIF put together in its order: what other SIFs of this host have is copied, ranges are fetched between.

What comes from the network is checked chunk by chunk before it is written. What is copied is checked with the whole, by the
sha256 of the SIF, which is computed meanwhile: so each byte is hashed once. Only if that is wrong, the chunks are hashed, and
those that are wrong are fetched. The file is always a beginning of the SIF, so a later attempt continues it, by whatever way.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from itertools import accumulate

from publisher.resolver.difference.plan import FETCH, ITSELF, segments, split_place
from publisher.resolver.errors import CorruptError, FetchError
from publisher.resolver.system import log
from publisher.resolver.transfer.partial import Assembly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from publisher.contract.chunk_table import ChunkTable
    from publisher.resolver.transfer.partial import PartialFile
    from publisher.resolver.transfer.watchdog import TransferDeadline

_COPY = 16 << 20  # bytes that are copied between two looks at the clock
_MAX_REPAIRS = 3  # after which the SIF is fetched as a whole: what this host has changes all the time


class DifferenceAssembly(Assembly):
    """The assembly of one SIF.

    Args:
        table: of the SIF.
        places: of its chunks (:mod:`publisher.resolver.difference.plan`).
        seeds: number -> open descriptor of each seed.
        gap: as for :func:`publisher.resolver.difference.plan.segments`.
        on_damaged: called with the number of each seed whose bytes were wrong.

    Attributes:
        is_whole: whether it has been given up: nothing is copied any more.
    """

    def __init__(
        self,
        table: ChunkTable,
        places: array[int],
        seeds: Mapping[int, int],
        gap: int,
        on_damaged: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.is_whole = False
        self._table = table
        self._places = places
        self._seeds = seeds
        self._gap = gap
        self._on_damaged = on_damaged
        self._ends = array("Q", accumulate(table.lengths))
        self._pending = bytearray()
        self._repairs = 0
        self._plan()

    def begin(self, part: PartialFile) -> None:
        """Discard a chunk that an earlier attempt left incomplete."""
        if part.size < self._table.sif_size:
            start = self._start(self._number(part.size))
            if start != part.size:
                part.keep(start)

    def advance(self, part: PartialFile, deadline: TransferDeadline) -> int | None:
        """Append what this host has; see :meth:`Assembly.advance`. Raise FetchError if the time runs out."""
        self._pending = bytearray()
        while not self.is_whole and part.size < self._table.sif_size:
            segment = self._segments[bisect_right(self._starts, part.size) - 1]
            if segment.where == FETCH:
                return segment.stop
            seed, start = split_place(segment.where)
            count = min(_COPY, segment.stop - part.size)
            descriptor = part.descriptor if seed == ITSELF else self._seeds[seed]
            copied = part.copy(descriptor, start + part.size - segment.start, count)
            deadline.add(copied)
            if copied < count:
                self._leave(seed, part)
            if deadline.left() < 0:
                raise FetchError("copying what this host has was not done in time")
        return None if self.is_whole else self._table.sif_size

    def add(self, part: PartialFile, piece: bytes | memoryview) -> None:
        """Append the chunks that are complete with this piece. Raise CorruptError if one does not match its digest."""
        if self.is_whole:
            part.add(piece)
            return
        with memoryview(piece) as view:
            used = self._complete_pending(part, view)
            if not self._pending:
                with view[used:] as rest:
                    used += self._append_chunks(part, rest)
            self._pending += view[used:]

    def _complete_pending(self, part: PartialFile, piece: memoryview) -> int:
        """Append the chunk that earlier pieces began, if this one completes it; return how many of its bytes were used."""
        if not self._pending:
            return 0
        number = self._number(part.size)
        count = self._table.lengths[number] - len(self._pending)
        if count > len(piece):
            return 0
        chunk, self._pending = self._pending + piece[:count], bytearray()
        self._check(number, chunk)
        part.append(chunk)
        return count

    def _append_chunks(self, part: PartialFile, piece: memoryview) -> int:
        """Append the chunks that are whole in a piece, up to a wrong one; return how many bytes they have."""
        number, used = self._number(part.size), 0
        try:
            while number < len(self._table) and used + self._table.lengths[number] <= len(piece):
                with piece[used : used + self._table.lengths[number]] as chunk:
                    self._check(number, chunk)
                used += self._table.lengths[number]
                number += 1
        finally:
            part.append(piece[:used])
        return used

    def _check(self, number: int, chunk: bytearray | memoryview) -> None:
        """Raise CorruptError unless these are the bytes of a chunk."""
        if hashlib.sha256(chunk).digest() != self._table.digest(number):
            where = f"the {len(chunk)} bytes from byte {self._start(number)} on"
            raise CorruptError(f"{where} do not match their sha256 in the chunk table")

    def find_intact(self, part: PartialFile) -> int:
        """Return how many bytes at the beginning are right, and plan to fetch each wrong chunk; 0 if that makes no sense."""
        self._repairs += 1
        wrong = [] if self.is_whole or self._repairs > _MAX_REPAIRS else [*filter(self._is_wrong(part), range(len(self._table)))]
        if not wrong:
            log.info("the chunks of %s make no SIF with its sha256, so it is fetched as a whole", self._table.sif_sha256)
            self.is_whole = True
            return 0
        for seed in {split_place(self._places[number])[0] for number in wrong if self._places[number] != FETCH}:
            if seed != ITSELF:
                self._on_damaged(seed)
        for number in wrong:
            self._places[number] = FETCH
        log.info("%d chunks of what this host has are damaged, so they are fetched", len(wrong))
        self._plan()
        return self._start(wrong[0])

    def _plan(self) -> None:
        self._segments = segments(self._table.lengths, self._places, self._gap)
        self._starts = array("Q", (segment.start for segment in self._segments))

    def _is_wrong(self, part: PartialFile) -> Callable[[int], bool]:
        def is_wrong(number: int) -> bool:
            content = part.read(self._start(number), self._table.lengths[number])
            return hashlib.sha256(content).digest() != self._table.digest(number)

        return is_wrong

    def _leave(self, seed: int, part: PartialFile) -> None:
        """Take nothing more from a seed, which is shorter than its table says or cannot be read."""
        if seed != ITSELF:
            self._on_damaged(seed)
        for number, where in enumerate(self._places):
            if where != FETCH and split_place(where)[0] == seed:
                self._places[number] = FETCH
        self._plan()
        self.begin(part)

    def _number(self, position: int) -> int:
        """Return the number of the chunk that has a byte of the SIF."""
        return bisect_right(self._ends, position)

    def _start(self, number: int) -> int:
        """Return the first byte of a chunk."""
        return int(self._ends[number] - self._table.lengths[number])
