"""SIFs of a cache that are made from others: what is fetched, pinned, kept and counted."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.contract.chunk_table import serialize
from publisher.contract.records import Sif
from publisher.resolver.cache import cache, counters, eviction, pins, seeds, sweep
from publisher.resolver.cache.cache import Cache
from publisher.resolver.cache.pins import Starter
from publisher.resolver.errors import FetchError
from publisher.resolver.transfer.fetch import Traffic, fetch
from publisher.resolver.transfer.open_source import open_source
from tests.support.ep.chunked import BLOCK, Near, content_of, table_of, with_table
from tests.support.ep.execution_point import lay_down
from tests.support.osdf.faulty_cache import FaultyServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

    from publisher.resolver.transfer.partial import Assembly
    from publisher.resolver.transfer.sources import Source

BASE = [f"base {number}" for number in range(50)]
OLD, NEW = content_of(*BASE, "old"), content_of(*BASE, "new", "more")
DIFFERENCE = f"bytes={51 * BLOCK}-{53 * BLOCK - 1}"


class Host:
    """A cache, and a server of two versions of an image with their chunk tables."""

    def __init__(self, root: Path, server: FaultyServer) -> None:
        self.server = server
        self.cache = Cache(str(root / "cache"))
        self.network = Near(silence=60.0)
        self.old, self.new = self.offer(OLD), self.offer(NEW)

    def offer(self, content: bytes, table: bytes | None = None) -> Sif:
        sif, objects = with_table(content, table)
        self.server.objects.update({f"/{path}": each for path, each in objects.items()})
        return sif

    def sources(self) -> list[Source]:
        return [open_source(self.server.url, self.network)]

    def ensure(self, sif: Sif, target: Optional[Cache] = None) -> Path:
        path, _ = (target or self.cache).ensure(sif, self.sources())
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == sif.sha256
        return Path(path)

    def requests(self, sif: Sif) -> list[str]:
        """The ranges of the requests for a SIF."""
        return [asked.range for asked in self.server.asked if asked.path == f"/{sif.path}"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with FaultyServer({}) as server:
        yield Host(tmp_path, server)


def pinned(target: Cache) -> dict[str, int]:
    return pins.count_pins(target.root)


def test_the_second_version_costs_its_difference_and_its_table(host: Host) -> None:
    host.ensure(host.old)
    host.ensure(host.new)
    assert (host.requests(host.old), host.requests(host.new)) == ([""], [DIFFERENCE])
    assert host.new.chunks is not None
    assert (host.cache.received, host.cache.copied) == (2 * BLOCK + host.new.chunks.size, 51 * BLOCK)
    assert pinned(host.cache) == {}


def test_wanted_fetched_and_copied_bytes_are_counted(host: Host) -> None:
    host.ensure(host.old)
    received = host.cache.received
    host.ensure(host.new)
    counts = counters.read(host.cache.root)
    assert (counts.wanted, counts.copied) == (len(OLD) + len(NEW), 51 * BLOCK)
    assert (counts.bytes, counts.downloads) == (received + host.cache.received, 2)


def test_a_record_without_a_table_is_fetched_as_before(host: Host) -> None:
    host.ensure(host.old)
    host.ensure(Sif(host.new.path, host.new.sha256, host.new.size))
    assert host.requests(host.new) == [""]


@pytest.mark.parametrize(
    "table",
    [b"", b"no table", serialize(table_of(OLD)), serialize(table_of(NEW))[:-1], bytes(100_000)],
    ids=["empty", "something else", "of another SIF", "incomplete", "too large"],
)
def test_a_table_that_is_none_leads_to_the_whole(host: Host, table: bytes) -> None:
    host.ensure(host.old)
    new = host.offer(NEW, table)
    host.ensure(new)
    assert host.requests(new) == [""]


@pytest.mark.parametrize("stored", [None, b"other", bytes(10_000_000)], ids=["absent", "other bytes", "endless"])
def test_a_table_that_the_origin_does_not_have_leads_to_the_whole(host: Host, stored: bytes | None) -> None:
    host.ensure(host.old)
    assert host.new.chunks is not None
    host.server.objects.pop(f"/{host.new.chunks.path}")
    if stored is not None:
        host.server.objects[f"/{host.new.chunks.path}"] = stored
    host.ensure(host.new)
    assert host.requests(host.new) == [""]


def test_a_damaged_table_of_a_seed_is_not_used(host: Host) -> None:
    host.ensure(host.old)
    path = Path(host.cache.entries.table_path(host.old.sha256))
    path.write_bytes(path.read_bytes()[:100])
    host.ensure(host.new)
    assert host.requests(host.new) == [""]


def test_a_damaged_table_of_the_wanted_sif_is_fetched_again(host: Host) -> None:
    host.ensure(host.old)
    path = Path(host.cache.entries.table_path(host.new.sha256))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(host.new.chunks.size if host.new.chunks else 0))
    host.ensure(host.new)
    assert host.requests(host.new) == [DIFFERENCE]


def test_a_damaged_seed_is_repaired_around_and_hashed_before_its_next_use(host: Host) -> None:
    path = host.ensure(host.old)
    entries = host.cache.entries
    path.chmod(0o644)
    path.write_bytes(OLD[: 10 * BLOCK] + b"!" + OLD[10 * BLOCK + 1 :])
    entries.mark_verified(host.old.sha256, _identity(path))  # as if the disk had changed it
    assert entries.is_verified(host.old.sha256)
    host.ensure(host.new)
    assert host.requests(host.new) == [DIFFERENCE, f"bytes={10 * BLOCK}-{11 * BLOCK - 1}", DIFFERENCE]
    assert not entries.is_verified(host.old.sha256)


def _identity(path: Path) -> bytes:
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode()


def test_a_seed_whose_file_has_changed_is_not_opened(host: Host) -> None:
    path = host.ensure(host.old)
    os.utime(path, (1, 1))
    host.ensure(host.new)
    assert host.requests(host.new) == [""]
    assert pinned(host.cache) == {}


def test_a_seed_is_pinned_while_it_is_read(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.ensure(host.old)
    seen = []

    def fetch_and_look(*arguments: object, assembly: Assembly | None = None, **more: object) -> str:
        eviction.evict(host.cache.entries, "", 1 << 40)
        seen.append(host.cache.entries.is_verified(host.old.sha256))
        return fetch(*arguments, assembly=assembly, **more)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr("publisher.resolver.transfer.fetch.fetch", fetch_and_look)
    host.ensure(host.new)
    assert seen == [True]
    assert host.requests(host.new) == [DIFFERENCE]


def test_a_seed_makes_room_if_there_is_no_other_space(host: Host, tmp_path: Path) -> None:
    target = Cache(str(tmp_path / "small"), most=(len(NEW) + 1000, 0.0))
    host.ensure(host.old, target)
    host.ensure(host.new, target)
    assert [entry.sha256 for entry in target.entries.by_last_use()] == [host.new.sha256]
    assert [sha256 for sha256, _ in target.entries.tables()] == [host.new.sha256]


def test_a_seed_that_is_evicted_between_choice_and_use_stays_readable(host: Host) -> None:
    host.ensure(host.old)
    caches, traffic = [host.cache.entries], Traffic()
    host.cache.entries.make_directories(host.new.sha256)
    with seeds.assembly(host.new, host.sources(), caches, time.monotonic() + 60, traffic) as assembly:
        assert assembly is not None
        host.cache.entries.remove(host.old.sha256)
        part = host.cache.entries.part_path(host.new.sha256)
        fetch(host.sources(), host.new, part, assembly=assembly, traffic=traffic)
    assert Path(part).read_bytes() == NEW
    assert host.requests(host.new) == [DIFFERENCE]


def test_sifs_of_the_hosts_store_are_seeds(host: Host, tmp_path: Path) -> None:
    store = Cache(str(tmp_path / "store"), shared=True)
    host.ensure(host.old, store)
    mine = Cache(str(tmp_path / "mine"), store=store.root)
    host.ensure(host.new, mine)
    assert host.requests(host.new) == [DIFFERENCE]
    assert pinned(store) == {}


def test_a_store_that_cannot_be_read_does_not_matter(host: Host, tmp_path: Path) -> None:
    (tmp_path / "store" / "sif" / "ab").mkdir(parents=True)
    (tmp_path / "store" / "sif" / "ab" / ("ab" * 32 + ".sif")).mkdir()
    (tmp_path / "store" / "sif" / "ab" / ("ab" * 32 + ".chunks")).write_bytes(serialize(table_of(OLD)))
    mine = Cache(str(tmp_path / "mine"), store=str(tmp_path / "store"))
    host.ensure(host.new, mine)
    assert host.requests(host.new) == [""]


def test_the_best_of_many_seeds_are_used(host: Host) -> None:
    for number in range(12):
        host.ensure(host.offer(content_of(*BASE[:number], f"own {number}")))
    host.ensure(host.old)
    for number in range(12, 20):
        host.ensure(host.offer(content_of(f"own {number}")))
    host.ensure(host.new)
    assert host.requests(host.new) == [DIFFERENCE]


def test_a_failed_difference_leaves_no_pin_and_is_resumed(host: Host) -> None:
    host.ensure(host.old)
    host.server.faults = ["", "truncated", "404"]
    with pytest.raises(FetchError):
        host.ensure(host.new)
    assert pinned(host.cache) == {}
    (Path(host.cache.root) / "failures" / host.new.sha256).unlink()
    host.ensure(host.new)
    assert host.requests(host.new)[-1] == f"bytes={52 * BLOCK}-{53 * BLOCK - 1}"
    assert host.cache.copied == 0, "the beginning was there"


def test_tables_go_with_their_sifs_and_old_ones_without_a_sif_are_swept(host: Host) -> None:
    host.ensure(host.old)
    host.ensure(host.new)
    entries = host.cache.entries
    entries.remove(host.old.sha256)
    assert [sha256 for sha256, _ in entries.tables()] == [host.new.sha256]
    entries._unlink_sif(host.new.sha256)
    assert sweep.sweep(entries) == []
    os.utime(entries.table_path(host.new.sha256), (1, 1))
    assert sweep.sweep(entries) == [entries.table_path(host.new.sha256)]


def test_a_table_of_a_sif_or_of_a_running_download_is_not_swept(host: Host) -> None:
    host.ensure(host.old)
    entries = host.cache.entries
    os.utime(entries.table_path(host.old.sha256), (1, 1))
    assert sweep.sweep(entries) == []
    Path(entries.sif_path(host.old.sha256)).rename(entries.part_path(host.old.sha256))
    os.utime(entries.part_path(host.old.sha256))
    assert sweep.sweep(entries) == []


def test_a_cache_of_the_settings_knows_the_store(tmp_path: Path, host: Host) -> None:
    settings = type("Settings", (), {"cache": str(tmp_path / "c"), "store": str(tmp_path / "s"), "cache_size": (0, 1.0)})()
    settings.cache_free, settings.fetches, settings.slots = (0, 0.0), 2, None
    store = Cache(settings.store, shared=True)
    host.ensure(host.old, store)
    host.ensure(host.new, cache.from_settings(settings))
    assert host.requests(host.new) == [DIFFERENCE]


def test_a_seed_is_read_by_a_live_process_only(host: Host) -> None:
    host.ensure(host.old)
    (seed,) = seeds.find([host.cache.entries], host.new.sha256)
    assert seed.open() is not None
    assert pinned(host.cache) == {host.old.sha256: 1}
    seed.close()
    pins.pin(host.cache.root, host.old.sha256, _dead())
    assert pinned(host.cache) == {}, "the pin of a killed process"


def _dead() -> Starter:
    starter = Starter(os.getpid())
    starter.name = f"{os.getpid()}-1-{starter.name.rpartition('-')[2]}"
    return starter


def test_a_special_file_in_the_place_of_a_seed_is_not_opened(host: Host, tmp_path: Path) -> None:
    lay_down({"sif/ab/x": b""}, tmp_path / "store")
    os.mkfifo(tmp_path / "store" / "sif" / "ab" / ("ab" * 32 + ".sif"))
    store = Cache(str(tmp_path / "store"), shared=True)
    (tmp_path / "store" / "sif" / "ab" / ("ab" * 32 + ".chunks")).write_bytes(b"")
    (seed,) = seeds.find([store.entries], host.new.sha256)
    assert seed.open() is None
