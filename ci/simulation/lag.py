"""From a changed tag to a published image: when sync sees it, when a builder is free, and what registries allow."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from ci.simulation.world import DAY, Catalogue, World


@dataclass(frozen=True)
class Lag:
    """Seconds from the change of a tag to its publication, and images that were still waiting when the time was over."""

    median: float
    p90: float
    worst: float
    waiting: int


def changes(world: World, catalogue: Catalogue, dice: random.Random, burst: int = 0) -> list[tuple[float, int]]:
    """Return the changes of tags in the order of time: seconds from the start, and the image's rank.

    ``burst`` images change within one hour, a day after the start.
    """
    end = world.days * DAY
    found = [(dice.random() * end, image.rank) for image in catalogue.images if image.moves and dice.random() < world.days / 7]
    for _ in range(world.rebuilt_bases * world.days):
        at, family = dice.random() * end, dice.randrange(1, world.families)
        found += [(at + dice.random() * 3600, image.rank) for image in catalogue.images if image.family == family]
    found += [(DAY + dice.random() * 3600, image.rank) for image in dice.sample(catalogue.images, burst)]
    return sorted(found)


def simulate(world: World, catalogue: Catalogue, *, builders: int, pulls_an_hour: float, burst: int) -> Lag:
    """Build what changes with ``builders`` cores, and at most ``pulls_an_hour`` from the registry that most images are in.

    Each build is one pull; builds begin in the order of changes. Seven of ten images come from that registry.
    """
    dice = random.Random(world.seed)
    free = [0.0] * builders
    pull_at = 0.0
    lags, waiting = [], 0
    end = world.days * DAY
    for at, rank in changes(world, catalogue, dice, burst):
        seen = (at // world.sync_interval + 1) * world.sync_interval
        begun = max(heapq.heappop(free), seen)
        if dice.random() < 0.7:  # noqa: PLR2004 - see above
            begun = pull_at = max(begun, pull_at)
            pull_at += 3600 / pulls_an_hour
        built = begun + catalogue.images[rank].size / world.build_rate
        heapq.heappush(free, built)
        published = built + world.transaction * (1 + dice.random() * world.batch / 10)
        if published > end:
            waiting += 1
        lags.append(published - at)
    lags.sort()
    return Lag(lags[len(lags) // 2], lags[len(lags) * 9 // 10], lags[-1], waiting)
