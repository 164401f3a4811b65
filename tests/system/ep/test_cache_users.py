"""Root looks after the caches of all users, where each has one of his own, and after nothing else."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from publisher.resolver.cache.cache import Cache
from publisher.resolver.errors import CacheSpaceError
from publisher.resolver.host import cache_admin, cache_render
from publisher.resolver.system.notes import Warnings
from publisher.resolver.transfer.open_source import open_source
from tests.support.ep.execution_point import ExecutionPoint, sif_content
from tests.support.machine import child_process
from tests.support.machine.small_disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

SIZE, SMALL = 270_000, 4000
EARLY, LATE = 40_001, 40_002
"""Users, by who came first."""


class Host:
    """Two users' caches on a disk of a megabyte, which has no room for a fourth SIF: the first user has three, and left."""

    def __init__(self, root: Path, disk: Path) -> None:
        self.ep = ExecutionPoint(root)
        self.disk = disk
        self.notes = Warnings()
        disk.chmod(0o1777)
        for name in ("a", "b", "c"):
            self.fetch(EARLY, name)
        self.fetch(LATE, "small", SMALL)

    def cache(self, user: int) -> Path:
        return self.disk / str(user)

    def fetch(self, user: int, name: str, size: int = SIZE, *, fails: bool = False) -> None:
        """As that user; with ``fails`` there is no room."""
        sif = self.ep.store(sif_content(name, size))

        def job() -> None:
            os.setresuid(user, user, user)
            with pytest.raises(CacheSpaceError) if fails else nullcontext():
                Cache(str(self.cache(user)), least_free=(0, 0.05)).ensure(sif, [open_source(str(self.ep.origin))])

        assert child_process.end(child_process.start(job)) == 0

    def run(self, subcommand: str, **changed: str) -> Any:
        settings = self.ep.settings(cache=f"{self.disk}/{{uid}}", **{"cache_free": "0", **changed})
        return cache_admin.run([subcommand], settings, self.notes)

    def sifs(self, user: int) -> int:
        return len(list(self.cache(user).rglob("*.sif")))


@pytest.fixture
def host(shared_path: Path) -> Iterator[Host]:
    with small_disk(shared_path / "disk", "size=1m", "root and the caches of users") as disk:
        yield Host(shared_path, disk)


def test_who_left_a_full_cache_makes_room_for_the_others(host: Host) -> None:
    host.fetch(LATE, "d", fails=True)
    assert host.run("gc", cache_free="40 %")["removed"] == 1
    host.fetch(LATE, "d")
    assert host.run("gc", cache_free="40 %")["bytes"] == SIZE
    assert (host.sifs(EARLY), host.sifs(LATE)) == (1, 2), "who has used his longest ago makes room first"
    owners = {(path.relative_to(host.disk).parts[0], str(path.lstat().st_uid)) for path in host.disk.rglob("*")}
    assert owners == {(str(EARLY), str(EARLY)), (str(LATE), str(LATE))}, "what root made there would be in its user's way"
    assert host.notes.all == []


def test_root_sees_all_caches(host: Host) -> None:
    assert [row["user"] for row in host.run("list")] == [EARLY] * 3 + [LATE]
    assert f"user {LATE}  " in cache_render.render(host.run("list"))
    found = host.run("statistics")
    assert (found["ImageCacheImages"], found["ImageCacheBytes"], found["ImageCacheFetches"]) == (4, 3 * SIZE + SMALL, 4)
    assert 0 < found["ImageCacheFreeBytes"] < SIZE
    assert 0 < found["ImageCacheOldestUse"] <= time.time()
    assert host.run("gc") == {"swept": 0, "bytes": 0, "removed": 0, "images": ""}


def test_a_cache_that_leads_elsewhere_harms_nobody_else(host: Host) -> None:
    precious = host.ep.root / "precious"
    precious.mkdir()
    file = precious / f"{'a' * 64}.sif"
    file.write_bytes(bytes(SIZE))
    (host.cache(EARLY) / "sif/aa").symlink_to(precious)
    os.utime(file, (1, 1))  # the first to go
    host.run("gc", cache_size="1")
    assert file.exists()
    assert host.sifs(LATE) == 0
    assert [str(host.cache(EARLY)) in note for note in host.notes.all] == [True]
