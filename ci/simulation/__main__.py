"""Simulates a pool of 50,000 execution points and prints the tables of docs/scale.md.

    python -m ci.simulation [--scale DIVISOR] [--seed NUMBER]

The same seed gives the same figures. With a scale of 100, everything is a hundredth as large, and it takes a second.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from ci.simulation import fetches, lag, manifests, restarts
from ci.simulation.world import DAY, GB, KB, MB, Catalogue, World

if TYPE_CHECKING:
    from collections.abc import Iterator

TB = 1000 * GB
HUB_PULLS = {"100 pulls an hour": 100.0, "any number": 1e9}


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=1, help="divide every count by this")
    parser.add_argument("--seed", type=int, default=World.seed)
    arguments = parser.parse_args()
    print("\n".join(report(replace(World(), seed=arguments.seed).scaled(arguments.scale))))


def report(world: World) -> Iterator[str]:
    """Yield the lines of all tables, in Markdown."""
    catalogue = Catalogue(world, random.Random(world.seed))
    yield from ("### SIFs", "", *_sifs(world, catalogue), "")
    changes = len(lag.changes(world, catalogue, random.Random(world.seed))) / world.days
    yield from ("### Publication", "", *_publication(world, catalogue, changes), "")
    yield from ("### Registries", "", *_registries(world), "")
    yield from ("### Manifests", "", *_manifests(world, changes), "")
    yield from ("### All pilots start within ten minutes", "", *_restarts(world, catalogue))


def _sifs(world: World, catalogue: Catalogue) -> Iterator[str]:
    yield from _heading(
        "execution points", "jobs want", "they fetch", "found there", "caches have", "origin sends", "busiest cache"
    )
    a_day = TB * (world.days - 1)
    for stores, where in ((False, "a cache for each pilot"), (True, "a store for each site")):
        for differences, form in ((False, "whole SIFs"), (True, "differences")):
            found = fetches.simulate(world, catalogue, differences=differences, stores=stores)
            yield _row(
                f"{where}, {form}",
                f"{found.bytes_of_jobs / a_day:.3g} TB a day",
                f"{found.to_pilots / a_day:.3g} TB a day",
                f"{found.hit_rate:.0%}",
                f"{found.cache_hit_rate:.0%}",
                f"{found.from_origin / a_day:.3g} TB a day",
                f"{max(found.by_cache) / ((world.days - 1) * DAY * world.cache_rate):.1%} of its link",
            )


def _publication(world: World, catalogue: Catalogue, changes: float) -> Iterator[str]:
    yield from _heading(
        "changes", "cores that build", "Docker Hub allows", "median", "90 %", "worst", "not yet published at the end"
    )
    for burst, event in ((0, f"{changes:,.0f} a day"), (world.burst, f"and {world.burst:,} within an hour")):
        for cores in (1, 32, 200):
            for name, pulls in HUB_PULLS.items():
                late = lag.simulate(world, catalogue, builders=cores, pulls_an_hour=pulls, burst=burst)
                times = (_duration(seconds) for seconds in (late.median, late.p90, late.worst))
                yield _row(event, f"{cores}", name, *times, f"{late.waiting:,}")


def _registries(world: World) -> Iterator[str]:
    yield from _heading("", "HEADs a second, if a sync spreads them over its interval", "within five minutes")
    for registry, share in (("Docker Hub", 0.7), ("Quay", 0.1), ("any other", 0.2)):
        requests = world.images * share
        yield _row(f"{registry}, {requests:,.0f} images", f"{requests / world.sync_interval:.1f}", f"{requests / 300:.0f}")


def _manifests(world: World, changes: float) -> Iterator[str]:
    yield from _heading(
        "shards", "index", "shard", "polls of the index", "origin sends", "shards to execution points", "changed by a sync"
    )
    for shards in (256, 1024, 4096):
        cost = manifests.simulate(replace(world, shards=shards), changes)
        yield _row(
            f"{shards:,}",
            f"{cost.index_bytes / KB:.0f} KB",
            f"{cost.shard_bytes / KB:,.0f} KB",
            f"{cost.index_requests_a_second:.1f} a second",
            f"{cost.index_bytes_a_second / MB:.2f} MB a second",
            f"{cost.shard_bytes_a_day / TB:.2f} TB a day",
            f"{cost.shards_changed:.0%}",
        )


def _restarts(world: World, catalogue: Catalogue) -> Iterator[str]:
    yield from _heading("cache entries", "index", "busiest cache sends", "for", "origin sends, caches empty")
    for shared, name in ((1, "one for each pilot"), (8, "shared by 8 pilots of a host")):
        storm = restarts.simulate(world, catalogue, minutes=10, one_fetch_a_host=shared)
        yield _row(
            name,
            f"{storm.index_requests_a_second:.0f} requests a second",
            f"{storm.bytes_of_busiest_cache / TB:.2g} TB",
            f"{storm.seconds_of_busiest_cache / 60:.0f} min",
            f"{storm.from_origin / TB:.2g} TB",
        )


def _heading(*cells: str) -> tuple[str, str]:
    return _row(*cells), "|---" * len(cells) + "|"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.0f} h"


if __name__ == "__main__":
    main()
