"""Many jobs that want the same SIF, or different ones, and what failed for one of them."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.cache import counters, pins
from publisher.resolver.cache.cache import DISK_FULL, Cache
from publisher.resolver.errors import CacheBusyError, CacheSpaceError, FetchError
from publisher.resolver.system import locks, negative_cache
from publisher.resolver.transfer import fetch
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import Source
from tests.support.ep.execution_point import ExecutionPoint, sif_content, sif_of
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.osdf.file_server import FileServer

CONTENT = sif_content("image", 300_000)
SIF = sif_of(CONTENT)


@pytest.fixture
def cache(ep: ExecutionPoint) -> Cache:
    return Cache(str(ep.cache))


def test_of_many_jobs_that_cannot_have_it_one_asks(ep: ExecutionPoint, web: FileServer, cache: Cache) -> None:
    ep.store(CONTENT)
    web.faults = ["stall", *["error"] * 99]
    begin, begun = os.pipe()

    def one() -> None:
        os.write(begun, b"x")
        with pytest.raises(FetchError, match=r"Internal Server Error|status 500"):
            cache.ensure(SIF, [open_source(web.url)])

    first = child_process.start(one)
    web.stalled.wait()
    others = [child_process.start(one) for _ in range(10)]
    for _ in (first, *others):
        os.read(begin, 1)
    web.released.set()
    assert [child_process.end(child) for child in (first, *others)] == [0] * 11
    assert web.downloads() == 2, "the first one's two tries"


def test_what_failed_a_moment_ago_is_not_asked_for_and_said(ep: ExecutionPoint, web: FileServer, cache: Cache) -> None:
    ep.store(CONTENT)
    web.faults = ["error", "error"]
    for said in ("cannot fetch", "not retried yet: cannot fetch"):
        with pytest.raises(FetchError, match=said):
            cache.ensure(SIF, [open_source(web.url)])
    assert web.downloads() == 2
    negative_cache.clear(cache.root, SIF.sha256)
    cache.ensure(SIF, [open_source(web.url)])
    assert not (ep.cache / "failures" / SIF.sha256).exists()


def test_a_job_whose_own_time_is_over_leaves_no_failure_behind(ep: ExecutionPoint, cache: Cache) -> None:
    ep.store(CONTENT)

    class Slow(Source):
        def stream(self, name: str, start: int, size: int | None, _: object = None, __: object = None) -> Iterator[bytes]:
            assert (name, size) == (SIF.path, len(CONTENT))
            yield CONTENT[start : start + 1000]
            while time.monotonic() <= until:
                time.sleep(max(0, until - time.monotonic()))
            yield CONTENT[start + 1000 : start + 2000]

    until = time.monotonic() + 1  # enough for what comes first, also where much else runs
    with pytest.raises(FetchError, match=r"only [12]\.0 kB of 300\.0 kB received in time"):
        cache.ensure(SIF, [Slow("slow")], until=until)
    path, _ = cache.ensure(SIF, [open_source(str(ep.origin))])
    assert Path(path).stat().st_size == len(CONTENT)


def test_a_hit_needs_no_turn_and_no_lock(ep: ExecutionPoint, cache: Cache) -> None:
    ep.store(CONTENT)
    cache.ensure(SIF, [open_source(str(ep.origin))])
    with locks.acquire([cache.entries.lock_path(SIF.sha256)], 0):
        assert cache.ensure(SIF, [], until=0)[1] == ""


def test_no_more_downloads_than_the_host_may_have_run_at_a_time(ep: ExecutionPoint) -> None:
    cache = Cache(str(ep.cache), slots=2)
    ep.store(CONTENT)
    (ep.cache / "slots").mkdir(parents=True)
    ep.cache.chmod(0o700)
    slots = [str(ep.cache / "slots" / number) for number in "01"]
    with locks.acquire(slots[:1], 0):
        with locks.acquire(slots[1:], 0), pytest.raises(CacheBusyError, match="limit is 2 downloads at a time"):
            cache.ensure(SIF, [open_source(str(ep.origin))], until=0)
        cache.ensure(SIF, [open_source(str(ep.origin))])


def test_users_with_caches_of_their_own_can_share_the_bound(shared_path: Path) -> None:
    ep = ExecutionPoint(shared_path)
    ep.store(CONTENT)
    slots = shared_path / "slots"
    slots.mkdir()
    slots.chmod(0o1777)
    ours, theirs = (Cache(str(shared_path / name), slots=1, slot_directory=str(slots)) for name in ("ours", "theirs"))

    def another_user() -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        with pytest.raises(CacheBusyError, match="limit is 1 downloads at a time"):
            Cache(str(shared_path / "theirs"), slots=1, slot_directory=str(slots)).ensure(
                SIF, [open_source(str(ep.origin))], until=0
            )

    theirs.prepare()
    if os.geteuid() == 0:
        os.chown(shared_path / "theirs", 65534, 65534)
    with locks.acquire([str(slots / "0")], 0):
        assert child_process.end(child_process.start(another_user)) == 0
    ours.ensure(SIF, [open_source(str(ep.origin))])


@pytest.mark.parametrize("can_go", [True, False])
def test_a_disk_that_is_full_is_not_filled_again_by_each_job(ep: ExecutionPoint, cache: Cache, can_go: bool) -> None:
    """No limit says so before: a quota, or somebody else who fills it meanwhile."""
    asked = []
    other = ep.store(sif_content("other", 1000))
    cache.ensure(other, [open_source(str(ep.origin))])
    if not can_go:
        pins.pin(cache.root, other.sha256, pins.Starter(os.getpid()))

    class Filling(Source):
        """A disk that somebody else fills while the download runs."""

        def stream(self, name: str, start: int, size: int | None, _: object = None, __: object = None) -> Iterator[bytes]:
            asked.append((name, start, size))
            yield CONTENT[:1000]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for said in ("no space for .*, which needs 300.0 kB", "not retried yet: no space"):
        with pytest.raises(CacheSpaceError, match=said):
            cache.ensure(SIF, [Filling("filling")])
    assert len(asked) == 1 + can_go, "once more where room was made"
    assert [item.sha256 for item in cache.entries.by_last_use()] == [other.sha256] * (not can_go)
    small = sif_of(sif_content("small", 1000))
    ep.store(sif_content("small", 1000))
    cache.ensure(small, [open_source(str(ep.origin))])
    ep.store(CONTENT)
    cache.ensure(SIF, [open_source(str(ep.origin))])


@pytest.mark.parametrize("behind", ["the SIF's lock", "a slot"])
def test_who_waited_does_not_fill_a_disk_that_was_full_for_those_before(ep: ExecutionPoint, web: FileServer, behind: str) -> None:
    cache = Cache(str(ep.cache), slots=1)
    ep.store(CONTENT)
    for name in ("locks", "slots"):
        (ep.cache / name).mkdir(parents=True)
    ep.cache.chmod(0o700)
    lock, slot = cache.entries.lock_path(SIF.sha256), str(ep.cache / "slots/0")

    def waiting() -> None:
        os.closerange(first, max(first, second) + 1)  # its own share of the locks
        with pytest.raises(CacheSpaceError, match="not retried yet: no space"):
            cache.ensure(SIF, [open_source(web.url)], until=time.monotonic() + 20)

    def is_behind() -> bool:
        if behind == "a slot":
            return locks.is_locked(lock)
        return (ep.cache / "sif" / SIF.sha256[:2]).is_dir()  # made when nothing was known yet of a full disk

    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for path in (slot, lock))
    fcntl.flock(first, fcntl.LOCK_EX)
    if behind != "a slot":
        fcntl.flock(second, fcntl.LOCK_EX)
    job = child_process.start(waiting)
    while not is_behind():
        time.sleep(0.01)
    negative_cache.record_failure(cache.root, DISK_FULL, f"{SIF.size} no space", time.time())
    os.close(first if behind == "a slot" else second)
    assert child_process.end(job) == 0, "of the other lock it needs nothing any more"
    os.close(second if behind == "a slot" else first)
    assert web.downloads() == 0


def test_a_sif_is_pinned_before_it_is_looked_at(ep: ExecutionPoint, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    ep.store(CONTENT)
    starter, look = pins.Starter(os.getpid()), cache.entries.is_verified

    def pinned_first(sha256: str) -> bool:
        assert pins.count_pins(cache.root) == {sha256: 1}
        return look(sha256)

    monkeypatch.setattr(cache.entries, "is_verified", pinned_first)
    cache.ensure(SIF, [open_source(str(ep.origin))], starter=starter)
    assert pins.count_pins(cache.root) == {SIF.sha256: 1}
    pins.release(cache.root, starter)
    cache.ensure(SIF, [], starter=starter)
    assert pins.count_pins(cache.root) == {SIF.sha256: 1}


def test_that_there_is_no_room_is_remembered_and_for_no_longer_each_time(ep: ExecutionPoint) -> None:
    ep.store(CONTENT)
    full = Cache(str(ep.cache), most=(1000, 0.0))
    for _ in range(3):
        with pytest.raises(CacheSpaceError, match=r"no space in the cache .* for a SIF of 300.0 kB"):
            full.ensure(SIF, [open_source(str(ep.origin))])
        with pytest.raises(CacheSpaceError, match=r"not retried yet: no space .*\(1 in a row.* in [123]?\d s\)"):
            full.ensure(SIF, [open_source(str(ep.origin))])
        (ep.cache / "failures/room").write_text(f"1 {time.time() - 1} its time is over")


def test_who_waits_behind_other_downloads_waits_until_his_own_deadline(
    ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as long as his own download may take: a small one may be behind large ones."""
    cache = Cache(str(ep.cache), slots=1)
    ep.store(CONTENT)
    (ep.cache / "slots").mkdir(parents=True)
    ep.cache.chmod(0o700)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", sleep)
    until = 5 * fetch.time_limit(SIF.size)
    with locks.acquire([str(ep.cache / "slots/0")], 0), pytest.raises(CacheBusyError, match="limit is 1 downloads at a time"):
        cache.ensure(SIF, [open_source(str(ep.origin))], until=until)
    assert now[0] == pytest.approx(until)


def test_jobs_that_waited_for_another_ones_download_are_hits(ep: ExecutionPoint, web: FileServer, cache: Cache) -> None:
    ep.store(CONTENT)
    web.faults = ["stall"]
    first = child_process.start(lambda: cache.ensure(SIF, [open_source(web.url)]))
    web.stalled.wait()
    others = [child_process.start(lambda: cache.ensure(SIF, [open_source(web.url)])) for _ in range(5)]
    web.released.set()
    assert [child_process.end(child) for child in (first, *others)] == [0] * 6
    counts = counters.read(cache.root)
    assert (counts.hits, counts.downloads) == (5, 1)
