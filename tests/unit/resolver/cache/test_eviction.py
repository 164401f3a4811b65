"""Room in the cache, with a cap and a floor, and what goes for it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract.units import format_size
from publisher.resolver.cache import eviction, pins
from publisher.resolver.cache.cache import Cache
from publisher.resolver.cache.eviction import CacheLimits
from publisher.resolver.errors import CacheSpaceError
from publisher.resolver.system import locks
from publisher.resolver.transfer.open_source import open_source
from tests.support.ep.execution_point import sif_content, sif_of

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.contract.records import Sif
    from tests.support.ep.execution_point import ExecutionPoint

SIZE = 10_000
ALL = 1 << 60


@pytest.fixture
def cache(ep: ExecutionPoint) -> Cache:
    return Cache(str(ep.cache))


def fill(ep: ExecutionPoint, cache: Cache, *names: str) -> list[Sif]:
    """SIFs of :data:`SIZE` bytes in the cache, the first one used longest ago."""
    sifs: list[Sif] = []
    for age, name in enumerate(reversed(names)):
        content = sif_content(name, SIZE)
        sif = ep.store(content)
        cache.ensure(sif, [open_source(str(ep.origin))])
        when = time.time() - 1000 * (age + 1)
        os.utime(ep.cache / f"sif/{sif.sha256[:2]}/{sif.sha256}.seen", (when, when))
        sifs.insert(0, sif)
    return sifs


def there(cache: Cache) -> list[str]:
    return [item.sha256 for item in cache.entries.by_last_use()]


def reserve(cache: Cache, sif: Sif, limits: CacheLimits) -> None:
    cache.entries.make_directories(sif.sha256)
    with locks.acquire([cache.entries.lock_path(sif.sha256)], 0) as held:
        assert held is not None
        eviction.reserve(cache.entries, sif.sha256, sif.size, limits, held)


def test_what_was_used_longest_ago_goes_and_no_more_than_must(ep: ExecutionPoint, cache: Cache) -> None:
    old, middle, young = fill(ep, cache, "old", "middle", "young")
    new = sif_of(sif_content("new", SIZE))
    reserve(cache, new, CacheLimits(3 * SIZE, 0))
    assert there(cache) == [middle.sha256, young.sha256]
    cache.ensure(middle, [])
    reserve(cache, new, CacheLimits(2 * SIZE, 0))
    assert there(cache) == [middle.sha256]
    assert not list((ep.cache / "sif").rglob(f"{old.sha256}*"))


def test_what_a_job_needs_never_goes(ep: ExecutionPoint, cache: Cache) -> None:
    old, young = fill(ep, cache, "old", "young")
    pins.pin(cache.root, old.sha256, pins.Starter(os.getpid()))
    reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(2 * SIZE, 0))
    assert there(cache) == [old.sha256]
    assert young.sha256 not in there(cache)


def soften(cache: Cache, monkeypatch: pytest.MonkeyPatch, *sifs: Sif) -> None:
    """Pin them for a process of another PID namespace, two hours ago."""
    starter = pins.Starter(os.getpid())
    starter.name = "4000000-1-1"
    for sif in sifs:
        pins.pin(cache.root, sif.sha256, starter)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 7200)


def test_what_only_others_need_who_may_be_dead_goes_where_nothing_else_can(
    ep: ExecutionPoint, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed, old, middle, young = fill(ep, cache, "needed", "old", "middle", "young")
    pins.pin(cache.root, needed.sha256, pins.Starter(os.getpid()))
    soften(cache, monkeypatch, old, middle)
    reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(4 * SIZE, 0))
    assert there(cache) == [needed.sha256, old.sha256, middle.sha256], "the youngest, which nobody needs"
    reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(3 * SIZE, 0))
    assert there(cache) == [needed.sha256, middle.sha256], "no more than must"
    assert young.sha256 not in there(cache)
    assert eviction.trim(cache.entries, CacheLimits(0, 0)).sha256s == [middle.sha256]
    with pytest.raises(CacheSpaceError, match="only 0 B can be evicted"):
        reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(SIZE, 0))


def test_nothing_goes_in_vain(ep: ExecutionPoint, cache: Cache) -> None:
    old, young = fill(ep, cache, "old", "young")
    pins.pin(cache.root, old.sha256, pins.Starter(os.getpid()))
    with pytest.raises(
        CacheSpaceError,
        match=f"a SIF of {format_size(2 * SIZE)}: {format_size(2 * SIZE)} are missing.* and only {format_size(SIZE)} can be",
    ):
        reserve(cache, sif_of(sif_content("new", 2 * SIZE)), CacheLimits(2 * SIZE, 0))
    assert there(cache) == [old.sha256, young.sha256]


def test_a_floor_of_free_space_is_kept(ep: ExecutionPoint, cache: Cache) -> None:
    fill(ep, cache, "old", "young")
    with pytest.raises(CacheSpaceError):
        reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(ALL, ALL))
    assert len(there(cache)) == 2
    floor = eviction.free_space(cache.root) - SIZE // 2  # what other tests write meanwhile is little against this
    assert eviction.compute_limits(cache.root, (5, 0.0), (floor, 0.0)).min_free == floor


def test_a_percentage_is_of_the_file_system(tmp_path: Path) -> None:
    whole = os.statvfs(tmp_path)
    found = eviction.compute_limits(str(tmp_path), (0, 0.5), (0, 0.25))
    assert found.max_bytes == int(whole.f_blocks * whole.f_frsize * 0.5)
    assert found.min_free == int(whole.f_blocks * whole.f_frsize * 0.25)


def test_downloads_that_run_are_reckoned_with_as_if_finished(ep: ExecutionPoint, cache: Cache) -> None:
    fill(ep, cache, "old")
    running, new = (sif_of(sif_content(name, SIZE)) for name in ("running", "new"))
    cache.entries.make_directories(running.sha256)
    limits = CacheLimits(2 * SIZE, 0)
    with locks.acquire([cache.entries.lock_path(running.sha256)], 0) as held:
        assert held is not None
        eviction.reserve(cache.entries, running.sha256, SIZE, limits, held)
        assert len(there(cache)) == 1
        reserve(cache, new, limits)
        assert there(cache) == []
        with pytest.raises(CacheSpaceError):
            reserve(cache, sif_of(sif_content("third", 2 * SIZE)), limits)
    reserve(cache, sif_of(sif_content("third", 2 * SIZE)), limits)


def test_a_cache_is_trimmed_to_its_limits_except_for_what_is_in_use(ep: ExecutionPoint, cache: Cache) -> None:
    first, second, third = fill(ep, cache, "first", "second", "third")
    pins.pin(cache.root, first.sha256, pins.Starter(os.getpid()))
    removed = eviction.trim(cache.entries, CacheLimits(2 * SIZE, 0))
    assert (removed.sha256s, removed.bytes) == ([second.sha256], SIZE)
    eviction.trim(cache.entries, CacheLimits(0, 0))
    assert there(cache) == [first.sha256]
    assert third.sha256 not in there(cache)


def test_what_is_being_fetched_or_checked_is_left_alone(ep: ExecutionPoint, cache: Cache) -> None:
    (only,) = fill(ep, cache, "only")
    with locks.acquire([cache.entries.lock_path(only.sha256)], 0):
        assert eviction.trim(cache.entries, CacheLimits(0, 0)).sha256s == []
    assert there(cache) == [only.sha256]


def test_a_job_that_comes_between_keeps_its_sif(ep: ExecutionPoint, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pin is made after the removal looked at the pins first, and before it looks again."""
    (only,) = fill(ep, cache, "only")
    invalidate = cache.entries.invalidate

    def job_comes_first(sha256: str) -> bytes | None:
        assert cache.ensure(only, [], starter=pins.Starter(os.getpid()))[1] == ""
        return invalidate(sha256)

    monkeypatch.setattr(cache.entries, "invalidate", job_comes_first)
    assert eviction.trim(cache.entries, CacheLimits(0, 0)).sha256s == []
    assert cache.entries.is_verified(only.sha256), "nothing is hashed for it while others wait for room"


def part_of(ep: ExecutionPoint, cache: Cache, name: str, size: int) -> str:
    sha256 = sif_of(sif_content(name, SIZE)).sha256
    cache.entries.make_directories(sha256)
    (ep.cache / f"sif/{sha256[:2]}/{sha256}.part").write_bytes(bytes(size))
    return sha256


def test_downloads_that_broke_off_take_room_and_go_before_any_sif(ep: ExecutionPoint, cache: Cache) -> None:
    old, young = fill(ep, cache, "old", "young")
    broken_off, held = (part_of(ep, cache, name, SIZE // 2) for name in ("broken off", "held"))
    with locks.acquire([cache.entries.lock_path(held)], 0):
        reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(3 * SIZE + SIZE // 2, 0))
    assert there(cache) == [old.sha256, young.sha256]
    assert [sha256 for sha256, _ in cache.entries.downloads()] == [held], "somebody goes on with it"
    assert broken_off != held
    assert eviction.trim(cache.entries, CacheLimits(2 * SIZE, 0)).sha256s == []
    assert cache.entries.downloads() == []


def test_downloads_that_broke_off_may_be_all_that_can_go(ep: ExecutionPoint, cache: Cache) -> None:
    (only,) = fill(ep, cache, "only")
    pins.pin(cache.root, only.sha256, pins.Starter(os.getpid()))
    part_of(ep, cache, "broken off", SIZE)
    reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(2 * SIZE, 0))
    assert there(cache) == [only.sha256]
    assert cache.entries.downloads() == []


def test_what_has_come_of_a_download_stays_for_it(ep: ExecutionPoint, cache: Cache) -> None:
    fill(ep, cache, "old")
    mine = part_of(ep, cache, "new", SIZE // 2)
    reserve(cache, sif_of(sif_content("new", SIZE)), CacheLimits(SIZE, 0))
    assert there(cache) == []
    assert [sha256 for sha256, _ in cache.entries.downloads()] == [mine]


def test_where_reckoning_does_not_help_as_much_goes_as_is_wanted(ep: ExecutionPoint, cache: Cache) -> None:
    first, _, third = fill(ep, cache, "first", "second", "third")
    pins.pin(cache.root, first.sha256, pins.Starter(os.getpid()))
    assert eviction.evict(cache.entries, "f" * 64, SIZE // 2) == SIZE
    assert there(cache) == [first.sha256, third.sha256]
    assert eviction.evict(cache.entries, "f" * 64, 9 * SIZE) == SIZE
    assert eviction.evict(cache.entries, "f" * 64, 9 * SIZE) == 0
    assert there(cache) == [first.sha256]
