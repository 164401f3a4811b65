"""Garbage collection on real parts: what ``publisher gc`` and a sync remove, and when; and one that is killed anywhere."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.records import Record, Version
from publisher.maintain import block, gc, verify
from publisher.plan.retention import RetentionLimits
from publisher.publish.manifest.manifest_copy import ManifestCopy
from publisher.publish.publication import Publication
from publisher.state import paths, transitions
from publisher.state.signing import Signer
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.cvmfs.stand_in import FakeCvmfs
from tests.support.images.layers import directory, file, tar
from tests.support.images.printing_image import push
from tests.support.images.runnable import runnable
from tests.support.machine import child_process
from tests.support.publisher.built_values import AMD64, ARM64, answer, digest, entry
from tests.support.publisher.host import Host
from tests.support.publisher.prepublished import Place
from tests.support.registries.registry import RegistryServer, ask, push_image, push_index

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

DAY = 86400


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    return Host(shared_path, registry)


def days_pass(host: Host, days: int) -> None:
    """Move all times in the manifest and the origin into the past by some days."""
    publication = Publication(
        DirectoryRepository(host.repository),
        DirectoryOrigin(host.origin),
        Signer(host.key),
        clock=time.time,
        copy=ManifestCopy(host.state / "published" / host.repository.name),
    )
    snapshot, _ = publication.open()

    def older(version: Version) -> Version:
        value = version.to_json()
        times = {name: value[name] - days * DAY for name in ("since", "published", "until") if name in value}
        return Version.from_json({**value, **times})

    changed = {
        name: Record(
            name, record.reference, record.digest, {key: [*map(older, found)] for key, found in record.platforms.items()}
        )
        for name, record in snapshot.records.items()
    }
    publication.change(snapshot, changed, relink=False)
    for path in (host.origin / "sif").rglob("*.sif"):
        stored = path.stat().st_mtime - days * DAY
        os.utime(path, (stored, stored))


def sifs(host: Host) -> list[str]:
    return sorted(path.name for path in (host.origin / "sif").rglob("*.sif"))


def test_superseded_versions_are_removed_with_their_data_and_a_dead_registry_removes_nothing(
    host: Host, shared_path: Path
) -> None:
    with RegistryServer(shared_path / "registry") as registry:
        host.registry = registry
        push(registry, "gc/moving:1", "old")
        push(registry, "gc/leaving:1", "left")
        host.images("gc/moving:1", "gc/leaving:1")
        host.sync()
        old = (host.repository / "gc/moving:1").resolve()
        push(registry, "gc/moving:1", "new")
        host.images("gc/moving:1")
        host.sync("--allow-mass-removal")
        assert host.run("gc", check=True).stdout == "nothing to do\n"
        left = sifs(host)
        days_pass(host, 13)
        assert host.sync().said["cleared"] == []
        days_pass(host, 1)
        planned = host.run("gc", "--dry-run", check=True).stdout
        assert sifs(host) == left
        report = host.sync()
        assert report.said["cleared"] == planned.replace("would be removed", "was removed").splitlines()
        assert not old.exists()
        assert not (host.repository / "gc/leaving:1").exists(), "its last day is over"
        assert len(sifs(host)) == 2, "of the new one, and of the one that left just now"
        assert (host.repository / "gc/moving:1/etc/motd").read_text() == "new\n"
        assert host.run("verify").stdout == ""
    days_pass(host, 40)
    dead = host.sync(check=False)
    assert dead.results == {"gc/moving:1": "failed"}
    assert len(sifs(host)) == 1, "what left is gone"
    assert (host.repository / "gc/moving:1/etc/motd").read_text() == "new\n", "and the last good build stays for ever"
    assert host.record("gc/moving:1").platforms["amd64"][0].state == "current"
    assert host.run("verify").stdout == ""


def test_an_image_that_returns_before_its_data_is_removed_is_not_built_again(host: Host, registry: RegistryServer) -> None:
    gone = push(registry, "gc/back:1", "here")
    host.images("gc/back:1")
    host.sync()
    sandbox = (host.repository / "gc/back:1").resolve()
    assert ask(registry.address, "DELETE", f"/v2/gc/back/manifests/{gone}").status == 202
    host.sync("--allow-mass-removal")
    days_pass(host, 14)
    host.sync()
    assert not (host.repository / "gc/back:1").exists()
    before = sandbox.stat().st_ino
    push(registry, "gc/back:1", "here")
    assert host.sync().results == {"gc/back:1": "published"}
    assert (host.repository / "gc/back:1").stat().st_ino == before


def test_an_unwanted_format_and_platform_are_removed_with_their_data(host: Host, registry: RegistryServer) -> None:
    top = [tar([directory("etc"), file("etc/motd", b"x\n")])]
    parts = {
        one: push_image(registry.address, "gc/many", "", [tar(runnable()), *top], platform=one)
        for one in ("linux/amd64", "linux/arm64")
    }
    push_index(registry.address, "gc/many", "1", parts)
    host.images({"image": "gc/many:1", "platforms": ["linux/amd64", "linux/arm64"]})
    host.sync()
    amd64, arm64 = ((host.repository / name).resolve() for name in ("gc/many:1", ".arch/arm64/gc/many:1"))
    host.images({"image": "gc/many:1", "formats": ["sif"]})
    assert "arm64 is no longer wanted" in host.sync().reasons["gc/many:1"]
    assert set(host.sync().results.values()) == {"unchanged"}
    assert sorted(path.is_dir() for path in (amd64, arm64)) == [True, True]
    assert (host.repository / ".arch/arm64/gc/many:1").samefile(arm64), "until its last day"
    assert not (host.repository / "gc/many:1").is_symlink()
    assert host.run("verify").stdout == ""
    for left in (True, False):
        days_pass(host, 14)
        assert host.sync().said["cleared"] != []
        assert (amd64.exists(), arm64.exists()) == (False, left)
        assert not (host.repository / ".arch").exists()
        assert host.run("verify").stdout == ""
    assert len(sifs(host)) == 1


def test_sync_of_names_collects_no_garbage(host: Host, registry: RegistryServer) -> None:
    push(registry, "gc/only:1", "one")
    host.images("gc/only:1")
    host.sync()
    push(registry, "gc/only:1", "two")
    host.sync()
    days_pass(host, 20)
    assert host.sync("gc/only:1").said["cleared"] == []
    assert host.sync().said["cleared"] != []


def everything_named_is_there(place: Place) -> None:
    """Assert that no manifest, in either place, names what is not there."""
    for read, prefix in ((place.repository.read, paths.REPOSITORY_MANIFEST), (place.origin.read, paths.ORIGIN_MANIFEST)):
        content = read(f"{prefix}/{manifest.INDEX_NAME}")
        assert content is not None
        for sha256 in filter(None, manifest.Index.parse(manifest.unseal(content)[0]).shards):
            shard = read(f"{prefix}/{manifest.shard_name(sha256)}")
            assert shard is not None
            parsed = manifest.Shard.parse(shard, sha256)
            for name in parsed.records:
                record = parsed.record(name)
                assert record is not None
                for _, version in record.versions():
                    assert version.sif is not None
                    assert place.origin.size(version.sif.path) is not None
                    if prefix == paths.REPOSITORY_MANIFEST:
                        assert version.sandbox is not None
                        assert place.repository.exists(version.sandbox)
    for link in place.repository.links():
        assert place.repository.exists(link)


def test_a_garbage_collection_that_is_killed_anywhere_costs_only_a_rerun(shared_path: Path) -> None:
    bounds = RetentionLimits(14 * DAY, 100, 10**12)
    before = shared_path / "before"
    before.mkdir()
    place = Place(before)
    publication = place.publication()
    place.publish(publication, (entry("a/a:1"), answer("one")), (entry("a/b:1"), answer("left")))
    snapshot = place.publish(publication, (entry("a/a:1"), answer("two"))).snapshot
    publication.publish(snapshot, [], ["a/b:1"])
    place.now += 14 * DAY

    def clear() -> None:
        opened = place.publication()
        snapshot, _ = opened.open()
        assert gc.collect(opened, snapshot, place.now, bounds).error is None

    at = 0
    while True:
        place.move(shutil.copytree(before, shared_path / f"place-{at}", symlinks=True))
        killed = child_process.killed(at, clear)
        if killed:
            everything_named_is_there(place)
            place.publication().open()
            everything_named_is_there(place)
            clear()
        assert place.repository.links().keys() == {"a/a:1"}
        assert not place.repository.exists(paths.sandbox_path(digest("one linux/amd64")))
        assert len(list(place.origin.names("sif"))) == 2
        everything_named_is_there(place)
        place.in_both()
        if not killed:
            break
        at += 3
    assert at > 30, "or the clearing was not watched"


def test_a_cvmfs_repository_is_cleared_blocked_rolled_back_and_verified_like_any_other(tmp_path: Path) -> None:
    fake = FakeCvmfs(tmp_path)
    try:
        place = Place(tmp_path)
        place.repository = fake.repository()  # type: ignore[assignment]  # which of them is the point
        publication = place.publication()
        for text in ("one", "two", "three"):
            place.publish(publication, (entry("a/a:1", [AMD64, ARM64]), answer(text, [AMD64, ARM64])))
        snapshot = place.publish(publication, (entry("a/b:1"), answer("left"))).snapshot
        snapshot = publication.publish(snapshot, [], ["a/b:1"]).snapshot
        snapshot = publication.change(
            snapshot, {"a/a:1": transitions.roll_back(snapshot.records["a/a:1"], int(place.now))}
        ).snapshot
        assert (place.repository.root / "a/a:1/content").read_text() == digest("two linux/amd64")
        place.now += 14 * DAY
        cleared = gc.collect(publication, snapshot, place.now, RetentionLimits(14 * DAY, 100, 10**12))
        assert cleared.error is None
        assert sorted(place.repository.links()) == [".arch/arm64/a/a:1", "a/a:1"]
        for text in ("one", "three"):
            assert not place.repository.exists(paths.sandbox_path(digest(f"{text} linux/amd64")))
        place.in_both()
        blocking = block.plan_block(cleared.snapshot, digest("two linux/amd64"), place.now, "stolen data")
        blocked = block.apply(publication, cleared.snapshot, blocking).snapshot
        assert list(place.repository.links()) == [".arch/arm64/a/a:1"]
        assert list(verify.verify_links(place.repository, blocked)) == []
        assert list(verify.verify_manifest(place.repository, place.origin, place.now, [place.signer.public])) == []
        assert fake.commands().count("transaction") == fake.commands().count("publish") == 8, (
            "and nothing was published for nothing"
        )
    finally:
        fake.close()
