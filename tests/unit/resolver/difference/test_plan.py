"""The plan of a difference, without a file: what is copied, what is fetched, and whether it pays."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.chunk_table import ChunkTable
from publisher.resolver.difference.plan import (
    FETCH,
    ITSELF,
    MIN_GAP,
    ChunkMatcher,
    Segment,
    gap_for,
    is_worthwhile,
    place,
    segments,
    split_place,
)
from tests.support.ep.chunked import BLOCK, content_of, table_of

MB = 1_000_000


def table(*chunks: tuple[bytes, int]) -> ChunkTable:
    """A table of chunks with these digests and lengths."""
    digests, lengths = b"".join(digest.ljust(32, b"\0") for digest, _ in chunks), [length for _, length in chunks]
    return ChunkTable("ab" * 32, sum(lengths), minimum=1, average=9, maximum=1 << 24, lengths=lengths, digests=digests)


def places(wanted: ChunkTable, *seeds: ChunkTable) -> list[int]:
    matcher = ChunkMatcher(wanted)
    for number, seed in enumerate(seeds, 1):
        matcher.add_seed(number, seed)
    return list(matcher.places())


def test_chunks_of_seeds_are_copied_wherever_they_moved() -> None:
    wanted = table_of(content_of("a", "b", "c", "d"))
    first, second = table_of(content_of("x", "b", "a")), table_of(content_of("a", "y", "c"))
    found = places(wanted, first, second)
    assert found == [place(1, 0), place(1, 3 * BLOCK), place(1, 2 * BLOCK), place(2, 3 * BLOCK), FETCH]


def test_a_chunk_that_comes_again_is_fetched_once() -> None:
    assert places(table_of(content_of("a", "b", "a", "b"))) == [
        FETCH,
        FETCH,
        FETCH,
        place(ITSELF, BLOCK),
        place(ITSELF, 2 * BLOCK),
    ]


def test_the_gain_of_a_seed_is_what_no_seed_before_it_has() -> None:
    matcher = ChunkMatcher(table_of(content_of("a", "b", "c", "c")))
    one, other = table_of(content_of("a", "b")), table_of(content_of("b", "c"))
    assert (matcher.gain(one), matcher.gain(other)) == (3 * BLOCK, 3 * BLOCK)
    matcher.add_seed(1, one)
    assert (matcher.gain(one), matcher.gain(other)) == (0, BLOCK)


@pytest.mark.parametrize(
    "seed",
    [table((b"12345678-other", 9)), table((b"12345678-wanted", 8))],
    ids=["another digest with the same beginning", "the same digest with another length"],
)
def test_a_table_cannot_pass_off_another_chunk(seed: ChunkTable) -> None:
    assert places(table((b"12345678-wanted", 9)), seed) == [FETCH]


def test_chunks_of_one_table_that_begin_alike_are_kept_apart() -> None:
    assert places(table((b"12345678-a", 9), (b"12345678-b", 9), (b"12345678-a", 8))) == [FETCH] * 3


@given(st.integers(1, 32), st.integers(0, 1 << 39))
def test_a_place_is_a_seed_and_a_position(seed: int, start: int) -> None:
    assert split_place(place(seed, start)) == (seed, start)


def shape(found: list[Segment]) -> list[tuple[int, int, int]]:
    return [(segment.start, segment.stop, segment.where) for segment in found]


def test_neighbours_are_one_request_or_one_copy() -> None:
    where = [FETCH, FETCH, place(1, 5), place(1, 15), place(2, 25), FETCH]
    assert shape(segments([10] * 6, where, 0)) == [(0, 20, FETCH), (20, 40, place(1, 5)), (40, 50, place(2, 25)), (50, 60, FETCH)]


@pytest.mark.parametrize(("gap", "requests"), [(19, 2), (20, 1)])
def test_a_small_gap_between_two_ranges_is_fetched_with_them(gap: int, requests: int) -> None:
    where = [place(1, 0), FETCH, place(1, 5), place(2, 77), FETCH, place(1, 90)]
    found = shape(segments([10] * 6, where, gap))
    assert sum(where == FETCH for _, _, where in found) == requests
    assert (found[0], found[-1]) == ((0, 10, place(1, 0)), (50, 60, place(1, 90))), "the ends are no gaps"


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from([FETCH, FETCH, 1, 2])), min_size=1, max_size=60), st.integers(0, 100)
)
def test_segments_are_the_whole_sif_in_its_order(chunks: list[tuple[int, int]], gap: int) -> None:
    lengths = [length for length, _ in chunks]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    where = array("q", (FETCH if seed == FETCH else place(seed, 3 * start) for start, (_, seed) in zip(starts, chunks)))
    found = segments(lengths, where, gap)
    assert [segment.start for segment in found] == [0, *(segment.stop for segment in found[:-1])]
    assert found[-1].stop == sum(lengths)
    for start, length, wanted in zip(starts, lengths, where):
        inside = next(segment for segment in found if segment.start <= start < segment.stop)
        assert start + length <= inside.stop
        assert inside.where == FETCH or inside.where + start - inside.start == wanted
    fetched = [segment for segment in found if segment.where == FETCH]
    assert all(after.start - before.stop > gap for before, after in zip(fetched, fetched[1:]))


def test_the_gap_grows_with_the_round_trip_within_limits() -> None:
    assert [gap_for(seconds) for seconds in (0, 0.02, 0.1, 10)] == [MIN_GAP, 125_000, 625_000, 4 << 20]


@pytest.mark.parametrize(
    ("copied", "ranges", "round_trip", "pays"),
    [(200 * MB, 2, 0.02, True), (200 * MB, 1000, 0.02, False), (200 * MB, 1000, 0.0005, True), (MB // 2, 1, 0.0, False)],
    ids=["few ranges", "too many for the round trip", "many on a near server", "next to nothing saved"],
)
def test_it_must_pay(copied: int, ranges: int, round_trip: float, pays: bool) -> None:
    parts = [Segment(0, copied, place(1, 0)), *(Segment(0, 1, FETCH) for _ in range(ranges))]
    assert is_worthwhile(parts, round_trip) == pays
