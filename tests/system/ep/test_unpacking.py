"""A host that cannot mount SIFs: an image is unpacked once into the cache, complete or not at all."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import eviction, pins, sweep, unpack
from publisher.resolver.cache.cache import Cache, from_settings
from publisher.resolver.cache.entries import unpacked_key
from publisher.resolver.errors import CacheError, SandboxError
from publisher.resolver.hook import decide, statuses
from publisher.resolver.hook.job import Job
from publisher.resolver.select import facts, foreign
from publisher.resolver.system import classad, path_probe
from publisher.resolver.system.notes import Warnings
from publisher.resolver.transfer.open_source import open_source
from tests.support.checkout import ROOT
from tests.support.ep.execution_point import NOW, REPOSITORY, ExecutionPoint, record, version
from tests.support.ep.hook import Hook, job_ad, reply
from tests.support.images.small_sif import small_sif
from tests.support.machine import child_process

if TYPE_CHECKING:
    from publisher.contract.records import Sif

pytestmark = pytest.mark.system

NAME = "htc/rocky:9"
CONTENT = {"bin/tool": b"x" * 100_000, "etc/motd": b"hello\n"}


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    """An image that is published as a SIF only, on a host that cannot mount SIFs."""
    ep = ExecutionPoint(tmp_path)
    (tmp_path / "build").mkdir()
    sif = ep.store(small_sif(tmp_path / "build", CONTENT))
    ep.publish(record(NAME, amd64=[version(NAME, sif=sif, sandbox=None, unpacked_size=100_006, files=5)]))
    facts.write(str(ep.cache / "facts.json"), {"sif": False}, NOW)
    ep.cache.chmod(0o700)
    return ep


@pytest.fixture
def sif(ep: ExecutionPoint) -> Sif:
    (found,) = ep.origin.glob("sif/*/*.sif")
    return ep.store(found.read_bytes())


def left_over(ep: ExecutionPoint) -> list[Path]:
    return [path for path in (ep.cache / "sif").glob("*/*") if ".part" in path.name]


def test_a_sif_that_cannot_be_mounted_is_unpacked_once(ep: ExecutionPoint, sif: Sif) -> None:
    first = ep.resolve(NAME)
    tree = Path(first.path)
    assert (first.form, tree.name) == ("unpacked", unpacked_key(sif.sha256))
    assert {name: (tree / name).read_bytes() for name in CONTENT} == CONTENT
    assert (tree / "locked" / "link").is_symlink()
    before = tree.stat().st_ino
    again = ep.resolve(NAME)
    assert (again.path, again.sif_source, tree.stat().st_ino) == (first.path, "", before)
    assert left_over(ep) == []


def test_a_sandbox_in_the_repository_is_preferred_to_unpacking(ep: ExecutionPoint, sif: Sif) -> None:
    ep.publish(record(NAME, amd64=[version(NAME, sif=sif)]), serial=2)
    assert ep.resolve(NAME).form == "sandbox"
    assert not (ep.cache / "sif").exists()
    assert ep.resolve(NAME, form="sif").form == "unpacked"


def test_without_unsquashfs_apptainer_unpacks(ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = ep.root / "programs"
    programs.mkdir()
    apptainer = programs / "apptainer"
    apptainer.write_text('#!/bin/sh\n[ "$1 $2" = "build --sandbox" ] && mkdir "$3" && echo "$4" > "$3/asked"\n')
    apptainer.chmod(0o755)
    find = path_probe.find_program
    monkeypatch.setattr(path_probe, "find_program", lambda names: None if names == ("unsquashfs",) else find(names))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert (Path(ep.resolve(NAME).path) / "asked").read_text().strip().endswith(".sif")


def test_what_stands_in_the_way_is_said_by_its_own_status(ep: ExecutionPoint, sif: Sif, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(**changed: str) -> tuple[int, str]:
        with pytest.raises(ExpectedError) as failure:
            ep.resolve(NAME, NOW, **changed)
        return statuses.for_error(failure.value), str(failure.value)

    assert status(unpack="never")[0] == statuses.HOST
    code, message = status(cache_size="50 kB")
    assert (code, "no space" in message) == (statuses.NO_ROOM, True)
    ep.publish(record(NAME, amd64=[version(NAME, sif=sif)]), serial=2)
    (ep.repository / str(version(NAME).sandbox)).rename(ep.root / "away")
    code, message = status(unpack="never")
    assert (code, "SIFs cannot be mounted" in message) == (statuses.HOST, True)
    assert status(cache_size="50 kB")[0] == statuses.NO_ROOM, "not a fault of the sandbox alone"
    find = path_probe.find_program
    monkeypatch.setattr(path_probe, "find_program", lambda names: find(names) if names == ("openssl",) else None)
    assert status()[0] == statuses.HOST
    facts.write(str(ep.cache / "facts.json"), {"sif": True}, NOW)
    with pytest.raises(SandboxError):
        ep.resolve(NAME, form="sandbox")


def test_a_foreign_sif_is_unpacked_as_well(ep: ExecutionPoint, sif: Sif, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ep.settings(unknown="fetch")
    path, _ = from_settings(settings).ensure(sif, [open_source(str(ep.origin))])
    monkeypatch.setattr(foreign, "ensure", lambda *_, **__: (sif, path, ""))
    job = Job(classad.parse(job_ad(SingularityImage="osdf:///ospool/x.sif")))
    until = time.monotonic() + 60
    found = decide.decide(job, settings, scratch=str(ep.root), now=NOW, until=until, notes=Warnings())
    assert (found.code, found.updates["WantSandboxImage"]) == (0, True), found.message
    assert (Path(str(found.updates["SingularityImage"])) / "etc" / "motd").read_bytes() == CONTENT["etc/motd"]


def test_a_sif_that_cannot_be_unpacked_is_not_unpacked_again_at_once(ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    find = path_probe.find_program
    monkeypatch.setattr(path_probe, "find_program", lambda names: find(names) if names == ("openssl",) else "/bin/false")
    with pytest.raises(CacheError, match="false ended with status 1"):
        ep.resolve(NAME)
    monkeypatch.undo()
    with pytest.raises(CacheError, match="not retried yet"):
        ep.resolve(NAME)
    assert left_over(ep) == []


def test_it_counts_against_the_limits_and_is_pinned_and_evicted_like_a_sif(ep: ExecutionPoint, sif: Sif) -> None:
    tree = Path(ep.resolve(NAME).path)
    target = from_settings(ep.settings())
    sizes = {entry.sha256: entry.size for entry in target.entries.by_last_use()}
    assert sizes[unpacked_key(sif.sha256)] >= 100_000
    user = pins.Starter(os.getpid())
    pins.pin(str(ep.cache), unpacked_key(sif.sha256), user)
    small = Cache(str(ep.cache), most=(1000, 0.0))
    eviction.trim(small.entries, small.limits())
    assert tree.exists()
    pins.release(str(ep.cache), user)
    eviction.trim(small.entries, small.limits())
    assert not tree.exists()
    assert small.entries.by_last_use() == []


def test_a_damaged_sandbox_is_found_and_removed(ep: ExecutionPoint, sif: Sif) -> None:
    tree = Path(ep.resolve(NAME).path)
    entries, key = from_settings(ep.settings()).entries, unpacked_key(sif.sha256)
    assert entries.verify(key)
    assert entries.is_verified(key)
    (tree / "etc" / "motd").write_bytes(b"hellO\n")
    assert not entries.verify(key)
    assert not tree.exists()


def test_a_kill_at_any_step_leaves_a_complete_sandbox_or_none(ep: ExecutionPoint, sif: Sif) -> None:
    target = from_settings(ep.settings())
    ep.resolve(NAME)
    key = unpacked_key(sif.sha256)
    tree = Path(target.entries.sif_path(key))
    for step in itertools.count():
        target.entries.remove(key)
        killed = child_process.killed(step, lambda: unpack_now(target, sif))
        assert not tree.exists() or (tree / "bin" / "tool").read_bytes() == CONTENT["bin/tool"], step
        unpack_now(target, sif)
        assert (tree / "etc" / "motd").read_bytes() == CONTENT["etc/motd"], step
        if not killed:
            break
    assert step > 10
    for left in left_over(ep):
        os.utime(left, (0, 0))
    sweep.sweep(target.entries)
    assert left_over(ep) == []


def unpack_now(target: Cache, sif: Sif) -> None:
    path = target.entries.sif_path(sif.sha256)
    unpack.ensure(target.entries, target.limits(), sif.sha256, path, 10**6, until=time.monotonic() + 60)


def test_many_jobs_at_once_make_one_unpacking(ep: ExecutionPoint) -> None:
    count = ep.root / "count"
    programs = ep.root / "programs"
    programs.mkdir()
    (programs / "unsquashfs").write_text(f'#!/bin/sh\necho . >> {count}\nexec /usr/bin/unsquashfs "$@"\n')
    (programs / "unsquashfs").chmod(0o755)
    ep.publish(*[record(NAME, amd64=[version(NAME, sif=found, sandbox=None)]) for found in sifs(ep)], now=int(time.time()))
    facts.write(str(ep.cache / "facts.json"), {"sif": False}, time.time())
    hook = Hook([ROOT / ".venv" / "bin" / "python", "-m", "publisher.resolver"], ep)
    hook.environment.update(PYTHONPATH=str(ROOT), PATH=f"{programs}:{os.environ['PATH']}")
    jobs = [hook.start() for _ in range(12)]
    answers = [reply(job.communicate(job_ad(ContainerImage=f"/cvmfs/{REPOSITORY}/{NAME}"), timeout=120)[0]) for job in jobs]
    assert {(answer.code, answer.form) for answer in answers} == {(0, "sandbox")}, answers[0].message
    assert len({answer.image for answer in answers}) == 1
    assert count.read_text() == ".\n"


def sifs(ep: ExecutionPoint) -> list[Sif]:
    return [ep.store(path.read_bytes()) for path in ep.origin.glob("sif/*/*.sif")]
