"""Many jobs that want the same SIF, or different ones, and what failed for one of them."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver import failures, pins, turn
from publisher.resolver.cache import Cache
from publisher.resolver.errors import BusyError, FetchError, RoomError
from publisher.resolver.sources import Source, source
from tests.support import children
from tests.support.execution_point import ExecutionPoint, sif_content, sif_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.file_server import FileServer

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
            cache.sif(SIF, [source(web.url)])

    first = children.start(one)
    web.stalled.wait()
    others = [children.start(one) for _ in range(10)]
    for _ in (first, *others):
        os.read(begin, 1)
    web.released.set()
    assert [children.end(child) for child in (first, *others)] == [0] * 11
    assert web.downloads() == 2, "the first one's two tries"


def test_what_failed_a_moment_ago_is_not_asked_for_and_said(ep: ExecutionPoint, web: FileServer, cache: Cache) -> None:
    ep.store(CONTENT)
    web.faults = ["error", "error"]
    for said in ("cannot fetch", "not tried again yet: cannot fetch"):
        with pytest.raises(FetchError, match=said):
            cache.sif(SIF, [source(web.url)])
    assert web.downloads() == 2
    failures.forget(cache.root, SIF.sha256)
    cache.sif(SIF, [source(web.url)])
    assert not (ep.cache / "failures" / SIF.sha256).exists()


def test_a_job_whose_own_time_is_over_leaves_no_failure_behind(ep: ExecutionPoint, cache: Cache) -> None:
    ep.store(CONTENT)

    class Slow(Source):
        def pieces(self, name: str, start: int, size: int | None, _: object = None) -> Iterator[bytes]:
            assert (name, size) == (SIF.path, len(CONTENT))
            yield CONTENT[start : start + 1000]
            while time.monotonic() <= until:
                pass
            yield CONTENT[start + 1000 : start + 2000]

    until = time.monotonic() + 0.05
    with pytest.raises(FetchError, match="only 2000 of 300000 bytes came in time"):
        cache.sif(SIF, [Slow("slow")], until=until)
    path, _ = cache.sif(SIF, [source(str(ep.origin))])
    assert Path(path).stat().st_size == len(CONTENT)


def test_a_hit_needs_no_turn_and_no_lock(ep: ExecutionPoint, cache: Cache) -> None:
    ep.store(CONTENT)
    cache.sif(SIF, [source(str(ep.origin))])
    with turn.taken([cache.shelf.lock(SIF.sha256)], 0):
        assert cache.sif(SIF, [], until=0)[1] == ""


def test_no_more_downloads_than_the_host_may_have_run_at_a_time(ep: ExecutionPoint) -> None:
    cache = Cache(str(ep.cache), slots=2)
    ep.store(CONTENT)
    (ep.cache / "slots").mkdir(parents=True)
    ep.cache.chmod(0o700)
    slots = [str(ep.cache / "slots" / number) for number in "01"]
    with turn.taken(slots[:1], 0):
        with turn.taken(slots[1:], 0), pytest.raises(BusyError, match="2 downloads at a time"):
            cache.sif(SIF, [source(str(ep.origin))], until=0)
        cache.sif(SIF, [source(str(ep.origin))])


def test_a_disk_that_is_full_is_not_filled_again_by_each_job(ep: ExecutionPoint, cache: Cache) -> None:
    asked = []

    class Filling(Source):
        """A disk that somebody else fills while the download runs."""

        def pieces(self, name: str, start: int, size: int | None, _: object = None) -> Iterator[bytes]:
            asked.append((name, start, size))
            yield CONTENT[:1000]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for said in ("no room for the 300000 bytes", "not tried again yet: no room"):
        with pytest.raises(RoomError, match=said):
            cache.sif(SIF, [Filling("filling")])
    assert len(asked) == 2, "once more, with room made"
    small = sif_of(sif_content("small", 1000))
    ep.store(sif_content("small", 1000))
    cache.sif(small, [source(str(ep.origin))])
    ep.store(CONTENT)
    cache.sif(SIF, [source(str(ep.origin))])


def test_a_sif_is_pinned_before_it_is_looked_at(ep: ExecutionPoint, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    ep.store(CONTENT)
    starter, look = pins.Starter(os.getpid()), cache.shelf.is_seen

    def pinned_first(sha256: str) -> bool:
        assert pins.held(cache.root) == {sha256: 1}
        return look(sha256)

    monkeypatch.setattr(cache.shelf, "is_seen", pinned_first)
    cache.sif(SIF, [source(str(ep.origin))], starter=starter)
    assert pins.held(cache.root) == {SIF.sha256: 1}
    pins.release(cache.root, starter)
    cache.sif(SIF, [], starter=starter)
    assert pins.held(cache.root) == {SIF.sha256: 1}
