"""``ci/bench many``: images of mixed sizes, built on all cores, one after the other, and by ``xargs -P n apptainer build``.

The publisher runs as a whole: ``publisher sync`` into directories, with SIFs alone, as ``apptainer build`` makes nothing else.
What the cores could do at most follows from the CPU time of the run that builds one image after the other. CPU time that other
programs of the machine took (proc(5), ``/proc/stat``) is not counted as available; on a quiet machine it is next to nothing.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.measure import run
from publisher.resolver.config.machine import go_name
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import RegistryServer, push_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.images.layers import Entry

_SEED = 19
_SPREAD = 1.2  # of the sizes, which are log-normal
_ROOT = Path(__file__).parents[2]
_SOURCES = ("/usr/lib/python3", "/usr/lib/python3.11", "/usr/lib/x86_64-linux-gnu", "/usr/bin", "/usr/share/perl")
_LARGEST_FILE = 4_000_000  # bytes
_UTILISATION = 0.85
"""Share of the cores' time that builds at the same time must make use of."""


@dataclass(frozen=True)
class Result:
    """What a contestant took.

    Attributes:
        seconds: seconds from start to end.
        cpu: CPU seconds of it and its children.
        others: CPU seconds that other programs took meanwhile.
        idle: CPU seconds in which a core did nothing, or waited for the disk.
    """

    seconds: float
    cpu: float
    others: float
    idle: float


def benchmark(images: int, median: float, work: Path, *, apptainer: int, bars: bool) -> bool:
    """Measure and print; return whether all bars were met, or ``bars`` is false.

    Args:
        images: number of images.
        median: median size of an image's own layer, bytes; the largest is some ten times as large.
        work: directory for all files.
        apptainer: number of images that ``apptainer build`` builds, 0 for none.
        bars: compare the figures with the bars.

    Raises:
        CommandError: a contestant failed.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    cores = len(os.sched_getaffinity(0))
    with RegistryServer(work / "registry") as registry:
        sizes = dict(_push_all(images, median, registry.address))
        total = sum(sizes.values())
        smallest, largest = min(sizes.values()) / 1e6, max(sizes.values()) / 1e6
        print(f"{images} images of {smallest:.1f} to {largest:.0f} MB, {total / 1e6:.0f} MB together; {cores} cores", flush=True)
        contest = _Contest(work, registry.address, list(sizes))
        one, many = contest.sync(1), contest.sync(cores)
        _print("publisher sync, builds: 1", one)
        _print(f"publisher sync, builds: {cores}", many)
        sample = list(sizes)[:: max(1, images // apptainer)][:apptainer] if apptainer else []
        if sample:
            share = sum(sizes[name] for name in sample) / total
            _print(
                f"xargs -P {cores} apptainer build, {len(sample)} images with {share:.0%} of the bytes",
                contest.apptainer(sample, cores),
            )
    used = one.cpu / (cores * many.seconds - many.others)
    print(f"\nwhat the cores could do, of the CPU time of one build after the other: {used:.2f} (bar {_UTILISATION})")
    print(f"the same without regard to other programs:                          {one.cpu / (cores * many.seconds):.2f}")
    print(f"one after the other / at the same time:                             {one.seconds / many.seconds:.2f} times as fast")
    if bars and used < _UTILISATION:
        print(f"MISSED: {used:.2f} of what the cores could do, {_UTILISATION} is required")
        return False
    return True


class _Contest:
    """The contestants, which build the same images.

    Args:
        work: directory for all files.
        address: address of the registry.
        names: ``repository:tag`` of each image.
    """

    def __init__(self, work: Path, address: str, names: list[str]) -> None:
        self._work = work
        self._address = address
        self._environment = {"PYTHONPATH": str(_ROOT), "HOME": str(work)}
        self._list = work / "images.yaml"
        entries = [f"{address}/{name}" for name in names]
        self._list.write_text(json.dumps({"version": 1, "defaults": {"formats": ["sif"]}, "images": entries}))  # JSON is YAML
        self._publisher("keys", "new", f"--key={work / 'key.pem'}")

    def sync(self, builds: int) -> Result:
        """Publish all images, with nothing fetched or published before."""
        places = {name: self._work / f"{name}-{builds}" for name in ("repository", "origin", "state")}
        flags = [f"--{name}={place}" for name, place in places.items()]
        result = self._publisher(
            "sync",
            *flags,
            f"--images={self._list}",
            f"--key={self._work / 'key.pem'}",
            f"--insecure-registry={self._address}",
            f"--builds={builds}",
            "--page=none",
        )
        for place in places.values():
            shutil.rmtree(place)
        return result

    def apptainer(self, names: list[str], jobs: int) -> Result:
        """Build images with apptainer, ``jobs`` at a time, with an empty cache."""
        out = self._work / "sifs"
        out.mkdir()
        directories = {"APPTAINER_CACHEDIR": str(out / "cache"), "APPTAINER_TMPDIR": str(out)}
        listed = " ".join(f"{number}.sif docker://{self._address}/{name}" for number, name in enumerate(names))
        argv = ["sh", "-c", f"cd {out} && echo {listed} | xargs -n 2 -P {jobs} apptainer build --no-https"]
        result = self._measure(argv, directories)
        shutil.rmtree(out)
        return result

    def _publisher(self, *arguments: str) -> Result:
        return self._measure([sys.executable, "-m", "publisher", *arguments], {})

    def _measure(self, argv: list[str], environment: dict[str, str]) -> Result:
        busy, idle = _machine()
        measured = run(argv, self._environment | environment, self._work / "log")
        busy_after, idle_after = _machine()
        others = max(0.0, busy_after - busy - measured.cpu)
        return Result(measured.seconds, measured.cpu, others, idle_after - idle)


def _machine() -> tuple[float, float]:
    """Return the CPU seconds since the start of the machine in which its cores were busy, and idle or waiting for disks."""
    user, nice, system, idle, waiting, interrupts, soft, stolen = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft + stolen) / tick, (idle + waiting) / tick


def _print(name: str, result: Result) -> None:
    figures = f"{result.seconds:7.1f} s | {result.cpu:7.1f} CPU s | others {result.others:7.1f} | idle {result.idle:7.1f}"
    print(f"| {name:70} | {figures}", flush=True)


def _push_all(count: int, median: float, address: str) -> Iterator[tuple[str, int]]:
    """Push images with a base in common and files of this host; yield name and bytes of each, in a mixed order."""
    chance = random.Random(_SEED)
    pool = [path for source in _SOURCES for path in sorted(Path(source).rglob("*")) if path.is_file() and not path.is_symlink()]
    pool = [path for path in pool if 0 < path.stat().st_size < _LARGEST_FILE]
    base, platform = tar(runnable()), f"linux/{go_name(os.uname().machine)}"
    for number in range(count):
        layer = tar(_sample(pool, chance, int(chance.lognormvariate(math.log(median), _SPREAD))))
        push_image(address, "many/image", str(number), [base, layer], {"Cmd": ["sh"]}, platform=platform)
        yield f"many/image:{number}", len(base) + len(layer)


def _sample(pool: list[Path], chance: random.Random, size: int) -> Iterator[Entry]:
    yield directory("opt")
    taken = 0
    while taken < size:
        path = chance.choice(pool)
        content = path.read_bytes()
        yield file(f"opt/{taken}-{path.name}", content)
        taken += len(content)
