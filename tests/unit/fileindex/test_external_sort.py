from __future__ import annotations

import itertools
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.build.sandbox import patch_clone
from publisher.fileindex.external_sort import by_path
from publisher.fileindex.format import IndexedFile
from tests.support.publisher.index_lines import raw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def line(path: bytes, content: bytes = b"0" * 64) -> IndexedFile:
    return IndexedFile("f", path, 0o644, 1, 2, 3, 1_600_000_000, content)


def lines(count: int, changed: int) -> Iterator[IndexedFile]:
    """In no order; every so many of them is another file than in others."""
    for number in range(count):
        yield line(b"usr/lib/%07d" % (number * 7919 % count), b"%064d" % (number % changed == 0 and changed))


@given(st.lists(st.binary(min_size=1, max_size=3), unique=True), st.integers(1, 9))
def test_lines_come_whole_and_in_the_order_of_their_paths_whatever_the_portion(paths: list[bytes], portion: int) -> None:
    assert list(by_path(map(line, paths), portion=portion)) == [line(path) for path in sorted(paths)]


def test_what_waits_has_no_name_and_goes_with_who_asked_for_it(tmp_path: Path) -> None:
    ordered = by_path(lines(1000, 10), tmp_path, portion=100)
    assert [one.path for one in itertools.islice(ordered, 2)] == [b"usr/lib/0000000", b"usr/lib/0000001"]
    assert list(tmp_path.iterdir()) == []


def test_no_room_to_sort_in_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(by_path(lines(10, 2), tmp_path / "none", portion=5))


@pytest.mark.untraced
def test_two_file_indexes_are_compared_in_the_memory_of_a_portion() -> None:
    tracemalloc.start()
    try:
        patch = patch_clone.make_patch(
            lambda: map(raw, lines(40_000, 100)), lambda: map(raw, lines(40_000, 50)), ordered=partial(by_path, portion=1000)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert patch is not None
    assert (len(patch.added), patch.unchanged) == (800, 39_200)
    assert peak < 4 << 20, "the paths alone take more"


def test_what_differs_in_too_many_places_to_be_held_is_not_similar() -> None:
    def same(most: int) -> patch_clone.ClonePatch | None:
        return patch_clone.make_patch(lambda: map(raw, lines(1000, 100)), lambda: map(raw, lines(1000, 50)), most=most)

    assert same(20) is not None
    assert same(19) is None
