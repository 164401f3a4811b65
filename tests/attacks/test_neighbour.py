"""Another user of the same execution point, who can write where everybody can: the shared directories of mode 1777."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.resolver.cache import slots
from publisher.resolver.cache.cache import Cache, from_settings
from publisher.resolver.config.settings import ResolverSettings
from publisher.resolver.errors import CacheError
from publisher.resolver.host import all_users
from publisher.resolver.system import locks
from publisher.resolver.transfer.open_source import open_source
from tests.support.ep.execution_point import ExecutionPoint, sif_content

MALLORY = 12345
CONTENT = sif_content("htc/rocky:9")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for two users")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of mode 1777."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o1777)
    return path


def settings(shared: Path) -> ResolverSettings:
    return ResolverSettings({"repository": ["/cvmfs/images.example.org"], "cache": [f"{shared}/{{uid}}"]}, "amd64")


@needs_root
def test_who_takes_the_name_of_a_victims_cache_gains_nothing(shared: Path) -> None:
    taken = shared / str(os.geteuid())
    taken.mkdir()
    os.chown(taken, MALLORY, MALLORY)
    guess = shared / f"{os.geteuid()}-0000000000000000"
    guess.mkdir()
    os.chown(guess, MALLORY, MALLORY)
    cache = from_settings(settings(shared))
    cache.prepare()
    assert Path(cache.root).stat().st_uid == os.geteuid()
    assert from_settings(settings(shared)).root == cache.root, "the next job finds it again"
    assert all_users.find_caches(f"{shared}/{{uid}}") == [(os.geteuid(), cache.root)], "and so does root"


@pytest.mark.parametrize("squatted", ["fifo", "directory", "link", "locked"])
def test_who_holds_or_replaces_all_slots_delays_downloads_and_no_more(
    ep: ExecutionPoint, shared: Path, monkeypatch: pytest.MonkeyPatch, squatted: str
) -> None:
    monkeypatch.setattr(slots, "SHARED_PATIENCE", 0.1)
    slot = shared / "0"
    if squatted == "fifo":
        os.mkfifo(slot)
    elif squatted == "directory":
        slot.mkdir()
    elif squatted == "link":
        slot.symlink_to("/etc/passwd")
    sif = ep.store(CONTENT)
    cache = Cache(str(ep.cache), slots=1, slot_directory=str(shared))
    with locks.acquire([str(slot)] if squatted == "locked" else [str(shared / "1")], 0):
        path, _ = cache.ensure(sif, [open_source(str(ep.origin))], timeout=60)
    assert Path(path).read_bytes() == CONTENT


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_cache_below_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    above = tmp_path / "above"
    (above / "cache").mkdir(parents=True, mode=0o700)
    above.chmod(mode)
    with pytest.raises(CacheError, match="other users may replace the cache"):
        Cache(str(above / "cache")).prepare()
    above.chmod(mode | 0o1000)
    Cache(str(above / "cache")).prepare()


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    return ExecutionPoint(tmp_path)
