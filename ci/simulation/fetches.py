"""SIFs on their way: origin, ten caches, sites' stores and pilots' own caches, with and without differences."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass, field

from ci.simulation.world import DAY, Catalogue, Image, World, poisson


class Lru:
    """A cache of SIFs with a limited number of bytes; the one that was used longest ago is evicted first."""

    def __init__(self, space: int) -> None:
        self._space = space
        self._used = 0
        self._sizes: OrderedDict[tuple[int, int], int] = OrderedDict()
        self.families: dict[int, int] = {}  # family -> images of it
        self._family_of: dict[tuple[int, int], int] = {}

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._sizes

    def use(self, key: tuple[int, int]) -> None:
        """Note a hit."""
        self._sizes.move_to_end(key)

    def add(self, key: tuple[int, int], image: Image) -> None:
        """Add a SIF, and evict others until there is room; one that never fits is not kept."""
        if image.size > self._space:
            return
        self._sizes[key] = image.size
        self._used += image.size
        self._family_of[key] = image.family
        self.families[image.family] = self.families.get(image.family, 0) + 1
        while self._used > self._space:
            old, size = self._sizes.popitem(last=False)
            self._used -= size
            self.families[self._family_of.pop(old)] -= 1


@dataclass
class Traffic:
    """What was counted after the first day, in bytes and requests."""

    wanted: int = 0  # SIFs that jobs asked for
    hits: int = 0  # that the pilot or its site's store had
    bytes_of_jobs: int = 0  # that would be fetched without any cache on the execution point
    to_pilots: int = 0  # bytes
    cache_requests: int = 0
    cache_hits: int = 0
    from_origin: int = 0  # bytes
    by_cache: list[int] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """Share of wanted SIFs that were there."""
        return self.hits / self.wanted

    @property
    def cache_hit_rate(self) -> float:
        """Share of the caches' requests that need no origin."""
        return self.cache_hits / self.cache_requests


def simulate(world: World, catalogue: Catalogue, *, differences: bool, stores: bool) -> Traffic:
    """Let pilots live their days, one job's image after another in the order of time.

    Args:
        world: the assumptions.
        catalogue: the images.
        differences: execution points fetch only what their own SIFs do not have.
        stores: each site has a store that its pilots share and that outlives them; otherwise each pilot starts with nothing.
    """
    dice = random.Random(world.seed)
    caches = [Lru(world.cache_space) for _ in range(world.caches)]
    site_stores = [Lru(world.site_store) for _ in range(world.sites)]
    nearest = [min(int(dice.expovariate(1 / 2.5)), world.caches - 1) for _ in range(world.sites)]  # some caches serve many sites
    fetching = round(world.pilots * (1 - world.with_cvmfs))
    fetches = []
    for pilot in range(fetching * world.days):
        begun = dice.random() * world.days * DAY
        for image in catalogue.draw(dice, poisson(dice, world.images_a_pilot)):
            fetches.append((begun + dice.random() * DAY, pilot, image))  # noqa: PERF401 - plainer
    fetches.sort(key=lambda fetch: fetch[0])
    counted, uncounted = Traffic(by_cache=[0] * world.caches), Traffic(by_cache=[0] * world.caches)
    pilots: dict[int, tuple[int, Lru]] = {}
    for at, pilot, image in fetches:
        if pilot not in pilots:
            site = dice.randrange(world.sites)
            pilots[pilot] = (site, site_stores[site] if stores else Lru(world.pilot_space))
        site, own = pilots[pilot]
        version = int(at / (7 * DAY) + image.rank * 0.618 % 1) if image.moves else 0
        traffic = counted if DAY <= at < world.days * DAY else uncounted
        _want(world, traffic, (image, version), own, caches[nearest[site]], nearest[site], differences)
    return counted


def _want(  # noqa: PLR0917 - all that takes part
    world: World, traffic: Traffic, wanted: tuple[Image, int], own: Lru, cache: Lru, nearest: int, differences: bool
) -> None:
    """Serve one job's image, and count it."""
    image, version = wanted
    key = (image.rank, version)
    traffic.wanted += 1
    traffic.bytes_of_jobs += image.size
    if key in own:
        own.use(key)
        traffic.hits += 1
        return
    share = 1.0
    if differences and own.families.get(image.family):
        share = world.previous if (image.rank, version - 1) in own else world.same_base
    moved = int(image.size * share)
    own.add(key, image)
    traffic.to_pilots += moved
    traffic.by_cache[nearest] += moved
    traffic.cache_requests += 1
    if key in cache:
        cache.use(key)
        traffic.cache_hits += 1
    else:  # a cache fetches blocks, so a difference costs the origin no more than it costs the cache
        cache.add(key, image)
        traffic.from_origin += moved
