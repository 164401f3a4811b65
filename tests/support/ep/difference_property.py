"""What holds for every difference, whatever the tables, the seed and the servers are: the right bytes, or a named error."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from publisher.contract.chunk_table import DIGEST_BYTES, ChunkTable
from publisher.contract.errors import ChunkTableError
from publisher.resolver.difference.assembly import DifferenceAssembly
from publisher.resolver.difference.plan import FETCH, ChunkMatcher, segments
from publisher.resolver.errors import AbsentError, FetchError, RangeError
from publisher.resolver.transfer.fetch import fetch
from publisher.resolver.transfer.sources import Source
from tests.support.ep.chunked import table_of
from tests.support.ep.execution_point import sif_content, sif_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Optional

NEW = sif_content("new", 3000)
SIF = sif_of(NEW)
_END = 0


class Choices:
    """Decisions that a sequence of bytes makes; when they have come to an end, each is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def below(self, limit: int) -> int:
        return next(self._data, _END) % limit

    def number(self) -> int:
        return self.below(256) << 8 | self.below(256)


class Server(Source):
    """A server that answers as the choices say: mostly right."""

    def __init__(self, choices: Choices) -> None:
        super().__init__("a server")
        self._choices = choices

    def stream(
        self, name: str, start: int, size: Optional[int], deadline: object = None, stop: Optional[int] = None
    ) -> Iterator[bytes]:
        del name, deadline
        fault, end = self._choices.below(10), stop or size or 0
        body = NEW[start:end]
        if fault == 1:
            raise AbsentError("gone")
        if fault == 2 and stop is not None:
            raise RangeError("the server ignores ranges")
        if fault == 3:
            body = body[: self._choices.number()]
        elif fault == 4:
            body += b"more"
        elif fault == 5:
            body = bytes(len(body))
        elif fault == 6 and body:
            at = self._choices.number() % len(body)
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        while body:
            count = 1 + self._choices.number()
            yield body[:count]
            body = body[count:]
        if fault == 7:
            raise FetchError("the connection broke")


def difference(data: bytes, scratch: Path) -> None:
    """Put a SIF together from a seed and two servers, all as ``data`` says, and check what comes of it."""
    choices = Choices(data)
    seed = b"".join(NEW[start : start + choices.number()] for start in (choices.number() for _ in range(choices.below(6))))
    wanted, given = _table(NEW, choices), _table(seed, choices) if seed else None
    with contextlib.suppress(ChunkTableError):
        wanted.check()
        matcher = ChunkMatcher(wanted)
        if given is not None:
            given.check()
            matcher.add_seed(1, given)
        if wanted.sif_size == len(NEW):  # the resolver refuses any other one
            _assemble(wanted, matcher, seed[: len(seed) - choices.below(3)], choices, scratch)


def _assemble(wanted: ChunkTable, matcher: ChunkMatcher, seed: bytes, choices: Choices, scratch: Path) -> None:
    places, gap = matcher.places(), choices.number()
    parts = segments(wanted.lengths, places, gap)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == len(NEW)
    assert all(part.where == FETCH or part.where >= 0 for part in parts)
    part, seed_file = scratch / "part", scratch / "seed"
    seed_file.write_bytes(seed)
    part.write_bytes((NEW if choices.below(2) else bytes(len(NEW)))[: choices.number()])
    descriptor = os.open(seed_file, os.O_RDONLY)
    try:
        fetch(
            [Server(choices), Server(choices)], SIF, str(part), assembly=DifferenceAssembly(wanted, places, {1: descriptor}, gap)
        )
    except FetchError:
        assert not part.exists() or part.stat().st_size < len(NEW) or part.read_bytes() == NEW
    else:
        assert part.read_bytes() == NEW
    finally:
        os.close(descriptor)


def _table(content: bytes, choices: Choices) -> ChunkTable:
    """Return the table of a content in some chunks, with some lies in it."""
    lengths, left = [], len(content)
    while left:
        lengths.append(min(left, 40 + choices.below(4) * 100 + choices.below(64)))
        left -= lengths[-1]
    table = table_of(content, lengths)
    digests = bytearray(table.digests)
    for _ in range(choices.below(4)):
        one, other = (choices.number() % len(lengths) for _ in range(2))
        kind = choices.below(5)
        if kind == 1:
            table.lengths[one], table.lengths[other] = table.lengths[other], table.lengths[one]
        elif kind == 2:
            table.lengths[one] = choices.number()
        elif kind == 3:
            digests[one * DIGEST_BYTES : (one + 1) * DIGEST_BYTES] = table.digest(other)
        elif kind == 4:
            digests[one * DIGEST_BYTES + choices.below(DIGEST_BYTES)] ^= 1
    table.digests = bytes(digests)
    return table
