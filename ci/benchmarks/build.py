"""``ci/bench build``: registry -> SIF by the publisher, by ``apptainer build`` and by the bare pipe, in alternating runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.benchmarks import bench_image, publisher_build
from ci.benchmarks.measure import Run, median, run
from ci.demo import debian
from publisher.resolver.config.machine import go_name
from tests.support.registries.registry import RegistryServer

if TYPE_CHECKING:
    from ci.benchmarks.bench_image import Size

_MIB = 1 << 20
_MIN_BYTES, _MIN_ENTRIES = 500_000_000, 30_000  # of the image
_SPEEDUP = 10.0  # over apptainer build with its defaults
_PAIR_SPEEDUP = 4.0  # for sandbox and SIF, over the older tool's pair of commands
_PIPE_RATIO = 1.25  # at most, of the bare pipe's time
_READ_BACK_RATIO = 1.35  # the same with reading back
_MEMORY = 300 * _MIB  # bytes, of the publisher's process
_SQUASH_MEMORY = 128  # MiB, the -mem option of mksquashfs
_SQUASH_ENTRY = 2048  # further bytes per entry; 0.7 KiB were measured
_SQUASH_BASE = 64 * _MIB  # bytes of code, stacks and buffers
_SANDBOX = "apptainer build --sandbox"
_ZSTD = ("--mksquashfs-args", "-comp zstd -Xcompression-level 3")


@dataclass
class Results:
    """The times of all contestants, and the figures of the publisher's last run.

    Attributes:
        seconds: contestant -> seconds of its runs, in order.
        cpu: contestant -> CPU seconds of its whole runs, in order; the parts on top of a build have none of their own.
        figures: what ``ci.benchmarks.publisher_build`` printed last.
        memory: peak memory of the publisher's process, bytes.
        children: peak memory of its largest child, bytes.
        apptainer_size: size of the SIF of apptainer build, bytes.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    memory: int = 0
    children: int = 0
    apptainer_size: int = 0

    def add(self, name: str, seconds: float, cpu: float | None = None) -> None:
        """Add a run of a contestant."""
        self.seconds.setdefault(name, []).append(seconds)
        if cpu is not None:
            self.cpu.setdefault(name, []).append(cpu)

    def add_figures(self, figures: dict[str, Any]) -> None:
        """Add the figures that ``ci.benchmarks.publisher_build`` printed."""
        self.figures = figures
        self.memory = max(self.memory, figures["memory"])
        self.children = max(self.children, figures["children"])

    def ratio(self, name: str, of: str) -> str:
        """Return the ratio of two contestants' medians, with the lowest and highest ratio of single rounds in brackets."""
        rounds = [numerator / denominator for numerator, denominator in zip(self.seconds[name], self.seconds[of], strict=True)]
        return f"{self.median(name) / self.median(of):6.2f}  (single rounds: {min(rounds):.2f} to {max(rounds):.2f})"

    def median(self, *names: str) -> float:
        """Return the sum of the medians of contestants, seconds."""
        return sum(median(self.seconds[name]) for name in names)

    @property
    def pair(self) -> float:
        """Return how many times faster sandbox and SIF are made than by the older tool's two commands."""
        seconds = self.median("publisher", "its reading back, on top", "its sandbox, on top")
        return self.median(_SANDBOX, "apptainer build") / seconds

    @property
    def pipe_ratio(self) -> float:
        """Return the time of a build with fetched layers, as a multiple of the bare pipe's time."""
        return self.median("publisher, layers fetched") / self.median("bare pipe")

    @property
    def read_back_ratio(self) -> float:
        """Return the same with reading back."""
        return self.median("publisher, layers fetched", "its reading back, on top") / self.median("bare pipe")


class Contest:
    """The contestants, which all build the same image.

    Args:
        work: a directory for all files.
        address: address of the registry.
        size: size of the image.
    """

    def __init__(self, work: Path, address: str, size: Size) -> None:
        self._work = work
        self._reference = f"{address}/{size.repository}:1"
        self._environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
        self.results = Results()

    def round(self) -> None:
        """Run every contestant once."""
        self._run_publisher()
        self._run_publisher_fetched()
        self._run_pipe()
        self._run_apptainer("apptainer build", ())
        self._run_apptainer(_SANDBOX, ("--fix-perms", "--sandbox"))

    def run_same_compression(self) -> None:
        """Run apptainer build once with the publisher's compression."""
        self._run_apptainer("apptainer build, zstd 3", _ZSTD)

    def _run_module(self, module: str, *arguments: str) -> Run:
        return run([sys.executable, "-m", f"ci.benchmarks.{module}", *arguments], self._environment, self._work / "log")

    def _run_publisher(self) -> None:
        shutil.rmtree(self._work / "state", ignore_errors=True)
        result = self._run_module("publisher_build", self._reference, str(self._work / "state"))
        self.results.add_figures(result.figures)
        self.results.add("publisher", self._without_extras(result), result.cpu)
        self.results.add("its reading back, on top", result.figures["readback"])
        self.results.add("its sandbox, on top", result.figures["sandbox"])
        self.results.add("its test run, on top", result.figures["test"])
        self.results.add("into the origin, on top", result.figures["store"])

    def _run_publisher_fetched(self) -> None:
        """Run the publisher with layers that another process has just fetched."""
        shutil.rmtree(self._work / "state")
        self._run_module("publisher_build", self._reference, str(self._work / "state"), "fetch")
        result = self._run_module("publisher_build", self._reference, str(self._work / "state"))
        self.results.add_figures(result.figures)
        self.results.add("publisher, layers fetched", self._without_extras(result), result.cpu)

    def _without_extras(self, result: Run) -> float:
        """Return the seconds to the finished SIF; what follows it is reported separately."""
        extras = [float(result.figures[name]) for name in ("readback", "test", "store", "sandbox")]
        return result.seconds - sum(extras)

    def _run_pipe(self) -> None:
        figures = self.results.figures
        out = self._work / "pipe.squashfs"
        out.unlink(missing_ok=True)
        totals = json.dumps(publisher_build.totals([Path(index) for index in figures["indexes"]]))
        result = self._run_module("bare_pipe", str(out), totals, *figures["layers"])
        self.results.add("bare pipe", result.seconds, result.cpu)
        out.unlink()

    def _run_apptainer(self, name: str, options: tuple[str, ...]) -> None:
        directories = {"APPTAINER_CACHEDIR": self._work / "apptainer-cache", "APPTAINER_TMPDIR": self._work / "apptainer-tmp"}
        for directory in directories.values():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        out = self._work / ("apptainer" if name == _SANDBOX else "apptainer.sif")
        self._clear(out)
        environment = {name: str(path) for name, path in directories.items()} | {"HOME": str(self._work)}
        result = run(["apptainer", "build", *options, str(out), f"docker://{self._reference}"], environment, self._work / "log")
        self.results.add(name, result.seconds, result.cpu)
        if name != _SANDBOX:
            self.results.apptainer_size = self.results.apptainer_size or out.stat().st_size
        self._clear(out)

    def _clear(self, out: Path) -> None:
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)


def benchmark(size: Size, work: Path, rounds: int, *, bars: bool) -> int:
    """Measure, print the table, and return the number of missed bars, 0 without ``bars``.

    Args:
        size: size of the image.
        work: directory for all files.
        rounds: rounds of all contestants.
        bars: compare the figures with the bars.

    Raises:
        UsageError: the image's packages cannot be downloaded.
        CommandError: a contestant failed.
    """
    work.mkdir(parents=True, exist_ok=True)
    with RegistryServer(work / "registry") as registry:
        print(f"image: {size.repository}, made from Debian's packages in the first run, which takes a few minutes", flush=True)
        packages = debian.Packages(debian.cache_directories(os.environ))
        bench_image.ensure(size, packages, go_name(os.uname().machine), registry.address)
        contest = Contest(work, registry.address, size)
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            contest.round()
        contest.run_same_compression()
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
    publisher_seconds = results.median("publisher")
    print(f"| {'registry -> SIF':28} | seconds | of publisher's | CPU seconds |  runs")
    for name in results.seconds:
        runs = " ".join(f"{seconds:.2f}" for seconds in results.seconds[name])
        cpu = f"{median(results.cpu[name]):11.2f}" if name in results.cpu else f"{'':11}"
        print(f"| {name:28} | {results.median(name):7.2f} | {results.median(name) / publisher_seconds:14.2f} | {cpu} | {runs}")
    print("\nCPU seconds of the publisher are those of the whole command, with all that is on top of the build.")
    print(f"apptainer build / publisher:                  {results.ratio('apptainer build', 'publisher')}")
    print(f"the older tool's pair / publisher, both forms: {results.pair:6.2f}")
    print(f"publisher, layers fetched / bare pipe:        {results.ratio('publisher, layers fetched', 'bare pipe')}")
    print(f"the same with reading back / bare pipe:       {results.read_back_ratio:6.2f}")
    smaller = figures["size"] / results.apptainer_size
    print(f"SIF, publisher / apptainer:                   {smaller:6.2f}  ({figures['size'] / 1e6:,.0f} MB)")
    print(f"memory of the publisher's process:            {results.memory / _MIB:6.0f} MiB")
    print(f"memory of its largest child:                  {results.children / _MIB:6.0f} MiB")


def _missed(results: Results) -> list[str]:
    figures = results.figures
    speedup = results.median("apptainer build") / results.median("publisher")
    pair = results.pair
    allowed = _SQUASH_MEMORY * _MIB + _SQUASH_BASE + _SQUASH_ENTRY * figures["entries"]
    checks = {
        f"the image has {figures['unpacked']} bytes, {_MIN_BYTES} are required": figures["unpacked"] >= _MIN_BYTES,
        f"the image has {figures['entries']} entries, {_MIN_ENTRIES} are required": figures["entries"] >= _MIN_ENTRIES,
        f"{speedup:.2f} times faster than apptainer build, {_SPEEDUP:g} are required": speedup >= _SPEEDUP,
        f"{pair:.2f} times faster than the older tool's pair, {_PAIR_SPEEDUP:g} are required": pair >= _PAIR_SPEEDUP,
        f"{results.pipe_ratio:.2f} of the bare pipe, at most {_PIPE_RATIO:g} is allowed": results.pipe_ratio <= _PIPE_RATIO,
        f"{results.read_back_ratio:.2f} of the bare pipe with reading back, at most {_READ_BACK_RATIO:g} is allowed": (
            results.read_back_ratio <= _READ_BACK_RATIO
        ),
        f"{results.memory / _MIB:.0f} MiB, less than {_MEMORY / _MIB:.0f} are required": results.memory < _MEMORY,
        f"a child used {results.children / _MIB:.0f} MiB, {allowed / _MIB:.0f} are allowed": results.children <= allowed,
    }
    return [line for line, is_met in checks.items() if not is_met]
