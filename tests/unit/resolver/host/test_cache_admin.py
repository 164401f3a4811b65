"""The subcommands of ``image-resolver cache``."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import cache, counters, pins
from publisher.resolver.errors import CacheError, ResolverUsageError, UnknownImageError
from publisher.resolver.host import cache_admin, cache_render
from publisher.resolver.system import negative_cache
from publisher.resolver.system.notes import Warnings
from tests.support.ep.chunked import BLOCK, content_of, with_table
from tests.support.ep.execution_point import ExecutionPoint, lay_down, record, sif_content, version
from tests.support.machine import child_process

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("own_reads")

NAMES = ("htc/rocky:9", "library/debian:12")
SIZE = 20_000


@pytest.fixture
def filled(ep: ExecutionPoint) -> ExecutionPoint:
    """Two images in the cache, the first one used last."""
    records = [record(name, amd64=[version(name, sif=ep.store(sif_content(name, SIZE)))]) for name in NAMES]
    ep.publish(*records, now=int(time.time()))
    for name in reversed(NAMES):
        ep.resolve(name, now=time.time(), form="sif")
    (path,) = [path for path in sifs(ep) if path.read_bytes() == sif_content(NAMES[1], SIZE)]
    os.utime(path.with_suffix(".seen"), (1_700_000_000, 1_700_000_000))
    return ep


def sifs(ep: ExecutionPoint) -> list[Path]:
    return sorted((ep.cache / "sif").rglob("*.sif"))


def run(ep: ExecutionPoint, *words: str, **changed: str) -> Any:
    return cache_admin.run(words, ep.settings(**changed), Warnings())


def test_the_list_has_size_use_jobs_and_name(filled: ExecutionPoint) -> None:
    first, second = run(filled, "list")
    pins.pin(str(filled.cache), second["sha256"], pins.Starter(os.getpid()))
    first, second = run(filled, "list")
    assert [first["name"], second["name"]] == list(NAMES)
    assert (second["size"], second["used"], second["jobs"], first["jobs"]) == (SIZE, 1_700_000_000, 1, 0)
    text = cache_render.render([first, second]).splitlines()
    assert re.fullmatch(rf"[0-9a-f]{{16}}      20 kB  2023-11-1\d \d\d:\d\d  jobs 1  {NAMES[1]}  sif", text[1])
    assert cache_render.render([]) == "no entries"


def test_gc_brings_the_cache_within_its_limits(filled: ExecutionPoint) -> None:
    left = filled.cache / "sif/aa" / ("a" * 64 + ".part")
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"left")
    os.utime(left, (1, 1))
    assert run(filled, "gc", cache_free="0") == {"swept": 1, "bytes": 0, "removed": 0, "images": ""}
    went = {"swept": 0, "bytes": SIZE, "removed": 1, "images": NAMES[1]}
    assert run(filled, "gc", cache_size=str(SIZE), cache_free="0") == went
    assert [row["name"] for row in run(filled, "list")] == [NAMES[0]]


def test_gc_empties_no_cache_for_a_goal_that_it_cannot_reach(filled: ExecutionPoint) -> None:
    notes = Warnings()
    found = cache_admin.run(["gc"], filled.settings(cache_free="100 %"), notes)
    assert (found["removed"], found["images"]) == (1, NAMES[1]), "what nobody used for years goes all the same"
    assert found["unreachable"] > 0
    assert "cache-free cannot be reached" in notes.warnings[0]
    assert [row["name"] for row in run(filled, "list")] == [NAMES[0]]
    assert run(filled, "gc", cache_free="100 %", cache_size="1")["removed"] == 1, "the limit of the cache counts nevertheless"


def test_verify_hashes_a_share_each_day_and_everything_in_the_end(filled: ExecutionPoint) -> None:
    for path in sifs(filled):
        path.chmod(0o644)
        path.write_bytes(b"?" * SIZE)
    for left in (1, 0):
        with pytest.raises(CacheError, match="1 of 1 SIFs were damaged"):
            run(filled, "verify", "2")
        assert len(sifs(filled)) == left
    with pytest.raises(ResolverUsageError):
        run(filled, "verify", "0")


def test_verify_removes_what_is_damaged_and_says_so(filled: ExecutionPoint) -> None:
    assert run(filled, "verify") == {"verified": 2, "busy": 0}
    damaged, whole = sifs(filled)
    damaged.chmod(0o644)
    damaged.write_bytes(b"?" * SIZE)
    with pytest.raises(CacheError, match=f"1 of 2 SIFs were damaged and have been removed: {damaged.stem}") as failure:
        run(filled, "verify")
    assert failure.value.exit_code == 4
    assert sifs(filled) == [whole]


def test_verify_does_not_count_as_a_use(filled: ExecutionPoint) -> None:
    before = run(filled, "list")
    run(filled, "verify")
    assert run(filled, "list") == before


def test_what_is_removed_while_verify_runs_was_not_damaged(filled: ExecutionPoint) -> None:
    first, _ = sifs(filled)

    def verify() -> None:
        once = iter([first.unlink])

        def remove(event: str, _: tuple[object, ...]) -> None:
            if event == "fcntl.flock":
                next(once, lambda: None)()

        sys.addaudithook(remove)
        assert run(filled, "verify") == {"verified": 1, "busy": 0}

    assert child_process.end(child_process.start(verify)) == 0


def test_clear_leaves_what_jobs_need(filled: ExecutionPoint) -> None:
    needed, _ = sifs(filled)
    pins.pin(str(filled.cache), needed.stem, pins.Starter(os.getpid()))
    cleared = run(filled, "clear")
    assert (cleared["removed"], cleared["bytes"], cleared["in use"]) == (1, SIZE, 1)
    assert cleared["images"] in NAMES
    assert sifs(filled) == [needed]
    assert run(filled, "clear", "--force")["removed"] == 1
    assert sifs(filled) == []


def test_who_makes_room_by_hand_need_not_wait(filled: ExecutionPoint) -> None:
    for subcommand in ("gc", "clear"):
        negative_cache.record_failure(str(filled.cache), cache.DISK_FULL, "1 no room", time.time())
        run(filled, subcommand)
        assert negative_cache.recent_failure(str(filled.cache), cache.DISK_FULL, time.time()) is None


def test_statistics_are_attributes_of_a_machine(filled: ExecutionPoint) -> None:
    filled.resolve(NAMES[0], now=time.time(), form="sif")
    counters.count_hit(str(filled.cache))
    found = run(filled, "statistics")
    assert {name: found[name] for name in ("ImageCacheImages", "ImageCacheBytes", "ImageCacheHits", "ImageCacheFetches")} == {
        "ImageCacheImages": 2,
        "ImageCacheBytes": 2 * SIZE,
        "ImageCacheHits": 2,
        "ImageCacheFetches": 2,
    }
    assert (found["ImageCacheWantedBytes"], found["ImageCacheFetchedBytes"], found["ImageCacheCopiedBytes"]) == (
        2 * SIZE,
        2 * SIZE,
        0,
    )
    assert found["ImageCacheOldestUse"] == 1_700_000_000
    assert "ImageCacheHits = 2\n" in cache_render.render(found)


def test_fill_has_images_in_the_cache_where_there_is_no_store(filled: ExecutionPoint) -> None:
    run(filled, "clear")
    (row,) = run(filled, "fill", NAMES[1])
    assert (row["name"], row["sif_source"]) == (NAMES[1], str(filled.origin))
    assert [row["name"] for row in run(filled, "list")] == [NAMES[1]]
    with pytest.raises(UnknownImageError):
        run(filled, "fill", "no/such:image")


def trace_of(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def used(name: str, age: float = 0, form: str = "sif") -> dict[str, object]:
    return {"time": time.time() - age, "name": name, "form": form, "code": 0}


def test_fill_fetches_what_jobs_used_of_late_the_most_used_last(filled: ExecutionPoint, tmp_path: Path) -> None:
    run(filled, "clear")
    trace_of(tmp_path / "1000.jsonl.1", used(NAMES[1]), used(NAMES[0]))
    trace_of(tmp_path / "1000.jsonl", used(NAMES[1], form="unpacked"), "no JSON", {"name": None}, [], used("gone:1"))
    trace_of(tmp_path / "7.jsonl", used("old:1", age=8 * 86400), used("sandboxed:1", form="sandbox"), {**used("x"), "name": 3})
    notes = Warnings()
    settings = filled.settings(trace=str(tmp_path / "{uid}.jsonl"))
    rows = cache_admin.run(["fill", "--used"], settings, notes)
    assert [row["name"] for row in rows] == [NAMES[0], NAMES[1]]
    assert [row["bytes"] for row in rows] == [SIZE, SIZE]
    assert "bytes 20 kB  copied 0 B" in cache_render.render(rows)
    (warning,) = notes.warnings
    assert "gone:1" in warning


def test_fill_used_needs_a_trace_and_no_names(filled: ExecutionPoint) -> None:
    with pytest.raises(ResolverUsageError, match="needs the trace"):
        run(filled, "fill", "--used")
    with pytest.raises(ResolverUsageError, match="usage"):
        run(filled, "fill", NAMES[0], "--used", trace="t")


def test_a_store_is_filled_by_difference(ep: ExecutionPoint, tmp_path: Path) -> None:
    base = [f"base {number}" for number in range(100)]
    versions = []
    for content in (content_of(*base, "old"), content_of(*base, "new")):
        sif, objects = with_table(content)
        lay_down(objects, ep.origin)
        versions.append(version(sif.sha256, sif=sif))
    rows = []
    for serial, one in enumerate(versions, 1):
        ep.publish(record(NAMES[0], amd64=[one]), serial=serial, now=int(time.time()))
        rows += run(ep, "fill", NAMES[0], store=str(tmp_path / "store"), refresh="0")
    table = versions[1].sif.chunks.size  # type: ignore[union-attr]  # it has one
    assert (rows[1]["bytes"], rows[1]["copied"]) == (BLOCK + table, 101 * BLOCK)


def test_fill_says_what_it_cannot_have(ep: ExecutionPoint) -> None:
    ep.publish(record("a/sandbox:1", amd64=[version("x", sif=None)]), now=int(time.time()))
    with pytest.raises(ExpectedError, match="published as a sandbox only"):
        run(ep, "fill", "a/sandbox:1")
    ep.publish(record("a/sandbox:1", amd64=[version("x", sif=None)]), now=1, serial=2)
    with pytest.raises(ExpectedError, match="too old"):
        run(ep, "fill", "a/sandbox:1")


@pytest.mark.parametrize(
    "words", [[], ["tidy"], ["list", "x"], ["list", "--force"], ["fill"], ["fill", "x", "--force"], ["clear", "x"]]
)
def test_what_is_no_subcommand_is_refused(ep: ExecutionPoint, words: list[str]) -> None:
    with pytest.raises(ResolverUsageError, match="usage: image-resolver cache list"):
        run(ep, *words)


def test_a_cache_that_cannot_be_used_is_said(ep: ExecutionPoint) -> None:
    with pytest.raises(CacheError, match="needs a cache"):
        cache_admin.run(["list"], ep.settings(cache=None), Warnings())
    (ep.root / "file").touch()
    with pytest.raises(CacheError, match="cannot create the cache"):
        run(ep, "statistics", cache=f"{ep.root}/file/cache")
