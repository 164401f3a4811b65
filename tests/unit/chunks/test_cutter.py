from __future__ import annotations

import hashlib
from random import Random
from typing import TYPE_CHECKING

import pytest

from publisher.chunks import cutter
from publisher.chunks.comparison import SifDifference, TableCheck, difference
from publisher.chunks.cutter import AVERAGE, MAXIMUM, MINIMUM, ChunkCutter, cut_file
from publisher.contract.chunk_table import ChunkTable, parse_chunk_table

if TYPE_CHECKING:
    from pathlib import Path

SIF = Random(1).randbytes(12 << 20) + bytes(2 << 20) + Random(2).randbytes(1 << 20)


def cut(content: bytes, *pieces: int) -> ChunkTable:
    """The table of a content that comes in pieces of these sizes, over and over."""
    used = ChunkCutter()
    start = number = 0
    while start < len(content):
        size = pieces[number % len(pieces)] if pieces else len(content)
        used.update(content[start : start + size])
        start, number = start + size, number + 1
    table = used.finish(hashlib.sha256(content).hexdigest())
    assert table is not None
    return parse_chunk_table(table)


def test_the_chunks_are_the_sif() -> None:
    table = cut(SIF)
    start = 0
    for number, length in enumerate(table.lengths):
        assert table.digest(number) == hashlib.sha256(SIF[start : start + length]).digest()
        start += length
    assert start == len(SIF)
    assert (table.minimum, table.average, table.maximum) == (MINIMUM, AVERAGE, MAXIMUM)
    assert max(table.lengths) == MAXIMUM, "zeros have no boundary"


@pytest.mark.parametrize("pieces", [(1 << 20,), (4096,), (1 << 24,), (3, 65_537, 5 << 20)])
def test_the_table_does_not_depend_on_the_pieces_that_the_sif_comes_in(pieces: tuple[int, ...]) -> None:
    assert cut(SIF, *pieces).digests == cut(SIF).digests


def test_the_cuts_are_those_of_every_publisher_before() -> None:
    """Another library or other sizes would make all chunks new to hosts that have earlier SIFs."""
    digests = cut(SIF).digests
    assert hashlib.sha256(digests).hexdigest() == "b3204ba97d2511e48f7f15e83102aaf91eca30cb3ddf15e55f491621c26e0764"


def test_a_table_is_small() -> None:
    used = ChunkCutter()
    used.update(Random(3).randbytes(32 << 20))
    table = used.finish("ab" * 32)
    assert table is not None
    assert len(table) <= (32 << 20) / 1000


def test_a_sif_that_begins_again_is_cut_anew() -> None:
    used = ChunkCutter()
    used.update(b"x" * (5 << 20))
    used.restart()
    used.update(SIF)
    table = used.finish(hashlib.sha256(SIF).hexdigest())
    assert table is not None
    assert parse_chunk_table(table).digests == cut(SIF).digests


def test_a_file_is_cut_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    path.write_bytes(SIF)
    sha256, table = cut_file(path)
    assert table is not None
    assert sha256 == parse_chunk_table(table).sif_sha256 == hashlib.sha256(SIF).hexdigest()


def test_a_sif_that_is_too_large_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    used = ChunkCutter()
    used.update(SIF)
    monkeypatch.setattr(cutter, "LARGEST_SIF", len(SIF) - 1)
    assert used.finish("ab" * 32) is None


def test_memory_does_not_grow_with_the_sif() -> None:
    used = ChunkCutter()
    for _ in range(20):
        used.update(SIF[: 1 << 20])
        assert sum(map(len, used._waiting)) <= 5 << 20


def test_a_changed_part_changes_few_chunks() -> None:
    """Bytes are inserted, so that all that follows moves."""
    changed = SIF[: 3 << 20] + b"inserted" * 100 + SIF[3 << 20 :]
    found = difference([cut(SIF)], cut(changed))
    assert found.size == len(changed)
    assert 0 < found.needed <= 2 * MAXIMUM
    assert found.ranges == 1
    assert str(difference([cut(SIF)], cut(SIF))) == "0 B of 15.7 MB (nothing), in 0 range(s)"
    assert str(SifDifference(2_258_000, 10_000, 2)) == "10.0 kB of 2.3 MB (1/226), in 2 range(s)"
    assert difference([], cut(b"ab" * 10)).needed == 20


def test_a_content_that_comes_twice_is_needed_once() -> None:
    half = SIF[: 8 << 20]
    found = difference([], cut(half + half))
    assert found.size == 16 << 20
    assert found.needed <= (8 << 20) + 2 * MAXIMUM


@pytest.mark.parametrize("piece", [1 << 20, 70_001])
def test_a_table_fits_its_sif_alone(piece: int) -> None:
    table = cut(SIF)

    def fits(content: bytes) -> bool:
        check = TableCheck(table)
        check.update(b"the beginning of an answer that broke off")
        check.restart()
        for start in range(0, len(content), piece):
            check.update(content[start : start + piece])
        return check.fits()

    assert fits(SIF)
    assert not fits(SIF[:-1])
    assert not fits(SIF + b"x")
    assert not fits(SIF[:100] + b"x" + SIF[101:])
    assert not fits(b"")
