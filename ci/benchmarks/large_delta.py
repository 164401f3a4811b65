"""``ci/bench delta --large``: a difference of a SIF of gigabytes, on a host with a hundred SIFs of that size, and with 500.

The contents are made up: chunks of equal length, each of which differs from all others, since only their number matters here. The
host has the version before, of which one chunk in fifty differs; of the other SIFs it has the tables alone. Each of them shares a
fifth of the wanted SIF with the version before, as images on one base do. A process of its own puts the SIF together, from a
directory.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.measure import Run, run
from publisher.contract.chunk_table import ChunkTable, serialize
from publisher.contract.records import Chunks, Sif
from publisher.resolver.cache.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from publisher.resolver.cache.entries import CacheEntries

_ROOT = Path(__file__).parents[2]
_CHUNK = 80 << 10  # bytes; what chunks of real SIFs have on average
_CHANGED = 50  # one chunk in so many differs
_SHARED = 5  # others have a fifth of the wanted SIF
_CACHED, _MOST_CACHED = 100, 500
_CPU_BAR, _MEMORY_BAR = 2.0, 64 << 20
_PROGRAM = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import publisher.resolver.cache.seeds, publisher.resolver.transfer.fetch, publisher.resolver.transfer.http_source
from publisher.contract.records import Chunks, Sif
from publisher.resolver.cache import seeds
from publisher.resolver.cache.cache import Cache
from publisher.resolver.transfer.fetch import Traffic
from publisher.resolver.transfer.open_source import open_source
_, _, cache, origin, path, sha256, size, table, table_size, choice_alone = sys.argv
sif = Sif(path, sha256, int(size), Chunks(table, int(table_size)))
target, prepare, choice = Cache(cache), seeds.prepare, []
def timed(*arguments):
    begun = time.process_time()
    try:
        return prepare(*arguments)
    finally:
        choice.append(time.process_time() - begun)
seeds.prepare = timed
begun = time.process_time()
if choice_alone == "True":
    with seeds.assembly(sif, [open_source(origin)], [target.entries], time.monotonic() + 600, Traffic()) as assembly:
        assert assembly is not None
else:
    target.ensure(sif, [open_source(origin)])
with open("/proc/self/status") as status:
    memory = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
figures = {"received": target.received, "copied": target.copied, "choice": choice[0]}
print(json.dumps({**figures, "cpu": time.process_time() - begun, "memory": memory}))
"""


def benchmark(size: int, work: Path, hash_program: str, *, bars: bool) -> bool:
    """Measure and print; return whether the bars were met, or ``bars`` is false.

    Args:
        size: bytes of the SIF; twice as much is free on the disk, and once more.
        work: directory for all files; deleted first.
        hash_program: prints the CPU seconds of a file's sha256, as JSON.
        bars: compare the figures with the bars.
    """
    shutil.rmtree(work, ignore_errors=True)
    origin, cache = work / "origin", Cache(str(work / "cache"))
    count = size // _CHUNK
    given = _store(origin, (number if number % _CHANGED else -number for number in range(count)))[0]
    wanted, table = _store(origin, range(count))
    _adopt(cache.entries, origin, given)
    missed = []
    hashed = run([sys.executable, "-I", "-S", "-c", hash_program, str(origin / wanted.path)], {}, work / "log")
    _fill(cache.entries, table, _CACHED - 1)
    made = _run(wanted, work, choice_alone=False)
    ratio = made.figures["cpu"] / hashed.figures["cpu"]
    _show(f"SIF of {wanted.size / 1e9:.1f} GB, {_CACHED} SIFs in the cache", made)
    print(f"  {ratio:.2f} times the CPU time of one sha256", flush=True)
    if ratio > _CPU_BAR:
        missed.append(f"{ratio:.2f} times the CPU time of one sha256, at most {_CPU_BAR:g}")
    cache.entries.remove(wanted.sha256)
    _fill(cache.entries, table, _MOST_CACHED - _CACHED)
    cache.entries.mark_used(given.sha256, time.time() + 1)  # else it is beyond the tables that are looked at
    chosen = _run(wanted, work, choice_alone=True)
    _show(f"the choice alone, {_MOST_CACHED} SIFs in the cache", chosen)
    missed += [
        f"{each.figures['memory'] / (1 << 20):.0f} MiB of memory, at most {_MEMORY_BAR >> 20}"
        for each in (made, chosen)
        if each.figures["memory"] > _MEMORY_BAR
    ]
    for line in missed:
        print(f"a bar was missed: {line}")
    shutil.rmtree(work)
    return not missed or not bars


def _show(what: str, measured: Run) -> None:
    figures = measured.figures
    print(
        f"{what}: choice {figures['choice']:.2f} CPU s, all {figures['cpu']:.2f} CPU s, {measured.seconds:.1f} s, "
        f"{figures['memory'] / (1 << 20):.0f} MiB, "
        f"{figures['received'] / 1e6:.1f} MB fetched, {figures['copied'] / 1e6:.1f} MB copied",
        flush=True,
    )


def _run(sif: Sif, work: Path, *, choice_alone: bool) -> Run:
    chunks = sif.chunks or Chunks("", 0)
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOT), str(work / "cache"), str(work / "origin")]
    argv += [sif.path, sif.sha256, str(sif.size), chunks.sha256, str(chunks.size), str(choice_alone)]
    return run(argv, {}, work / "log")


def _store(origin: Path, numbers: Iterable[int]) -> tuple[Sif, ChunkTable]:
    """Write a SIF of the chunks with these numbers, and its table, into an origin; return both."""
    filling = random.Random(0).randbytes(_CHUNK - 8)
    first = bytearray(_CHUNK)
    first[32:42] = b"SIF_MAGIC\0"
    whole, digests, lengths = hashlib.sha256(), bytearray(), array("I")
    made = origin / "made"
    origin.mkdir(parents=True, exist_ok=True)
    with made.open("wb") as file:
        for number in numbers:
            chunk = number.to_bytes(8, "big", signed=True) + filling if number else bytes(first)
            file.write(chunk)
            whole.update(chunk)
            digests += hashlib.sha256(chunk).digest()
            lengths.append(_CHUNK)
    sha256 = whole.hexdigest()
    table = _table(sha256, lengths, bytes(digests))
    content = serialize(table)
    chunks = Chunks(hashlib.sha256(content).hexdigest(), len(content))
    sif = Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, table.sif_size, chunks)
    for path in (sif.path, chunks.path):
        (origin / path).parent.mkdir(parents=True, exist_ok=True)
    made.rename(origin / sif.path)
    (origin / chunks.path).write_bytes(content)
    return sif, table


def _table(sha256: str, lengths: array[int], digests: bytes) -> ChunkTable:
    size = _CHUNK * len(lengths)
    return ChunkTable(sha256, size, minimum=_CHUNK, average=_CHUNK, maximum=_CHUNK, lengths=lengths, digests=digests)


def _adopt(entries: CacheEntries, origin: Path, sif: Sif) -> None:
    """Move a SIF of the origin, and its table, into a cache."""
    entries.make_directories(sif.sha256)
    (origin / sif.path).rename(entries.part_path(sif.sha256))
    if sif.chunks is not None:
        (origin / sif.chunks.path).rename(entries.table_path(sif.sha256))
    entries.add_download(sif.sha256)


def _fill(entries: CacheEntries, wanted: ChunkTable, count: int) -> None:
    """Add SIFs to a cache, of which there are only the tables: each has a fifth of what the given and the wanted SIF share."""
    some = len(wanted) // _SHARED * 32
    shared = bytearray(wanted.digests)
    for number in range(0, len(wanted), _CHANGED):
        shared[number * 32 : number * 32 + 32] = os.urandom(32)
    for _ in range(count):
        sha256 = os.urandom(32).hex()
        entries.make_directories(sha256)
        begin = random.randrange(len(wanted) - some // 32) * 32
        digests = bytes(shared[begin : begin + some]) + os.urandom(len(wanted.digests) - some)
        Path(entries.table_path(sha256)).write_bytes(serialize(_table(sha256, wanted.lengths, digests)))
        Path(entries.sif_path(sha256)).touch()
