"""All pilots start within a few minutes, as after a maintenance: how long until all have their first image."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ci.simulation.world import Catalogue, World


@dataclass(frozen=True)
class Storm:
    """A restart of every pilot."""

    index_requests_a_second: float
    bytes_of_busiest_cache: int
    seconds_of_busiest_cache: float
    from_origin: int  # bytes, if all caches are empty


def simulate(world: World, catalogue: Catalogue, *, minutes: float, one_fetch_a_host: int) -> Storm:
    """Start all pilots within ``minutes``.

    ``one_fetch_a_host`` is the number of pilots of a host that share a cache entry: 1 if each pilot has a cache of its own.
    """
    dice = random.Random(world.seed)
    hosts = round(world.pilots * (1 - world.with_cvmfs) / one_fetch_a_host)
    loads, copies = Counter[int](), Counter[tuple[int, int]]()
    origin = 0
    for _ in range(hosts):
        cache = min(int(dice.expovariate(1 / 2.5)), world.caches - 1)
        for image in {image.rank: image for image in catalogue.draw(dice, one_fetch_a_host)}.values():
            loads[cache] += image.size
            if not copies[cache, image.rank]:
                origin += image.size
            copies[cache, image.rank] += 1
    busiest = max(loads.values())
    return Storm(world.pilots / (minutes * 60), busiest, busiest / world.cache_rate, origin)
