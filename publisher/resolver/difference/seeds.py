"""The choice of seeds: the SIFs of this host that have the most of a wanted SIF.

What each SIF has is estimated first (:mod:`publisher.resolver.difference.ranking`), from so many tables and chunks at most; the
tables of the best ones are read once more, checked and compared exactly.
"""

from __future__ import annotations

from publisher.resolver.difference import plan, tables
from publisher.resolver.difference.assembly import DifferenceAssembly
from publisher.resolver.difference.ranking import Ranking
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.contract.chunk_table import ChunkTable

_MAX_SEEDS = 32
_MAX_TRIED = 64  # seeds whose tables are compared exactly: some cannot be opened
_MIN_SHARE = 1 / 1000  # of the wanted SIF, that a seed must add
_MAX_TABLES = 1000  # that are looked at
_MAX_CHUNKS = 8 << 20  # of all tables that are looked at: 640 GiB of SIFs, in two seconds (docs/benchmarks.md)


class Seed:
    """A SIF of this host that may be used.

    Attributes:
        sha256: its sha256, 64 hex digits.
        table_path: path of its table.
    """

    def __init__(self, sha256: str, table_path: str) -> None:
        self.sha256 = sha256
        self.table_path = table_path

    def open(self) -> int | None:
        """Protect the SIF from eviction and return a descriptor of it; None if it is not intact."""
        raise NotImplementedError

    def close(self) -> None:
        """Undo :meth:`open`."""
        raise NotImplementedError

    def report_damage(self) -> None:
        """Note that bytes of the SIF are wrong."""
        raise NotImplementedError


def prepare(table: ChunkTable, seeds: Sequence[Seed], round_trip: float) -> DifferenceAssembly | None:
    """Return how a SIF comes together from the best seeds, which are open then; None if fetching it as a whole is as good.

    Args:
        table: of the SIF.
        seeds: candidates, most promising first: only so many tables are looked at. The caller closes them.
        round_trip: seconds that a request to the place of the SIF takes at least.
    """
    matcher = plan.ChunkMatcher(table)
    used: dict[int, Seed] = {}
    opened: dict[int, int] = {}
    least = int(table.sif_size * _MIN_SHARE)
    ranking = _rank(table, seeds)
    for _ in range(_MAX_TRIED):
        index = ranking.pop()
        if index is None or len(used) == _MAX_SEEDS:
            break
        seed = seeds[index]
        its_table = _table(seed)
        if its_table is not None and matcher.gain(its_table) > least:
            descriptor = seed.open()
            if descriptor is not None:
                number = len(used) + 1
                used[number], opened[number] = seed, descriptor
                matcher.add_seed(number, its_table)
                ranking.take(index)
    places, gap = matcher.places(), plan.gap_for(round_trip)
    parts = plan.segments(table.lengths, places, gap)
    if not plan.is_worthwhile(parts, round_trip):
        log.info(
            "%s is fetched as a whole: what %d SIFs of this host have is not worth the requests", table.sif_sha256, len(used)
        )
        return None
    return DifferenceAssembly(table, places, opened, gap, lambda number: used[number].report_damage())


def _rank(wanted: ChunkTable, seeds: Sequence[Seed]) -> Ranking:
    """Return the seeds by what they have, as far as their tables may be looked at."""
    ranking = Ranking(wanted, _MIN_SHARE)
    looked_at = 0
    for index, seed in enumerate(seeds[:_MAX_TABLES]):
        table = _table(seed, checked=False)
        if table is not None:
            looked_at += len(table)
            if looked_at > _MAX_CHUNKS:
                break
            ranking.add(index, table)
    return ranking


def _table(seed: Seed, *, checked: bool = True) -> ChunkTable | None:
    table = tables.read(seed.table_path, checked=checked)
    return table if table is not None and table.sif_sha256 == seed.sha256 else None
