"""``ci/bench hook``: the hook ``prepare-job`` from its start to its reply, against an empty Python program.

The hook is the released one-file program, started as HTCondor starts it, with a manifest of 100,000 images in a directory.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from ci.benchmarks.measure import median
from publisher.errors import BuildError
from tests.support.ep import execution_point
from tests.support.ep.hook import job_ad, reply
from tests.support.ep.two_levels import keys_document
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.ep.execution_point import ExecutionPoint, Key

BAR_RATIO = 2.5
BAR_EXTRA = 25.0
"""Milliseconds that the hook may take beyond ``BAR_RATIO`` times the empty program."""
BAR_CPU_RATIO = 3.0
"""Times the CPU time (user and system) of the empty program that a warm answer may take."""
_PYTHON = "/usr/bin/python3"
_BARE = [_PYTHON, "-I", "-S", "-c", "pass"]
_NAME = "htc/rocky:9"
_PATH = f"/cvmfs/{execution_point.REPOSITORY}/{_NAME}"
_SIZE = 1_000_000  # bytes of the only SIF; a cache hit does not read it
_ATTRIBUTES = 150  # further attributes of the job's ad: a real ad has about as many


class Measured(NamedTuple):
    """The milliseconds of one run: on the clock, and of the CPU in user and system mode, children included."""

    wall: float
    cpu: float


def benchmark(images: int, rounds: int, root: Path, work: Path, *, bars: bool) -> bool:
    """Measure and print; return whether the bar was met, or ``bars`` is false.

    Args:
        images: number of images in the manifest.
        rounds: alternating runs of each case; medians are compared.
        root: the source tree, whose ``ci/pyz`` makes the program.
        work: directory for all files; deleted first.
        bars: compare the figures with the bar.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    program = work / "image-resolver.pyz"
    subprocess.run([sys.executable, root / "ci" / "pyz", "--output", program, _PYTHON], check=True, stdout=subprocess.DEVNULL)
    ep, two = _prepare(work, images), _prepare(work / "two-levels", images, execution_point.Key())
    print(f"{images} images")
    with FileServer(ep.origin) as web:
        normal = _places(ep)
        remote: dict[str, Path | str] = {"repository": work / "absent", "origin": web.url, "cache": work / "far"}
        cases = {
            "empty program": _BARE,
            "sandbox, warm": _hook(program, ep, **normal),
            "sandbox, warm, two levels of keys": _hook(program, two, **_places(two)),
            "SIF, warm": _hook(program, ep, **normal, prefer="sif"),
            "SIF, warm, no CVMFS, origin over http": _hook(program, ep, **remote),
            "sandbox, cold": _hook(program, ep, **normal),
        }
        return _measure(cases, rounds, ep.cache / "manifest") or not bars


def _measure(cases: Mapping[str, list[str]], rounds: int, copies: Path) -> bool:
    """Run all cases in turn and print; return whether the warm ones met the bar. ``copies`` is removed before a cold one."""
    results: dict[str, list[Measured]] = {case: [] for case in cases}
    for command in list(cases.values())[1:]:
        _run(command)
    for _ in range(rounds):
        for case, command in cases.items():
            if case.endswith("cold"):
                shutil.rmtree(copies)
            results[case].append(_run(command))
    empty, empty_cpu = (median([getattr(run, name) for run in results["empty program"]]) for name in ("wall", "cpu"))
    limit = BAR_RATIO * empty + BAR_EXTRA
    met = True
    print(f"{rounds} rounds; the bar is {BAR_RATIO:g} times the empty program and {BAR_EXTRA:g} ms: {limit:.1f} ms")
    print(f"the bar for the CPU time (user and system) of a warm answer is {BAR_CPU_RATIO:g} times the empty program's")
    for case, runs in results.items():
        milliseconds, cpu = median([run.wall for run in runs]), median([run.cpu for run in runs])
        met = met and (case.endswith("cold") or (milliseconds <= limit and cpu <= BAR_CPU_RATIO * empty_cpu))
        wall_text = f"{milliseconds:.1f} ms, {milliseconds / empty:.2f} times; fastest {min(run.wall for run in runs):.1f} ms"
        print(f"{case}: {wall_text}; CPU {cpu:.1f} ms, {cpu / empty_cpu:.2f} times; least {min(run.cpu for run in runs):.1f} ms")
    if not met:
        print("the bar was missed")
    return met


def _places(ep: ExecutionPoint) -> dict[str, Path | str]:
    return {"repository": ep.repository, "origin": ep.origin, "cache": ep.cache}


def _prepare(work: Path, images: int, root: Key | None = None) -> ExecutionPoint:
    """Return an execution point with a manifest of that many images, of which one exists in both forms.

    With ``root`` it trusts this key only, whose keys document comes with the manifest.
    """
    work.mkdir(exist_ok=True)
    ep = execution_point.ExecutionPoint(work)
    content = execution_point.sif_content(_NAME, _SIZE)
    version = execution_point.version(_NAME, sif=ep.store(content))
    (ep.repository / str(version.sandbox) / "bin").mkdir(parents=True)
    others = (execution_point.record(f"group{number % 500}/image{number}:v1") for number in range(images - 1))
    records = [execution_point.record(_NAME, amd64=[version]), *others]
    now = int(time.time())
    files = execution_point.revision(records, ep.key, now=now, count=256)
    if root is not None:
        files = execution_point.with_keys(files, keys_document(ep.key, root=root, now=now))
        (ep.keys / "current.pem").write_bytes(root.pem)
    for directory in (ep.repository / ".publisher", ep.origin / "manifest"):
        execution_point.lay_down(files, directory)
    return ep


def _hook(program: Path, ep: ExecutionPoint, **settings: Path | str) -> list[str]:
    options = {"repository-name": ep.repository.name, "public-key": ep.keys, "arch": "amd64", **settings}
    return [str(program), "prepare-job", *(f"--{name}={value}" for name, value in options.items())]


def _run(command: Sequence[str]) -> Measured:
    """Return the times of one run.

    Raises:
        BuildError: the hook has no image for the job.
    """
    attributes = {f"Attribute{number}": "as long as values of real jobs are" for number in range(_ATTRIBUTES)}
    content = job_ad(ContainerImage=_PATH, **attributes)
    environment = {"PATH": os.environ["PATH"]}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, input=content, env=environment, capture_output=True, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if command != _BARE:
        hook_reply = reply(run.stdout, run.stderr.decode())
        if hook_reply.code:
            raise BuildError(f"the hook replies {hook_reply.code}: {hook_reply.message}\n{run.stderr.decode()}")
    return Measured(wall * 1000, cpu * 1000)
