"""Registry to SIF: the publisher against ``apptainer build`` and against the bare pipe, in alternating runs on one machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.benchmarks import image, ours
from ci.benchmarks.measure import Run, median, run
from ci.demo import debian
from publisher.resolver.config.machine import go_name
from tests.support.registries.registry import RegistryServer

if TYPE_CHECKING:
    from ci.benchmarks.image import Size

_MIB = 1 << 20
_BYTES, _ENTRIES = 500_000_000, 30_000  # that the image has at least
_FASTER = 8.0  # times, than apptainer build with its defaults
_PAIR_FASTER = 4.0  # times, sandbox and SIF, than the older tool's pair of commands
_LIMIT = 1.35  # times what the bare pipe takes
_MEMORY = 300 * _MIB  # of this program
_SQUASH_MEMORY = 128  # MiB, what mksquashfs is told
_SQUASH_ENTRY = 2048  # bytes an entry on top of that; 0.7 KiB were measured
_SQUASH_BASE = 64 * _MIB  # its code, stacks and buffers
_SANDBOX = "apptainer build --sandbox"
_ZSTD = ("--mksquashfs-args", "-comp zstd -Xcompression-level 3")


@dataclass
class Results:
    """Runs by contestant, in their order, and what the publisher's own program told of the last one."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    memory: int = 0
    children: int = 0
    apptainer_size: int = 0

    def add(self, name: str, seconds: float) -> None:
        """One more run of a contestant."""
        self.seconds.setdefault(name, []).append(seconds)

    def told(self, figures: dict[str, Any]) -> None:
        """What ``ci.benchmarks.ours`` printed."""
        self.figures = figures
        self.memory = max(self.memory, figures["memory"])
        self.children = max(self.children, figures["children"])

    def ratio(self, name: str, of: str) -> str:
        """Of two contestants' medians, and in brackets the lowest and highest of single rounds."""
        rounds = [one / other for one, other in zip(self.seconds[name], self.seconds[of], strict=True)]
        return f"{self.median(name) / self.median(of):6.2f}  (single rounds: {min(rounds):.2f} to {max(rounds):.2f})"

    def median(self, *names: str) -> float:
        """Seconds, of one after the other."""
        return sum(median(self.seconds[name]) for name in names)

    @property
    def pair(self) -> float:
        """How many times faster sandbox and SIF are than the older tool's two commands."""
        ours = self.median("publisher", "its reading back, on top", "its sandbox, on top")
        return self.median(_SANDBOX, "apptainer build") / ours

    @property
    def above_limit(self) -> float:
        """Of the bare pipe's time, with the layers fetched."""
        return self.median("publisher, layers fetched") / self.median("bare pipe")


class Contest:
    """Runs everything in ``work``.

    Args:
        work: a directory for the image, states and results.
        address: of the registry.
        size: which image.
    """

    def __init__(self, work: Path, address: str, size: Size) -> None:
        self._work = work
        self._reference = f"{address}/{size.repository}:1"
        self._environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
        self.results = Results()

    def round(self) -> None:
        """Every contestant once."""
        self._whole()
        self._built()
        self._pipe()
        self._apptainer("apptainer build", ())
        self._apptainer(_SANDBOX, ("--fix-perms", "--sandbox"))

    def informative(self) -> None:
        """Once: apptainer with the publisher's compression."""
        self._apptainer("apptainer build, zstd 3", _ZSTD)

    def _python(self, module: str, *arguments: str) -> Run:
        return run([sys.executable, "-m", f"ci.benchmarks.{module}", *arguments], self._environment, self._work / "log")

    def _whole(self) -> None:
        shutil.rmtree(self._work / "state", ignore_errors=True)
        done = self._python("ours", self._reference, str(self._work / "state"))
        self.results.told(done.figures)
        self.results.add("publisher", self._without_extras(done))
        self.results.add("its reading back, on top", done.figures["readback"])
        self.results.add("its sandbox, on top", done.figures["sandbox"])
        self.results.add("its test run, on top", done.figures["test"])
        self.results.add("into the origin, on top", done.figures["store"])

    def _built(self) -> None:
        """Layers are in the store from the run before."""
        for name in ("builds", "origin", "sandbox"):
            shutil.rmtree(self._work / "state" / name)
        done = self._python("ours", self._reference, str(self._work / "state"))
        self.results.told(done.figures)
        self.results.add("publisher, layers fetched", self._without_extras(done))

    def _without_extras(self, done: Run) -> float:
        """Seconds to the finished SIF; what comes after it is told by itself."""
        extras = [float(done.figures[name]) for name in ("readback", "test", "store", "sandbox")]
        return done.seconds - sum(extras)

    def _pipe(self) -> None:
        figures = self.results.figures
        out = self._work / "pipe.squashfs"
        out.unlink(missing_ok=True)
        totals = json.dumps(ours.totals([Path(index) for index in figures["indexes"]]))
        self.results.add("bare pipe", self._python("pipe", str(out), totals, *figures["layers"]).seconds)
        out.unlink()

    def _apptainer(self, name: str, options: tuple[str, ...]) -> None:
        places = {"APPTAINER_CACHEDIR": self._work / "apptainer-cache", "APPTAINER_TMPDIR": self._work / "apptainer-tmp"}
        for place in places.values():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        out = self._work / ("apptainer" if name == _SANDBOX else "apptainer.sif")
        self._clear(out)
        environment = {key: str(place) for key, place in places.items()} | {"HOME": str(self._work)}
        done = run(["apptainer", "build", *options, str(out), f"docker://{self._reference}"], environment, self._work / "log")
        self.results.add(name, done.seconds)
        if name != _SANDBOX:
            self.results.apptainer_size = self.results.apptainer_size or out.stat().st_size
        self._clear(out)

    def _clear(self, out: Path) -> None:
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)


def benchmark(size: Size, work: Path, rounds: int, *, bars: bool) -> int:
    """Measure, print the table; the number of bars that were missed, 0 without ``bars``.

    Raises:
        UsageError: the image's packages cannot be had.
        CommandError: a contestant failed.
    """
    work.mkdir(parents=True, exist_ok=True)
    with RegistryServer(work / "registry") as registry:
        print(f"image: {size.repository}, from Debian's packages; made once, which takes a few minutes", flush=True)
        image.ensure(size, debian.Packages(debian.cache_directories(os.environ)), go_name(os.uname().machine), registry.address)
        contest = Contest(work, registry.address, size)
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            contest.round()
        contest.informative()
    _print(contest.results)
    missed = _missed(contest.results) if bars else []
    for line in missed:
        print(f"MISSED: {line}")
    return len(missed)


def _print(results: Results) -> None:
    figures = results.figures
    layers = sum(Path(layer).stat().st_size for layer in figures["layers"])
    print(f"\n{figures['entries']:,} entries, {figures['unpacked'] / 1e6:,.0f} MB in {len(figures['layers'])} layers", end="")
    print(f" ({layers / 1e6:,.0f} MB compressed); {os.cpu_count()} cores\n")
    ours_whole = results.median("publisher")
    print(f"| {'registry -> SIF':28} | seconds | of publisher's |  runs")
    for name in results.seconds:
        runs = " ".join(f"{seconds:.2f}" for seconds in results.seconds[name])
        print(f"| {name:28} | {results.median(name):7.2f} | {results.median(name) / ours_whole:14.2f} | {runs}")
    print(f"\napptainer build / publisher:                  {results.ratio('apptainer build', 'publisher')}")
    print(f"the older tool's pair / publisher, both forms: {results.pair:6.2f}")
    print(f"publisher, layers fetched / bare pipe:        {results.ratio('publisher, layers fetched', 'bare pipe')}")
    smaller = figures["size"] / results.apptainer_size
    print(f"SIF, publisher / apptainer:                   {smaller:6.2f}  ({figures['size'] / 1e6:,.0f} MB)")
    print(f"memory of the publisher's process:            {results.memory / _MIB:6.0f} MiB")
    print(f"memory of its largest child, mksquashfs:      {results.children / _MIB:6.0f} MiB, told -mem {_SQUASH_MEMORY}M")


def _missed(results: Results) -> list[str]:
    figures = results.figures
    faster = results.median("apptainer build") / results.median("publisher")
    allowed = _SQUASH_MEMORY * _MIB + _SQUASH_BASE + _SQUASH_ENTRY * figures["entries"]
    found = {
        f"the image has {figures['unpacked']} bytes, {_BYTES} are wanted": figures["unpacked"] >= _BYTES,
        f"the image has {figures['entries']} entries, {_ENTRIES} are wanted": figures["entries"] >= _ENTRIES,
        f"{faster:.2f} times faster than apptainer build, {_FASTER:g} are wanted": faster >= _FASTER,
        f"{results.pair:.2f} times faster than the older tool's pair, {_PAIR_FASTER:g} are wanted": results.pair >= _PAIR_FASTER,
        f"{results.above_limit:.2f} of the bare pipe, at most {_LIMIT:g} is wanted": results.above_limit <= _LIMIT,
        f"{results.memory / _MIB:.0f} MiB, less than {_MEMORY / _MIB:.0f} are wanted": results.memory < _MEMORY,
        f"mksquashfs held {results.children / _MIB:.0f} MiB, {allowed / _MIB:.0f} are allowed": results.children <= allowed,
    }
    return [line for line, well in found.items() if not well]
