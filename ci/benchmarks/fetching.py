"""``ci/bench fetch``: a SIF from a real origin and a real cache to the disk, against curl.

XRootD over TLS on this machine. curl only writes; the resolver also hashes what comes and syncs it to the disk.
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
from publisher.resolver.transfer.sources import Network
_, _, url, ca, path, sha256, size, part = sys.argv
fetch([open_source(url, Network(ca=ca))], Sif(path, sha256, int(size)), part)
"""


def benchmark(size: int, rounds: int, work: Path, *, bars: bool) -> bool:
    """Measure and print; True where the bar held, or none is wanted.

    Args:
        size: of the SIF, in bytes.
        rounds: downloads of each, taking turns; medians count.
        work: directory for everything, made anew.
        bars: whether figures are compared with the bar.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    content = sif_content("fetch") + os.urandom(size - 1000)
    sif = sif_of(content)
    held = True
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
            ours = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOT), f"{url}{NAMESPACE}", ca]
            ours += [sif.path, sif.sha256, str(sif.size), str(target)]
            _timed(curl, target)
            spent = [(_timed(curl, target), _timed(ours, target)) for _ in range(rounds)]
            theirs, taken = median([one for one, _ in spent]), median([other for _, other in spent])
            print(f"{server}: {taken:.2f} s, curl {theirs:.2f} s, {taken / theirs:.2f} times; {sif.size / taken / 1e6:.0f} MB/s")
            held = held and taken <= BAR * theirs
    if bars and not held:
        print(f"the bar was missed: {BAR:g} times curl")
    return held or not bars


def _timed(command: Sequence[str], target: Path) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True)
    taken = time.monotonic() - begun
    target.unlink()
    return taken
