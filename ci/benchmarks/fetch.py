"""``ci/bench fetch``: download of a SIF from a real origin and a real cache, against curl.

The servers are XRootD over TLS on this machine. curl only writes the file; the resolver also hashes it and syncs it to the disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.measure import median
from tests.support.ep.execution_point import sif_content, sif_of
from tests.support.osdf.xrootd import NAMESPACE, Servers

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR = 1.3
_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from publisher.resolver.transfer.fetch import fetch
from publisher.contract.records import Sif
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import NetworkOptions
_, _, url, ca, path, sha256, size, part = sys.argv
fetch([open_source(url, NetworkOptions(ca=ca))], Sif(path, sha256, int(size)), part)
"""


def benchmark(size: int, rounds: int, work: Path, *, bars: bool) -> bool:
    """Measure and print; return whether the bar was met, or ``bars`` is false.

    Args:
        size: size of the SIF, bytes.
        rounds: alternating downloads of each program; medians are compared.
        work: directory for all files; deleted first.
        bars: compare the figures with the bar.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    content = sif_content("fetch") + os.urandom(size - 1000)
    sif = sif_of(content)
    met = True
    with Servers() as servers:
        servers.start("cache")
        path = servers.data / NAMESPACE.lstrip("/") / sif.path
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        for directory in (path.parent, path.parent.parent):
            directory.chmod(0o755)
        for server, url in (("origin", servers.origin), ("cache, warm", servers.cache)):
            target, ca = work / "target", str(servers.authority)
            curl = ["curl", "-sSf", "--cacert", ca, "-o", str(target), f"{url}{NAMESPACE}/{sif.path}"]
            resolver = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOT), f"{url}{NAMESPACE}", ca]
            resolver += [sif.path, sif.sha256, str(sif.size), str(target)]
            _timed(curl, target)
            times = [(_timed(curl, target), _timed(resolver, target)) for _ in range(rounds)]
            theirs, seconds = median([each for each, _ in times]), median([each for _, each in times])
            speed = f"{seconds / theirs:.2f} times; {sif.size / seconds / 1e6:.0f} MB/s"
            print(f"{server}: {seconds:.2f} s, curl {theirs:.2f} s, {speed}")
            met = met and seconds <= BAR * theirs
    if bars and not met:
        print(f"the bar was missed: {BAR:g} times curl")
    return met or not bars


def _timed(command: Sequence[str], target: Path) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - start
    target.unlink()
    return seconds
