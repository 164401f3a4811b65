"""The order of seeds, and how little is read for it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from publisher.contract.chunk_table import ChunkTable, serialize
from publisher.resolver.difference import seeds, tables
from publisher.resolver.difference.ranking import Ranking
from publisher.resolver.difference.seeds import Seed, prepare

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LENGTH = 64 << 10


def table(numbers: Iterable[int]) -> ChunkTable:
    digests = b"".join(hashlib.sha256(b"%d" % number).digest() for number in numbers)
    count = len(digests) // 32
    sha256 = hashlib.sha256(digests).hexdigest()
    lengths = [LENGTH] * count
    return ChunkTable(sha256, LENGTH * count, minimum=1, average=LENGTH, maximum=LENGTH, lengths=lengths, digests=digests)


def order(wanted: ChunkTable, *given: Iterable[int], taken: bool = True) -> list[int]:
    ranking = Ranking(wanted, 0.001)
    for number, numbers in enumerate(given):
        ranking.add(number, table(numbers))
    found = []
    while (best := ranking.pop()) is not None:
        found.append(best)
        if taken:
            ranking.take(best)
    return found


def test_who_adds_most_comes_first_and_who_adds_nothing_does_not_come() -> None:
    wanted = table(range(100))
    given = (range(40), range(20, 100), range(60), range(1000, 1100), range(10))
    assert order(wanted, *given) == [1, 0], "1 has most; then 0 and 2 add the same 20, and 0 is used more recently"
    assert order(wanted, *given, taken=False) == [1, 2, 0, 4]


def test_a_sample_of_a_large_sif_gives_the_same_order() -> None:
    wanted = table(range(20_000))
    assert order(wanted, range(5_000), range(12_000), range(10_000, 20_000), range(3)) == [1, 2]


class CachedSeed(Seed):
    """A seed whose SIF is there; it notes that it was opened."""

    def __init__(self, sha256: str, table_path: str, opened: list[str]) -> None:
        super().__init__(sha256, table_path)
        self._opened = opened
        self.is_there = True

    def open(self) -> int | None:
        self._opened.append(self.sha256)
        return 0 if self.is_there else None


class Host:
    """A host with 500 SIFs, each of which has another 30 of a hundred chunks; the tables that are read are noted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.read: list[bool] = []
        self.seeds = []
        for number in range(500):
            each = table([*range(number % 71, number % 71 + 30), 1000 + number])
            path = root / each.sif_sha256
            path.write_bytes(serialize(each))
            self.seeds.append(CachedSeed(each.sif_sha256, str(path), self.opened))
        read = tables.read

        def noted(path: str, *, checked: bool = True) -> ChunkTable | None:
            self.read.append(checked)
            return read(path, checked=checked)

        monkeypatch.setattr(tables, "read", noted)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_of_five_hundred_sifs_the_tables_of_those_that_are_used_alone_are_read_twice(host: Host) -> None:
    assert prepare(table(range(100)), host.seeds, 0.0) is not None
    assert host.read.count(False) == 500
    assert host.read.count(True) == len(host.opened)
    assert 4 <= len(host.opened) < 10


def test_so_many_tables_are_looked_at_and_no_more(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "_MAX_TABLES", 7)
    prepare(table(range(100)), host.seeds, 0.0)
    assert host.read.count(False) == 7


def test_so_many_chunks_are_looked_at_and_no_more(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "_MAX_CHUNKS", 31 * 20)
    prepare(table(range(100)), host.seeds, 0.0)
    assert host.read.count(False) == 21, "that of the last one is not used"


def test_sifs_that_are_gone_are_passed_by_but_not_without_end(host: Host) -> None:
    for seed in host.seeds[:-1]:
        seed.is_there = False
    prepare(table(range(100)), host.seeds, 0.0)
    assert host.read.count(True) == len(host.opened) == 64
