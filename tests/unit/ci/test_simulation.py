"""The simulation of docs/scale.md, a hundredth as large."""

from __future__ import annotations

import itertools
import random

import pytest

from ci.simulation import __main__ as simulation
from ci.simulation import fetches, lag, manifests, restarts
from ci.simulation.world import Catalogue, World
from tests.support.checkout import ROOT

WORLD = World().scaled(100)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(WORLD, random.Random(WORLD.seed))


def test_the_same_seed_gives_the_same_figures() -> None:
    first = list(simulation.report(WORLD))
    assert list(simulation.report(WORLD)) == first
    assert list(simulation.report(World(seed=2).scaled(100))) != first


def test_the_page_has_the_tables_that_are_printed() -> None:
    page = (ROOT / "docs/scale.md").read_text().splitlines()
    printed = list(simulation.report(WORLD))
    headings = [line for line, below in itertools.pairwise(printed) if below.startswith("|---")]
    assert len(headings) == 5
    assert set(headings) <= set(page)


def test_stores_and_differences_save_bytes(catalogue: Catalogue) -> None:
    def bytes_to_pilots(*, stores: bool, differences: bool) -> int:
        return fetches.simulate(WORLD, catalogue, stores=stores, differences=differences).to_pilots

    whole = bytes_to_pilots(stores=False, differences=False)
    assert bytes_to_pilots(stores=False, differences=True) < whole
    assert bytes_to_pilots(stores=True, differences=False) < whole
    assert bytes_to_pilots(stores=True, differences=True) < bytes_to_pilots(stores=True, differences=False)


def test_a_cache_evicts_what_was_used_longest_ago(catalogue: Catalogue) -> None:
    one, two, three = catalogue.images[:3]
    cache = fetches.Lru(one.size + two.size + three.size - 1)
    cache.add((0, 0), one)
    cache.add((1, 0), two)
    cache.use((0, 0))
    cache.add((2, 0), three)
    assert ((0, 0) in cache, (1, 0) in cache, (2, 0) in cache) == (True, False, True)


def test_more_cores_and_more_pulls_publish_sooner(catalogue: Catalogue) -> None:
    def worst(builders: int, pulls: float) -> float:
        return lag.simulate(WORLD, catalogue, builders=builders, pulls_an_hour=pulls, burst=300).worst

    assert worst(8, 1e9) < worst(1, 1e9)
    assert worst(8, 1e9) < worst(8, 10)


def test_more_shards_cost_the_origin_and_save_the_rest() -> None:
    few, many = (manifests.simulate(World(shards=shards), 500) for shards in (256, 1024))
    assert many.index_bytes_a_second > few.index_bytes_a_second
    assert many.shard_bytes_a_day < few.shard_bytes_a_day


def test_pilots_that_share_a_cache_entry_ask_less(catalogue: Catalogue) -> None:
    alone, shared = (restarts.simulate(WORLD, catalogue, minutes=10, one_fetch_a_host=number) for number in (1, 8))
    assert shared.bytes_of_busiest_cache < alone.bytes_of_busiest_cache
