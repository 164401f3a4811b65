"""Hits, downloads, removals and kills at once, many times: no job ever gets a file that is not its image."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.cache import eviction, pins, sweep
from publisher.resolver.cache.cache import Cache
from publisher.resolver.cache.eviction import CacheLimits
from publisher.resolver.errors import CacheSpaceError
from publisher.resolver.transfer.open_source import open_source
from tests.support.ep.execution_point import ExecutionPoint, sif_content, sif_of
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.system

SIZE = 50_000
IMAGES = [sif_content(f"image {number}", SIZE) for number in range(3)]
ROUNDS, PROCESSES, MOST_CHANGES = 40, 6, 25


def job(ep: ExecutionPoint, content: bytes) -> None:
    """What a hook and its job do: the SIF is there, and is the right one, as long as the starter lives."""
    cache, starter = Cache(str(ep.cache), most=(2 * SIZE, 0.0)), pins.Starter(os.getpid())
    with contextlib.suppress(CacheSpaceError):  # where jobs need the other two
        path, _ = cache.ensure(sif_of(content), [open_source(str(ep.origin))], starter=starter)
        for _ in range(3):
            assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == sif_of(content).sha256
    pins.release(cache.root, starter)


def cleaner(ep: ExecutionPoint) -> None:
    cache = Cache(str(ep.cache))
    cache.prepare()
    (ep.cache / "locks").mkdir(exist_ok=True)
    eviction.trim(cache.entries, CacheLimits(SIZE, 0))
    sweep.sweep(cache.entries)


def test_hits_downloads_removals_and_kills_at_once(ep: ExecutionPoint) -> None:
    chance = random.Random(7)
    for content in IMAGES:
        ep.store(content)
    for _ in range(ROUNDS):
        work: list[Callable[[], object]] = []
        for _ in range(PROCESSES):
            content, at = chance.choice(IMAGES), chance.randrange(MOST_CHANGES)
            kind = chance.randrange(4)
            if kind == 0:
                work.append(lambda: cleaner(ep))
            elif kind == 1:
                work.append(lambda content=content, at=at: child_process.killed(at, lambda: job(ep, content)))  # type: ignore[misc]
            else:
                work.append(lambda content=content: job(ep, content))  # type: ignore[misc]
        started = [child_process.start(one) for one in work]
        assert [child_process.end(child) for child in started] == [0] * PROCESSES
    for content in IMAGES:
        job(ep, content)
    for path in (ep.cache / "sif").rglob("*.sif"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    assert pins.count_pins(str(ep.cache)) == {}
    assert not list((ep.cache / "pins").iterdir())


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    return ExecutionPoint(tmp_path)
