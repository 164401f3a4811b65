"""``ci/bench levels``: what the level of zstd costs and saves, on three families of images made on the spot.

*programs* are this machine's programs and libraries, *small files* those below 16 KiB (as trees of R and Python have them), and
*compressed* what cannot be compressed much more: archives, images, packed documentation. In the second version of each a tenth of
the files, side by side, is changed. Build time is that of mksquashfs with the tar stream; a start is ``apptainer exec SIF true``
without root, cold with the SIF dropped from the page cache before, and warm.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks import families
from ci.benchmarks.families import File
from ci.benchmarks.measure import median, run
from publisher.contract.chunk_table import parse_chunk_table
from publisher.resolver.difference.plan import ChunkMatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEVELS = (3, 9, 15, 19)
_SMALL_FILE = 16 << 10  # bytes
_PACKED = {".gz", ".xz", ".zip", ".whl", ".png", ".jar", ".woff2", ".zst", ".bz2", ".jpg"}
_CHANGED = 0.1  # of the files
_STARTING = ("/usr/bin/true", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2")


@dataclass(frozen=True)
class Level:
    """What one level gave: seconds and CPU seconds of the build, bytes of the SIF and of a difference, seconds of starts."""

    seconds: float
    cpu: float
    size: int
    needed: int
    cold: float
    warm: float


def benchmark(size: int, rounds: int, work: Path) -> None:
    """Measure and print.

    Args:
        size: bytes of the files of an image.
        rounds: starts of each kind; medians are shown.
        work: directory for all files; deleted first.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, chosen in _FAMILIES.items():
        given = [*_starting(), *_take(chosen, size)]
        wanted = _bumped(given)
        usual: Level | None = None
        for number in LEVELS:
            level = _measure(given, wanted, number, rounds, work)
            usual = usual or level
            print(
                f"{name}, level {number}: SIF {level.size / 1e6:.1f} MB ({level.size / usual.size - 1:+.1%}), "
                f"build {level.seconds:.1f} s ({level.seconds / usual.seconds:.1f} times), CPU {level.cpu:.1f} s "
                f"({level.cpu / usual.cpu:.1f} times), next version {level.needed / 1e6:.2f} MB, "
                f"cold start {level.cold:.2f} s ({level.cold / usual.cold:.2f} times), "
                f"warm {level.warm:.2f} s ({level.warm / usual.warm:.2f} times)",
                flush=True,
            )
    shutil.rmtree(work)


def _measure(given: list[File], wanted: list[File], level: int, rounds: int, work: Path) -> Level:
    sif, next_one = work / "given.sif", work / "wanted.sif"
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    _, _, table = families.make(given, sif, level)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    _, _, next_table = families.make(wanted, next_one, level)
    matcher = ChunkMatcher(parse_chunk_table(next_table))
    needed = next_one.stat().st_size - matcher.gain(parse_chunk_table(table))
    starts = [_start(sif, work, cold=cold) for _ in range(rounds) for cold in (True, False)]
    measured = Level(
        seconds,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        sif.stat().st_size,
        needed,
        median(starts[::2]),
        median(starts[1::2]),
    )
    sif.unlink()
    next_one.unlink()
    return measured


def _start(sif: Path, work: Path, *, cold: bool) -> float:
    """Return the seconds that a container takes to start and end."""
    os.sync()
    if cold:
        with sif.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return run(["apptainer", "--silent", "exec", "--userns", str(sif), "/usr/bin/true"], {}, work / "log").seconds


def _starting() -> list[File]:
    """Return the files without which no program starts."""
    return [File(path.lstrip("/"), Path(path).resolve()) for path in _STARTING]


def _take(chosen: Callable[[File], bool], size: int) -> Iterator[File]:
    count = 0
    for file in filter(chosen, families.files()):
        if count >= size:
            return
        count += file.origin.stat().st_size
        yield file


def _bumped(given: list[File]) -> list[File]:
    """Change a tenth of the files, which lie together."""
    begin, count = len(given) // 2, int(len(given) * _CHANGED)
    changed = (File(file.name, file.origin, "new release", families.EPOCH + 1000) for file in islice(given, begin, begin + count))
    return [*given[:begin], *changed, *given[begin + count :]]


def _is_small(file: File) -> bool:
    return 0 < file.origin.stat().st_size < _SMALL_FILE


def _is_packed(file: File) -> bool:
    return file.origin.suffix in _PACKED


_FAMILIES: dict[str, Callable[[File], bool]] = {
    "programs": lambda file: not _is_small(file) and not _is_packed(file),
    "small files": lambda file: _is_small(file) and not _is_packed(file),
    "compressed": _is_packed,
}
