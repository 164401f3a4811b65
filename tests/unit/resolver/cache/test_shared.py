"""A store that root or a daemon fills and jobs read."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from publisher.resolver.cache import counters, pins, shared
from publisher.resolver.cache.cache import Cache
from publisher.resolver.cache.entries import CacheEntries
from publisher.resolver.errors import CacheError
from publisher.resolver.host import cache_admin
from publisher.resolver.system.notes import Warnings
from tests.support.ep.execution_point import NOW, ExecutionPoint, record, sif_content, version
from tests.support.machine import child_process

pytestmark = pytest.mark.usefixtures("own_reads")

NAME = "htc/rocky:9"
CONTENT = sif_content(NAME, 20_000)
ME = str(os.geteuid())
NOBODY = 65534


@pytest.fixture
def ep(shared_path: Path) -> ExecutionPoint:
    return ExecutionPoint(shared_path)


@pytest.fixture
def filled(ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one image; the origin is gone."""
    monkeypatch.setattr("time.time", lambda: float(NOW))
    root = ep.root / "store"
    ep.publish(record(NAME, amd64=[version(NAME, sif=ep.store(CONTENT))]))
    cache_admin.run(["fill", NAME], ep.settings(store=str(root), store_owner=ME), Warnings())
    (ep.origin / "sif").rename(ep.origin / "away")
    return root


def sha256(ep: ExecutionPoint) -> str:
    (sif,) = (ep.root / "store/sif").rglob("*.sif")
    return sif.stem


def test_jobs_get_what_is_in_the_store_and_pin_it(ep: ExecutionPoint, filled: Path) -> None:
    before = os.umask(0o077)
    try:
        answer = ep.resolve(NAME, form="sif", store=str(filled), store_owner=ME)
    finally:
        os.umask(before)
    assert answer.path.startswith(f"{filled}/sif/")
    assert not (ep.cache / "sif").exists()
    assert counters.read(str(ep.cache)).hits == 1
    starter = pins.Starter(os.getpid())
    assert shared.find(str(filled), os.geteuid(), sha256(ep), starter) == answer.path
    assert pins.count_pins(str(filled)) == {sha256(ep): 1}
    for path in (filled, filled / "sif", *(filled / "sif").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE((filled / "pins").stat().st_mode) == 0o1777


def test_an_ordinary_user_reads_and_pins_and_changes_nothing(ep: ExecutionPoint, filled: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: another user's store; only root can make one")

    def job() -> None:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        path = shared.find(str(filled), 0, name, pins.Starter(os.getpid()))
        assert path is not None
        assert pins.count_pins(str(filled)) == {name: 1}
        with pytest.raises(PermissionError):
            Path(path).unlink()

    name = sha256(ep)
    assert child_process.end(child_process.start(job)) == 0


@pytest.mark.parametrize("what", ["", "sif", "directory", "file"])
def test_what_others_may_change_is_refused(ep: ExecutionPoint, filled: Path, what: str) -> None:
    (sif,) = (filled / "sif").rglob("*.sif")
    path = {"": filled, "sif": filled / "sif", "directory": sif.parent, "file": sif}[what]
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(CacheError, match="other users may"):
        shared.find(str(filled), os.geteuid(), sha256(ep), None)
    ep.origin.joinpath("away").rename(ep.origin / "sif")
    answer = ep.resolve(NAME, form="sif", store=str(filled), store_owner=ME)
    assert answer.path.startswith(str(ep.cache)), "the job's own cache serves"
    assert any("other users may" in line for line in ep.notes.warnings)


def test_a_strangers_store_is_refused(ep: ExecutionPoint, filled: Path) -> None:
    if os.geteuid() == 0:
        os.chown(filled, 12345, 12345)
    with pytest.raises(CacheError, match="belongs to user"):
        shared.find(str(filled), 54321, sha256(ep), None)


def test_what_was_touched_in_the_store_is_not_handed_out(ep: ExecutionPoint, filled: Path) -> None:
    (sif,) = (filled / "sif").rglob("*.sif")
    sif.chmod(0o644)
    sif.write_bytes(b"?" * len(CONTENT))
    assert shared.find(str(filled), os.geteuid(), sha256(ep), None) is None
    assert shared.find(str(filled), os.geteuid(), "0" * 64, None) is None


def test_a_job_that_has_ended_has_used_what_it_had(ep: ExecutionPoint, filled: Path) -> None:
    """What goes first is what was used longest ago, and jobs cannot write that down in a store."""
    entries = CacheEntries(str(filled))
    starter = child_process.start(signal.pause)
    entries.mark_used(sha256(ep), 1000)
    pins.pin(str(filled), sha256(ep), pins.Starter(starter))
    assert pins.count_pins(str(filled), entries.record_use) == {sha256(ep): 1}
    assert [item.last_used for item in entries.by_last_use()] == [1000]
    os.kill(starter, signal.SIGKILL)
    child_process.end(starter)
    run = cache_admin.run(["gc"], ep.settings(cache=str(filled), cache_free="0"), Warnings())
    assert run["removed"] == 0
    (item,) = entries.by_last_use()
    assert item.last_used > 1000
    entries.record_use(item.sha256, item.last_used - 1)
    assert [later.last_used for later in entries.by_last_use()] == [item.last_used], "there was a later use"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's link")
def test_a_strangers_link_to_a_safe_directory_is_refused(tmp_path: Path) -> None:
    """He could lead it elsewhere at any time."""
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    Cache(str(tmp_path / "link")).prepare()
    os.chown(tmp_path / "link", 12345, 12345, follow_symlinks=False)
    with pytest.raises(CacheError, match="belongs to user 12345"):
        Cache(str(tmp_path / "link")).prepare()
