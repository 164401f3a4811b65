"""What the simulation assumes about a pool: every figure that is not computed, with its unit and where it is from."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

DAY = 86_400
GB, MB, KB = 10**9, 10**6, 10**3


@dataclass(frozen=True)
class World:
    """A pool, its images, and the services between them; times in seconds, sizes in bytes."""

    seed: int = 1
    days: int = 3  # the first fills the caches and is not counted

    images: int = 100_000
    zipf: float = 1.05  # the image of rank r is wanted in proportion to r ** -zipf
    families: int = 300  # images of a family have the same base
    median_sif: int = 400 * MB
    spread: float = 1.1  # sigma of the logarithm of sizes
    largest_sif: int = 20 * GB

    pilots: int = 50_000  # at any time; each lives a day
    images_a_pilot: float = 6.0  # different draws a day
    with_cvmfs: float = 0.6  # share of pilots that use sandboxes and fetch no SIF
    pilot_space: int = 20 * GB  # of a pilot's own cache
    sites: int = 200
    site_store: int = 2_000 * GB  # of a site's shared store, where there is one

    caches: int = 10
    cache_space: int = 8_000 * GB  # of each, for images
    cache_rate: int = 1_250 * MB  # a second: 10 Gbit/s

    moving: float = 0.05  # share of images whose tag moves, once a week on average
    rebuilt_bases: int = 2  # families rebuilt as a whole, a day, at a random hour
    burst: int = 10_000  # images on one popular base that change within an hour, once, a day after the start
    sync_interval: int = 900
    build_rate: int = 25 * MB  # of SIF a second and core: docs/benchmarks.md
    transaction: int = 30  # a batch of publications in CVMFS
    batch: int = 20  # images a transaction

    previous: float = 1 / 80  # bytes of a SIF that are fetched if its previous version is there: docs/benchmarks.md
    same_base: float = 1 / 5  # and if an image on the same base is

    shards: int = 256
    record: int = 2 * KB
    poll: int = 900  # an execution point's refresh

    def scaled(self, divisor: int) -> World:
        """Return a smaller world with the same proportions."""
        return replace(
            self,
            images=self.images // divisor,
            families=max(3, self.families // divisor),
            pilots=self.pilots // divisor,
            burst=self.burst // divisor,
            sites=max(2, self.sites // divisor),
            cache_space=self.cache_space // divisor,
            cache_rate=max(1, self.cache_rate // divisor),
        )


@dataclass(frozen=True)
class Image:
    """An image of the list."""

    rank: int
    size: int
    family: int
    moves: bool


class Catalogue:
    """The images of a world, drawn by popularity."""

    def __init__(self, world: World, dice: random.Random) -> None:
        limit = world.largest_sif
        self.images = [
            Image(
                rank,
                min(limit, int(world.median_sif * math.exp(dice.gauss(0, world.spread)))),
                min(int(dice.paretovariate(1.0)) - 1, world.families - 1),
                dice.random() < world.moving,
            )
            for rank in range(world.images)
        ]
        self._cumulative = list(itertools.accumulate((rank + 1) ** -world.zipf for rank in range(world.images)))

    def draw(self, dice: random.Random, number: int) -> list[Image]:
        """Return ``number`` images by popularity; the same one may come more than once."""
        return dice.choices(self.images, cum_weights=self._cumulative, k=number)


def poisson(dice: random.Random, mean: float) -> int:
    """Return a number of events of which ``mean`` happen on average."""
    count, left = 0, dice.expovariate(1)
    while left < mean:
        count, left = count + 1, left + dice.expovariate(1)
    return count
