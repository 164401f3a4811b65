"""Which manifest holds; tests are named after what an attacker, an accident or time does to it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.manifest import CLOCK_ERROR, EXPIRED, HARD_LIMIT, LIFETIME
from publisher.resolver.system.notes import Warnings
from publisher.resolver.system.outage import OUTAGE_DURATION, Outage
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import Source
from publisher.resolver.trust import manifest_loader
from publisher.resolver.trust.manifest_cache import ManifestCache
from tests.support.ep.execution_point import NOW, REPOSITORY, Key, lay_down, record, revision
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.resolver.trust.manifest_loader import TrustedManifest

pytestmark = pytest.mark.usefixtures("own_reads")


class Host:
    """Two places and a cache of copies."""

    def __init__(self, root: Path) -> None:
        self.key = Key()
        self.keys = {self.key.keyid: self.key.pem}
        self.one, self.two, self.cache = root / "one", root / "two", root / "cache"
        self.notes = Warnings()

    def load(self, *places: Source, now: float = NOW, kept: bool = True) -> TrustedManifest:
        self.notes = Warnings()
        return manifest_loader.load(
            places or (open_source(str(self.one)), open_source(str(self.two))),
            ManifestCache(str(self.cache)) if kept else None,
            keys=self.keys,
            repository=REPOSITORY,
            now=now,
            notes=self.notes,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def source_of(found: TrustedManifest, name: str) -> str | None:
    known = found.record(name)
    return None if known is None else known.reference


def test_the_highest_serial_wins_wherever_it_is(host: Host) -> None:
    for one, two in ((1, 2), (4, 3)):
        for place, serial in ((host.one, one), (host.two, two)):
            lay_down(revision([record("a:1", f"hub.example.org/serial{serial}")], host.key, serial=serial), place)
        found = host.load(kept=False)
        assert found.index.serial == max(one, two)
        assert found.source == str(host.one if one > two else host.two)
        assert source_of(found, "a:1") == f"hub.example.org/serial{max(one, two)}"


def test_of_equal_serials_the_first_source_wins(host: Host) -> None:
    for place in (host.one, host.two):
        lay_down(revision([], host.key, serial=3), place)
    assert host.load().source == str(host.one)


def test_an_outdated_source_is_no_error(host: Host) -> None:
    lay_down(revision([], host.key, serial=1), host.one)
    lay_down(revision([], host.key, serial=2), host.two)
    assert host.load().index.serial == 2
    assert host.notes.all == []


def test_a_rollback_is_not_followed(host: Host) -> None:
    """All places serve an old and well signed manifest: what was seen once is not forgotten."""
    lay_down(revision([record("a:1")], host.key, serial=1), host.one)
    old = {path.name: path.read_bytes() for path in host.one.glob("index.json")}
    lay_down(revision([record("b:1")], host.key, serial=2), host.one)
    found = host.load(open_source(str(host.one)))
    assert source_of(found, "b:1") is not None
    lay_down(old, host.one)
    found = host.load(open_source(str(host.one)))
    assert (found.index.serial, found.source) == (2, manifest_loader.CACHED_COPY)
    assert source_of(found, "a:1") is None


def test_a_serial_nobody_signed_is_not_remembered(host: Host) -> None:
    lay_down(revision([], host.key, serial=1), host.one)
    lay_down(revision([], Key(), serial=99), host.two)
    assert host.load().index.serial == 1
    assert host.load().index.serial == 1
    assert len(host.notes.all) == 1
    assert host.notes.all[0].startswith(f"{host.two}: the manifest's index is signed by")
    assert host.notes.warnings == []


def test_the_cached_copy_serves_when_all_sources_are_gone(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key), host.one)
    assert source_of(host.load(), "a:1") is not None
    for path in host.one.rglob("*.json"):
        path.unlink()
    found = host.load()
    assert (found.source, found.age) == (manifest_loader.CACHED_COPY, "fresh")
    assert source_of(found, "a:1") is not None
    assert len(host.notes.all) == 2


def test_a_cached_copy_that_was_tampered_with_is_not_used(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key), host.one)
    source_of(host.load(), "a:1")
    index = host.cache / "index.json"
    index.write_bytes(index.read_bytes().replace(b"images", b"imaget"))
    found = host.load()
    assert found.source == str(host.one)
    assert index.read_bytes() == (host.one / "index.json").read_bytes()
    (shard,), (kept,) = (host.cache / "shards").iterdir(), (host.cache / "records").iterdir()
    shard.write_bytes(b"{}")
    kept.unlink()
    assert source_of(host.load(), "a:1") is not None
    assert any(line.startswith(f"{manifest_loader.CACHED_COPY}: the manifest's shard") for line in host.notes.all)
    assert shard.read_bytes() == (host.one / "shards" / shard.name).read_bytes()


def test_a_record_that_was_found_is_found_again_without_its_shard(host: Host) -> None:
    lay_down(revision([record("a:1"), record("b:1")], host.key, count=1), host.one)
    found = host.load()
    first = source_of(found, "a:1")
    assert source_of(found, "b:1"), "it is cut out of the cached shard"
    (shard,), kept = (host.cache / "shards").iterdir(), sorted((host.cache / "records").iterdir())
    assert len(kept) == 2
    for path in (shard, host.one / "shards" / shard.name):
        path.unlink()
    assert source_of(host.load(), "a:1") == first
    for path in kept:
        path.write_bytes(path.read_bytes().replace(b"sha256", b"sha512", 1))
    with pytest.raises(ManifestError, match="cannot fetch a shard"):
        host.load().record("a:1")


def test_a_record_counts_only_for_the_shard_that_the_index_lists(host: Host) -> None:
    for serial, version in ((1, "one"), (2, "two")):
        lay_down(revision([record("a:1", f"hub.example.org/{version}")], host.key, serial=serial), host.one)
        assert source_of(host.load(), "a:1") == f"hub.example.org/{version}"
        assert len(list((host.cache / "records").iterdir())) == 1


def test_a_record_that_cannot_be_cached_is_found_all_the_same(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key), host.one)
    host.cache.mkdir()
    (host.cache / "records").write_text("in the way")
    assert host.load().record("a:1") is not None
    assert any("cannot cache a record of the manifest" in line for line in host.notes.all)


def test_a_revoked_key_invalidates_the_cached_copy(host: Host) -> None:
    lay_down(revision([], host.key, serial=9), host.one)
    host.load()
    thief, host.key = host.key, Key()
    host.keys = {host.key.keyid: host.key.pem}
    lay_down(revision([], thief, serial=10), host.one)
    with pytest.raises(ManifestError, match="no such key is trusted") as failure:
        host.load()
    assert manifest_loader.CACHED_COPY in str(failure.value)
    lay_down(revision([], host.key, serial=11), host.two)
    assert host.load().index.serial == 11


def test_another_repositorys_manifest_is_refused(host: Host) -> None:
    lay_down(revision([], host.key, repository="other.example.org"), host.one)
    with pytest.raises(ManifestError, match=r"of the repository 'other\.example\.org', not of"):
        host.load()


def test_every_source_is_named_if_none_can_be_used(host: Host) -> None:
    lay_down({"index.json": b"<html>"}, host.two)
    with pytest.raises(ManifestError) as failure:
        host.load()
    assert failure.value.exit_code == 4
    for part in (f"{host.one}: index.json: No such file", f"{host.two}: the manifest's index is not JSON"):
        assert part in str(failure.value)


def test_an_oversized_index_is_not_read_to_its_end(host: Host) -> None:
    host.one.mkdir()
    with (host.one / "index.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match=r"index\.json has more than"):
        host.load()


def test_an_expired_index_of_one_place_alone_is_refused_by_a_host_without_memory(host: Host) -> None:
    """Somebody may have brought it back. Two places, or a memory, make it credible."""
    old = revision([record("a:1")], host.key, now=NOW - LIFETIME - 2 * CLOCK_ERROR)
    lay_down(old, host.one)

    def load(*sources: Source) -> TrustedManifest:
        keys = {host.key.keyid: host.key.pem}
        copies = ManifestCache(str(host.cache))
        notes = Warnings()
        return manifest_loader.load(
            sources, copies, keys=keys, repository=REPOSITORY, now=NOW, notes=notes, accepts_expired=False
        )

    one, two = open_source(str(host.one)), open_source(str(host.two))
    with pytest.raises(ManifestError, match="no other place answers, and this host remembers none"):
        load(one, two)
    assert not (host.cache / "index.json").exists(), "it does not become a memory"
    lay_down(old, host.two)
    assert load(one, two).age == EXPIRED
    assert load(one).age == EXPIRED, "the cache confirms it"


def test_an_index_from_the_future_is_reported(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key, now=NOW + 3 * 86400), host.one)
    assert host.load(open_source(str(host.one))).age == EXPIRED, "it is used, but nobody calls it fresh"
    (warning,) = host.notes.warnings
    assert warning.startswith(f"the manifest (serial 1, from {host.one}) was signed on 2025-06-18, which has not come yet")


@pytest.mark.forked
def test_a_source_that_hangs_costs_its_timeout_and_no_more(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key), host.two)
    host.one.mkdir()
    os.mkfifo(host.one / "index.json")
    hanging = open_source(str(host.one))
    hanging.timeout = 0.05
    found = host.load(hanging, open_source(str(host.two)))
    assert found.source == str(host.two)
    assert host.notes.all == [f"{host.one}: no answer in time"]


@pytest.mark.forked
def test_a_source_that_hung_is_avoided_if_another_source_or_the_cached_copy_can_be_used(host: Host) -> None:
    memory = host.cache / "hangs"

    def places(timeout: float = 0.05) -> tuple[Source, Source]:
        hanging, outage = open_source(str(host.one)), Outage(str(memory))
        hanging.timeout, hanging.outage, hanging.suspected_hang = timeout, outage, outage.is_active()
        return hanging, open_source(str(host.two))

    lay_down(revision([record("a:1")], host.key), host.two)
    host.one.mkdir()
    os.mkfifo(host.one / "index.json")
    first = places()
    assert host.load(*first).source == str(host.two)
    assert host.notes.all == [f"{host.one}: no answer in time"]
    for asked in (first, places()):
        assert source_of(host.load(*asked), "a:1") is not None
        assert host.notes.all == []
    alone = places()[0]
    found = host.load(alone)
    assert (found.source, found.is_current, host.notes.all) == (manifest_loader.CACHED_COPY, False, [])
    with pytest.raises(ManifestError, match="no answer in time"):
        host.load(alone, kept=False)
    (host.one / "index.json").unlink()
    lay_down(revision([record("a:1")], host.key, serial=2), host.one)
    assert host.load(*places()).index.serial == 1
    os.utime(memory, (time.time() - OUTAGE_DURATION - 1,) * 2)
    assert host.load(*places(Source.timeout)).index.serial == 2
    assert not memory.exists()


def test_a_source_that_is_suspected_to_hang_is_asked_for_a_shard_last(host: Host) -> None:
    for place in (host.one, host.two):
        lay_down(revision([record("a:1")], host.key), place)
    assert host.load().source == str(host.one)
    (host.two / "index.json").unlink()
    with FileServer(host.one) as server:
        doubtful = open_source(server.url)
        doubtful.suspected_hang = True
        found = host.load(doubtful, open_source(str(host.two)))
        assert (found.source, source_of(found, "a:1") is not None) == (manifest_loader.CACHED_COPY, True)
        assert server.requests == []


def test_an_expired_manifest_is_used_with_a_warning(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key, now=NOW), host.one)
    assert host.load(now=NOW + LIFETIME + CLOCK_ERROR).age == "fresh"
    assert host.notes.warnings == []
    found = host.load(now=NOW + LIFETIME + CLOCK_ERROR + 1)
    assert found.age == "expired"
    assert source_of(found, "a:1") is not None
    assert host.notes.warnings == [f"the manifest (serial 1, from {host.one}) expired on 2025-06-29, and there is no fresher one"]


def test_a_dead_manifest_says_so(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key), host.one)
    assert host.load(now=NOW + HARD_LIMIT + CLOCK_ERROR + 1).age == "dead"
    assert len(host.notes.warnings) == 1


def test_a_swapped_shard_is_fetched_from_another_source(host: Host) -> None:
    files = revision([record("a:1"), record("b:1"), record("c:1")], host.key)
    for place in (host.one, host.two):
        lay_down(files, place)
    for path in (host.one / "shards").iterdir():
        path.write_bytes(b"[]" + path.read_bytes())
    assert source_of(host.load(), "a:1") is not None
    for path in (host.two / "shards").iterdir():
        path.unlink()
    with pytest.raises(ManifestError, match="cannot fetch a shard of the manifest") as failure:
        host.load(kept=False).record("a:1")
    assert "does not match its sha256 in the index" in str(failure.value)
    assert "No such file" in str(failure.value)


def test_a_shard_is_fetched_from_the_source_of_its_index(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key, serial=1), host.one)
    lay_down(revision([record("a:1"), record("b:1")], host.key, serial=2), host.two)
    with FileServer(host.one) as lagging:
        assert source_of(host.load(open_source(lagging.url), open_source(str(host.two))), "b:1") is not None
        assert [path for path, _ in lagging.requests] == ["/index.json"]


def test_an_alias_is_followed_into_another_shard(host: Host) -> None:
    wanted = record("a:1")
    lay_down(revision([wanted], host.key, count=64), host.one)
    found = host.load()
    homes = {found.index.shard_for(key) for key in (*wanted.aliases(), "a:1")}
    assert len(homes) > 1
    for key in wanted.aliases():
        assert source_of(found, key) == wanted.reference
    assert found.record("sha256:nothing") is None


def test_an_empty_shard_and_a_broken_alias_lead_to_no_record(host: Host) -> None:
    index = manifest.Index(REPOSITORY, serial=1, generated=NOW, expires=NOW + 1, sif_prefix="sif", shards=[None])
    payload = index.payload()
    lay_down({"index.json": manifest.seal(payload, {host.key.keyid: host.key.sign(payload)})}, host.one)
    assert host.load().record("a:1") is None
    shard = manifest.make_shard({}, {"a:1": "vanished:1", "b:1": 7})  # type: ignore[dict-item]  # what a broken publisher wrote
    lay_down({manifest.shard_name("0" * 64): shard}, host.one)
    assert host.load(kept=False).record("b:1") is None


def test_shards_that_the_index_does_not_list_are_removed_from_the_cache(host: Host) -> None:
    for serial in (1, 2):
        lay_down(revision([record("a:1", f"hub.example.org/{serial}")], host.key, serial=serial), host.one)
        assert source_of(host.load(), "a:1") == f"hub.example.org/{serial}"
        assert len(list((host.cache / "shards").iterdir())) == 1


def test_the_same_manifest_is_written_to_the_cache_once(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key), host.one)
    source_of(host.load(), "a:1")
    before = {path: path.stat().st_ino for path in host.cache.rglob("*.json")}
    source_of(host.load(), "a:1")
    assert {path: path.stat().st_ino for path in host.cache.rglob("*.json")} == before
    assert len(before) == 2


def test_an_unwritable_cache_is_only_noted(host: Host) -> None:
    lay_down(revision([record("a:1")], host.key), host.one)
    host.cache.write_text("a file where the directory should be")
    assert source_of(host.load(), "a:1") is not None
    assert any("cannot cache the manifest's index" in line for line in host.notes.all)
    assert any(line.startswith("cannot cache a shard") for line in host.notes.all)


class Broken(Source):
    """A place whose program has a bug."""

    def stream(self, name: str, start: int, size: int | None, _: object = None, __: object = None) -> Iterator[bytes]:
        raise ZeroDivisionError(name, start, size)


@pytest.mark.forked
def test_a_bug_is_not_mistaken_for_a_broken_source(host: Host) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        host.load(Broken("broken"))
