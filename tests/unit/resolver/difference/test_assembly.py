"""SIFs put together from seeds and ranges of servers that misbehave: the right bytes, or a named error."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.difference.assembly import DifferenceAssembly
from publisher.resolver.difference.plan import ChunkMatcher
from publisher.resolver.errors import CorruptError, FetchError
from publisher.resolver.transfer.fetch import Traffic, fetch
from publisher.resolver.transfer.hashing import FileHasher
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.partial import PartialFile
from publisher.resolver.transfer.sources import NetworkOptions
from tests.support.ep.chunked import BLOCK, content_of, table_of
from tests.support.ep.execution_point import sif_of
from tests.support.osdf.faulty_cache import FAULTS, STATUSES, FaultyServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.contract.chunk_table import ChunkTable
    from publisher.contract.records import Sif

OLD = content_of("a", "b", "c", "d", "e", "f")
NEW = content_of("a", "new", "c", "d", "newer", "f")
SIF = sif_of(NEW)
PATH = f"/{SIF.path}"
RANGES = [f"bytes={start}-{start + BLOCK - 1}" for start in (2 * BLOCK, 5 * BLOCK)]
LASTING = ("trickling", "slow-head", "stalled", "silent")
"""Faults that only a timeout ends."""


class Host:
    """A host with an older SIF, and two servers of the new one."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.first, self.second = (stack.enter_context(FaultyServer({PATH: NEW})) for _ in range(2))
        self.network = NetworkOptions(str(root), silence=0.3)
        self.part, self.seed = root / "x.part", root / "seed"
        self.damaged: list[int] = []
        self.traffic = Traffic()
        self.seed.write_bytes(OLD)

    def fetch(
        self, *addresses: str, sif: Sif = SIF, table: ChunkTable | None = None, seed_table: ChunkTable | None = None
    ) -> str:
        table = table or table_of(NEW)
        matcher = ChunkMatcher(table)
        matcher.add_seed(1, seed_table or table_of(OLD))
        descriptor = os.open(self.seed, os.O_RDONLY)
        assembly = DifferenceAssembly(table, matcher.places(), {1: descriptor}, 0, self.damaged.append)
        sources = [open_source(address, self.network) for address in addresses or (self.first.url, self.second.url)]
        try:
            return fetch(sources, sif, str(self.part), assembly=assembly, traffic=self.traffic)
        finally:
            os.close(descriptor)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with ExitStack() as stack:
        yield Host(tmp_path, stack)


def test_only_what_differs_is_fetched_in_closed_ranges(host: Host) -> None:
    assert host.fetch() == host.first.url
    assert host.part.read_bytes() == NEW
    assert host.first.ranges == RANGES
    assert (host.traffic.received, host.traffic.copied) == (2 * BLOCK, 5 * BLOCK)
    assert (host.second.asked, host.damaged) == ([], [])


def test_what_was_written_is_not_read_again_for_its_hash(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    hash_chunk, reads = FileHasher._hash_chunk, []

    def noted(hasher: FileHasher) -> bool:
        reads.append(hash_chunk(hasher))
        return reads[-1]

    monkeypatch.setattr(FileHasher, "_hash_chunk", noted)
    host.fetch()
    assert host.part.read_bytes() == NEW
    assert not any(reads)


def test_a_directory_serves_ranges(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "origin" / SIF.path
    path.parent.mkdir(parents=True)
    path.write_bytes(NEW)
    host.fetch(str(tmp_path / "origin"))
    assert host.part.read_bytes() == NEW
    assert host.traffic.received == 2 * BLOCK


@pytest.mark.parametrize("kept", [3 * BLOCK, 3 * BLOCK + 77], ids=["between chunks", "within a chunk"])
def test_what_a_killed_attempt_left_is_continued_chunk_by_chunk(host: Host, kept: int) -> None:
    host.part.write_bytes(NEW[:kept])
    host.fetch()
    assert host.part.read_bytes() == NEW
    assert host.first.ranges == RANGES[1:]
    assert (host.traffic.received, host.traffic.copied) == (BLOCK, 3 * BLOCK)


def test_a_wrong_beginning_that_was_left_is_found_and_replaced(host: Host) -> None:
    host.part.write_bytes(bytes(BLOCK) + NEW[BLOCK : 3 * BLOCK])
    host.fetch()
    assert host.part.read_bytes() == NEW
    assert host.first.ranges == [RANGES[1], f"bytes=0-{BLOCK - 1}", *RANGES]


def test_damaged_chunks_of_a_seed_are_found_and_fetched(host: Host) -> None:
    host.seed.write_bytes(OLD[: 3 * BLOCK + 5] + b"!" + OLD[3 * BLOCK + 6 :])
    host.fetch()
    assert host.part.read_bytes() == NEW
    assert host.first.ranges == [*RANGES, f"bytes={3 * BLOCK}-{4 * BLOCK - 1}", RANGES[1]]
    assert host.damaged == [1]


@pytest.mark.parametrize("size", [0, 3 * BLOCK + 77], ids=["empty", "shorter"])
def test_a_seed_that_ends_early_is_left(host: Host, size: int) -> None:
    host.seed.write_bytes(OLD[:size])
    host.fetch()
    assert host.part.read_bytes() == NEW
    assert host.damaged == [1]
    assert host.traffic.copied + host.traffic.received >= len(NEW)


def test_a_seed_that_cannot_be_read_is_left(host: Host) -> None:
    host.seed.unlink()
    host.seed.mkdir()  # reading it fails with EISDIR
    host.fetch()
    assert host.part.read_bytes() == NEW
    assert (host.damaged, host.traffic.copied) == ([1], 0)


def test_a_table_of_a_seed_that_lies_costs_bytes_and_no_more(host: Host) -> None:
    table = table_of(OLD)
    table.digests = table_of(NEW).digests
    host.fetch(seed_table=table)
    assert host.part.read_bytes() == NEW
    assert host.damaged == [1]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in LASTING])
def test_after_a_faulty_server_the_next_one_gives_the_rest(host: Host, fault: str) -> None:
    host.first.always = fault
    assert host.fetch() == (host.first.url if fault == "corrupted" else host.second.url)  # its wrong byte is in no range
    assert host.part.read_bytes() == NEW


@pytest.mark.parametrize("fault", ["stalled", "silent"])
def test_after_a_silent_server_the_next_one_gives_the_rest(host: Host, fault: str) -> None:
    host.first.always = fault
    assert host.fetch() == host.second.url
    assert host.part.read_bytes() == NEW


def test_a_server_that_ignores_ranges_is_asked_for_the_whole(host: Host) -> None:
    host.first.always = "whole"
    assert host.fetch(host.first.url) == host.first.url
    assert host.part.read_bytes() == NEW
    assert host.first.ranges[0] == RANGES[0]


@pytest.mark.parametrize("fault", ["shifted", "longer", "short", "empty", "reset", "garbage", *STATUSES])
def test_a_single_faulty_server_is_a_named_error(host: Host, fault: str) -> None:
    host.first.always = fault
    with pytest.raises(FetchError, match="cannot fetch the SIF"):
        host.fetch(host.first.url)


def test_a_table_whose_digests_are_wrong_leads_to_the_whole(host: Host) -> None:
    table = table_of(NEW)
    table.digests = table.digests[: 2 * 32] + bytes(32) + table.digests[3 * 32 :]
    host.fetch(table=table)
    assert host.part.read_bytes() == NEW


def test_a_table_that_matches_what_a_server_has_but_not_the_sif_leads_to_the_whole(host: Host) -> None:
    """The cache has a mix of old and new bytes, and the table is made of it."""
    mixed = NEW[: 5 * BLOCK] + OLD[5 * BLOCK :]
    host.first.objects[PATH] = mixed
    assert host.fetch(table=table_of(mixed)) == host.second.url
    assert host.part.read_bytes() == NEW


def test_wrong_bytes_of_the_only_server_are_an_error(host: Host) -> None:
    host.first.objects[PATH] = OLD[: 5 * BLOCK] + NEW[5 * BLOCK :]
    with pytest.raises(CorruptError):
        host.fetch(host.first.url)
    assert not host.part.exists() or host.part.read_bytes() != NEW


def test_copies_that_are_wrong_each_time_end_with_the_whole(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five copies, of which another one is wrong after each repair."""
    copy, calls = PartialFile.copy, iter(range(100))

    def damaged(part: PartialFile, descriptor: int, start: int, count: int) -> int:
        if next(calls) in (0, 5, 9, 12):  # the first one after the start and after each repair
            part.add(bytes(count))
            return count
        return copy(part, descriptor, start, count)

    new = content_of(*("a1", "b", "a2", "c", "a3", "d", "a4", "e"))
    host.first.objects[f"/{sif_of(new).path}"] = new
    host.seed.write_bytes(content_of("b", "c", "d", "e"))
    monkeypatch.setattr(PartialFile, "copy", damaged)
    monkeypatch.setattr(
        "publisher.resolver.transfer.hashing.FileHasher.set_size", lambda self, size: setattr(self, "_size", size)
    )
    host.fetch(host.first.url, sif=sif_of(new), table=table_of(new), seed_table=table_of(host.seed.read_bytes()))
    assert host.part.read_bytes() == new
    assert host.first.ranges[-1] == ""
