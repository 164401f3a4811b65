"""What execution points ask for to know what is published: the index, and the shards with the names they need."""

from __future__ import annotations

from dataclasses import dataclass

from ci.simulation.world import DAY, KB, World

_INDEX_FIXED = 6 * KB  # signatures, keys, predecessors
_INDEX_A_SHARD = 67  # bytes: a sha256 in JSON
_NOT_MODIFIED = 300  # bytes of an answer 304


@dataclass(frozen=True)
class ManifestTraffic:
    """Requests and bytes that manifests cost."""

    index_bytes: int
    shard_bytes: int
    index_requests_a_second: float
    index_bytes_a_second: float  # all from the origin: the index never goes through caches
    shard_bytes_a_day: float  # to execution points, through caches
    shards_changed: float  # share of all, by one sync


def simulate(world: World, changes_a_day: float) -> ManifestTraffic:
    """Account for one day of polls; ``changes_a_day`` is the number of images whose record changes.

    Every execution point polls the index once an interval. It gets the whole one if a sync has changed it, and reads a shard anew
    for each image that a pilot wants, if the shard changed since it was read.
    """
    syncs = DAY / world.sync_interval
    changes = changes_a_day / syncs
    index = _INDEX_FIXED + _INDEX_A_SHARD * world.shards
    shard = world.images * world.record // world.shards
    changed = 1 - (1 - 1 / world.shards) ** changes
    anything = min(1.0, changes)
    polls = world.pilots / world.poll
    reads = world.pilots * world.images_a_pilot
    return ManifestTraffic(
        index_bytes=index,
        shard_bytes=shard,
        index_requests_a_second=polls,
        index_bytes_a_second=polls * (anything * index + (1 - anything) * _NOT_MODIFIED),
        shard_bytes_a_day=reads * shard,
        shards_changed=changed,
    )
