"""``ci/bench delta``: SIFs fetched as differences, against the same SIFs fetched as a whole.

Families of images are made on the spot. An XRootD serves them over TLS on this machine, once directly and once over a link with
a round trip of 20 ms and 100 Mbit/s, which a proxy simulates (:mod:`ci.benchmarks.distant_link`). Each fetch is a process of its
own with a cache of its own, which has the given SIF and its chunk table, or nothing. CPU time is that of the fetch alone, without
starting Python and loading its modules; that of assembling is without TLS, from a directory. Memory is the most that the process
had resident.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks import families
from ci.benchmarks.measure import Run, median, run
from publisher.resolver.cache.cache import Cache
from publisher.resolver.transfer.open_source import open_source
from tests.support.osdf.xrootd import NAMESPACE, Servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ci.benchmarks.families import Family
    from publisher.contract.records import Sif

_ROOT = Path(__file__).parents[2]
_ROUND_TRIP, _MEGABITS = 20, 100  # milliseconds
_TABLE_BAR = 0.001  # of the SIF
_UNSHARED_BAR = 1.03  # times the whole fetch, over the distant link
_NEAR_BAR = 1.2  # times the whole fetch, on loopback
_CPU_BAR = 2.0  # times one sha256 of the SIF
_CPU_ROUNDS = 5  # at least: one hash and one assembly in turn take a second
_MEMORY_BAR = 64 << 20  # bytes
_FETCH = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import encodings.idna
import publisher.resolver.cache.eviction, publisher.resolver.cache.seeds, publisher.resolver.cache.slots
import publisher.resolver.transfer.fetch, publisher.resolver.transfer.http_source
from publisher.contract.records import Chunks, Sif
from publisher.resolver.cache.cache import Cache
from publisher.resolver.system import log
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import NetworkOptions
_, _, cache, url, ca, path, sha256, size, *chunks = sys.argv
lines, begun = [], time.process_time()
log.configure(log.DEBUG)
log.redirect(lines.append)
target = Cache(cache)
sif = Sif(path, sha256, int(size), Chunks(chunks[0], int(chunks[1])) if chunks else None)
target.ensure(sif, [open_source(url, NetworkOptions(ca=ca))])
requests = sum("GET " in line for line in lines)
with open("/proc/self/status") as status:
    memory = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
figures = {"received": target.received, "copied": target.copied, "requests": requests}
print(json.dumps({**figures, "cpu": time.process_time() - begun, "memory": memory}))
"""
HASH = """
import hashlib, json, sys, time
digest, begun = hashlib.sha256(), time.process_time()
with open(sys.argv[1], "rb", buffering=0) as file:
    while piece := file.read(1 << 20):
        digest.update(piece)
print(json.dumps({"cpu": time.process_time() - begun}))
"""


@dataclass(frozen=True)
class Contest:
    """Fetches of one SIF over one link, whole and by difference in turn."""

    whole: list[Run]
    difference: list[Run]

    def ratio(self, figure: str) -> float:
        """Return the median of a figure of the whole fetch, divided by that of the difference."""
        return _of(self.whole, figure) / max(1e-9, _of(self.difference, figure))


def benchmark(size: int, rounds: int, work: Path, *, only: str, distant: bool, bars: bool) -> bool:
    """Measure and print; return whether the bars were met, or ``bars`` is false.

    Args:
        size: bytes of the files of an image.
        rounds: fetches of each kind; medians are compared.
        work: directory for all files; deleted first.
        only: measure the families that have this in their names.
        distant: measure over the distant link too, which takes half of the time.
        bars: compare the figures with the bars.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    missed: list[str] = []
    with Servers() as servers, _distant(int(servers.origin.rpartition(":")[2])) as port:
        links = {"near": servers.origin} | ({"distant": f"https://localhost:{port}"} if distant else {})
        for family in (each for each in families.families(size) if only in each.name):
            missed += _contest(family, servers, links, work, rounds)
    for line in missed:
        print(f"a bar was missed: {line}")
    shutil.rmtree(work)
    return not missed or not bars


def _contest(family: Family, servers: Servers, links: dict[str, str], work: Path, rounds: int) -> list[str]:
    """Measure one family and print the figures; return the bars that were missed."""
    (given, _), (wanted, table) = (_publish(files, servers, work) for files in (family.given, family.wanted))
    here = work / wanted.path.rpartition("/")[2]
    seeded, empty = work / "seeded", work / "empty"
    Cache(str(seeded)).ensure(given, [open_source(str(servers.data / NAMESPACE.lstrip("/")))])
    directory = str(servers.data / NAMESPACE.lstrip("/"))
    hashed, assembled = [], []
    for _ in range(max(rounds, _CPU_ROUNDS)):
        hashed.append(run([sys.executable, "-I", "-S", "-c", HASH, str(here)], {}, work / "log"))
        assembled.append(_fetch(wanted, seeded, directory, servers.authority, work, as_whole=False))
    hashing = _of(hashed, "cpu")
    assembling = _of(assembled, "cpu") / hashing
    missed = []
    if table > _TABLE_BAR * wanted.size:
        missed.append(f"{family.name}: a table of {table} bytes for a SIF of {wanted.size}")
    print(f"{family.name}: SIF of {wanted.size / 1e6:.1f} MB, table {table / wanted.size:.2%}")
    print(f"  from a directory: CPU {_of(assembled, 'cpu'):.2f} s ({assembling:.2f} sha256)", flush=True)
    for link, url in links.items():
        contest = Contest([], [])
        for _ in range(rounds):
            contest.whole.append(_fetch(wanted, empty, f"{url}{NAMESPACE}", servers.authority, work, as_whole=True))
            contest.difference.append(_fetch(wanted, seeded, f"{url}{NAMESPACE}", servers.authority, work, as_whole=False))
        _show(link, contest, hashing)
        missed += [f"{family.name}, {link}: {what}" for what in _missed(family, link, contest)]
    if family.time_bar is not None and assembling > _CPU_BAR:
        missed.append(f"{family.name}: {assembling:.2f} times the CPU time of one sha256, at most {_CPU_BAR:g}")
    shutil.rmtree(seeded)
    return missed


def _missed(family: Family, link: str, contest: Contest) -> Iterator[str]:
    if family.bytes_bar is not None and contest.ratio("received") < family.bytes_bar:
        yield f"{contest.ratio('received'):.1f} times fewer bytes, at least {family.bytes_bar:g}"
    if link == "near" and contest.ratio("seconds") < 1 / _NEAR_BAR:
        yield f"{1 / contest.ratio('seconds'):.2f} times as long, at most {_NEAR_BAR:g}"
    if link == "distant" and contest.ratio("seconds") < (family.time_bar or 1 / _UNSHARED_BAR):
        yield f"{contest.ratio('seconds'):.2f} times faster, at least {family.time_bar or 1 / _UNSHARED_BAR:.3g}"
    if _of(contest.difference, "memory") > _MEMORY_BAR:
        yield f"{_of(contest.difference, 'memory') / (1 << 20):.0f} MiB of memory, at most {_MEMORY_BAR >> 20}"


def _show(link: str, contest: Contest, hashing: float) -> None:
    for name, runs in (("whole", contest.whole), ("difference", contest.difference)):
        print(
            f"  {link}, {name}: {_of(runs, 'received') / 1e6:.2f} MB in {_of(runs, 'requests'):.0f} requests, "
            f"{_of(runs, 'seconds'):.2f} s, CPU {_of(runs, 'cpu'):.2f} s ({_of(runs, 'cpu') / hashing:.2f} sha256), "
            f"{_of(runs, 'memory') / (1 << 20):.0f} MiB"
        )
    ratios = f"{contest.ratio('received'):.1f} times fewer bytes, {contest.ratio('seconds'):.2f} times faster"
    print(f"  {link}: {ratios}", flush=True)


def _of(runs: Sequence[Run], figure: str) -> float:
    """Return the median of a figure: one that the program printed, or one of the process."""
    return median([float(each.figures[figure]) if figure in each.figures else float(getattr(each, figure)) for each in runs])


def _fetch(sif: Sif, cache: Path, url: str, authority: Path, work: Path, *, as_whole: bool) -> Run:
    """Fetch a SIF into a cache by a process, and remove it there again."""
    argv = [sys.executable, "-I", "-S", "-c", _FETCH, str(_ROOT), str(cache), url, str(authority)]
    argv += [sif.path, sif.sha256, str(sif.size)]
    if sif.chunks is not None and not as_whole:
        argv += [sif.chunks.sha256, str(sif.chunks.size)]
    result = run(argv, {}, work / "log")
    Cache(str(cache)).entries.remove(sif.sha256)
    return result


def _publish(files: list[families.File], servers: Servers, work: Path) -> tuple[Sif, int]:
    """Make a SIF, keep it in ``work``, and put it and its table into the origin; return it with the bytes of the table."""
    made = work / "made"
    sif, chunks, table = families.make(files, made)
    made = made.rename(work / sif.path.rpartition("/")[2])
    for path, content in ((sif.path, made.read_bytes()), (chunks.path, table)):
        stored = servers.data / NAMESPACE.lstrip("/") / path
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(content)
        for directory in (stored.parent, stored.parent.parent):
            directory.chmod(0o755)
    return sif, len(table)


@contextmanager
def _distant(port: int) -> Iterator[int]:
    """Run a proxy before a port of this machine during the block; yield its port."""
    argv = [sys.executable, "-m", "ci.benchmarks.distant_link", str(port), str(_ROUND_TRIP), str(_MEGABITS)]
    with subprocess.Popen(argv, cwd=_ROOT, stdout=subprocess.PIPE) as proxy:
        try:
            yield int(b"" if proxy.stdout is None else proxy.stdout.readline())
        finally:
            proxy.terminate()
