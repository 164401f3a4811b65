"""``ci/bench hook``: the hook ``prepare-job`` from its start to its answer, against an empty Python program.

The one-file form, as it is shipped, started as HTCondor starts it; a manifest of 100,000 images in a directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from ci.benchmarks.measure import median
from publisher.errors import BuildError
from tests.support.ep import execution_point
from tests.support.ep.hook import job_ad, reply
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.ep.execution_point import ExecutionPoint

BAR_RATIO = 2.5
BAR_MORE = 25.0
"""Milliseconds beyond that many times the empty program."""
_PYTHON = "/usr/bin/python3"
_BARE = [_PYTHON, "-I", "-S", "-c", "pass"]
_NAME = "htc/rocky:9"
_PATH = f"/cvmfs/{execution_point.REPOSITORY}/{_NAME}"
_SIZE = 1_000_000  # bytes of the one SIF that is there: a hit does not read it
_ATTRIBUTES = 150  # of a job beside its own: a real ad has about as many


def benchmark(images: int, rounds: int, root: Path, work: Path, *, bars: bool) -> bool:
    """Measure and print; True where the bar held, or none is wanted.

    Args:
        images: how many the manifest has.
        rounds: runs of each kind, one after the other in turn; medians count.
        root: the source tree, whose ``ci/release`` makes the program.
        work: directory for everything, made anew.
        bars: whether figures are compared with the bar.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    program = work / "image-resolver.pyz"
    subprocess.run([sys.executable, root / "ci" / "release", "--output", program, _PYTHON], check=True, stdout=subprocess.DEVNULL)
    ep = _filled(work, images)
    print(f"{images} images")
    with FileServer(ep.origin) as web:
        usual: dict[str, Path | str] = {"repository": ep.repository, "origin": ep.origin, "cache": ep.cache}
        far: dict[str, Path | str] = {"repository": work / "absent", "origin": web.url, "cache": work / "far"}
        ways = {
            "empty program": _BARE,
            "sandbox, warm": _hook(program, ep, **usual),
            "SIF, warm": _hook(program, ep, **usual, prefer="sif"),
            "SIF, warm, no CVMFS, origin over http": _hook(program, ep, **far),
            "sandbox, cold": _hook(program, ep, **usual),
        }
        return _measured(ways, rounds, ep.cache / "manifest") or not bars


def _measured(ways: Mapping[str, list[str]], rounds: int, copies: Path) -> bool:
    """Run all ways in turn and print; whether the warm ones held the bar. ``copies`` are removed before a cold one."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for command in list(ways.values())[1:]:
        _run(command)
    for _ in range(rounds):
        for way, command in ways.items():
            if way.endswith("cold"):
                shutil.rmtree(copies)
            spent[way].append(_run(command))
    bare = median(spent["empty program"])
    limit = BAR_RATIO * bare + BAR_MORE
    held = True
    print(f"{rounds} rounds; the bar is {BAR_RATIO:g} times the empty program and {BAR_MORE:g} ms: {limit:.1f} ms")
    for way, times in spent.items():
        taken = median(times)
        held = held and (taken <= limit or way.endswith("cold"))
        print(f"{way}: {taken:.1f} ms, {taken / bare:.2f} times; fastest {min(times):.1f} ms")
    if not held:
        print("the bar was missed")
    return held


def _filled(work: Path, images: int) -> ExecutionPoint:
    """An execution point whose manifest has that many images, one of them there in both forms."""
    ep = execution_point.ExecutionPoint(work)
    content = execution_point.sif_content(_NAME, _SIZE)
    version = execution_point.version(_NAME, sif=ep.store(content))
    (ep.repository / str(version.sandbox) / "bin").mkdir(parents=True)
    others = (execution_point.record(f"group{number % 500}/image{number}:v1") for number in range(images - 1))
    records = [execution_point.record(_NAME, amd64=[version]), *others]
    files = execution_point.revision(records, ep.key, now=int(time.time()), count=256)
    for directory in (ep.repository / ".publisher", ep.origin / "manifest"):
        execution_point.lay_down(files, directory)
    return ep


def _hook(program: Path, ep: ExecutionPoint, **settings: Path | str) -> list[str]:
    named = {"repository-name": ep.repository.name, "public-key": ep.keys, "arch": "amd64", **settings}
    return [str(program), "prepare-job", *(f"--{name}={value}" for name, value in named.items())]


def _run(command: Sequence[str]) -> float:
    """Milliseconds of one run.

    Raises:
        BuildError: the hook has no image for the job.
    """
    filling = {f"Attribute{number}": "as long as values of real jobs are" for number in range(_ATTRIBUTES)}
    content = job_ad(ContainerImage=_PATH, **filling)
    environment = {"PATH": os.environ["PATH"]}
    start = time.perf_counter()
    run = subprocess.run(command, input=content, env=environment, capture_output=True, check=True)
    taken = (time.perf_counter() - start) * 1000
    if command != _BARE:
        answer = reply(run.stdout, run.stderr.decode())
        if answer.code:
            raise BuildError(f"the hook answers {answer.code}: {answer.message}")
    return taken
