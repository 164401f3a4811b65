"""``ci/bench store``: a SIF into a real origin and read back from it, against curl.

XRootD over TLS on this machine. curl only sends; the publisher hashes what it sends as well. What comes back both hash, curl by
``openssl dgst`` behind it; what curl alone takes is shown too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.measure import median
from tests.support.osdf.xrootd import NAMESPACE, Servers

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR = 1.3
MEMORY = 300 << 20  # bytes
_ROOT = Path(__file__).parents[2]
_PIECE = 1 << 20
_PROGRAM = """
import asyncio, json, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from publisher.federation import address, content, place, store, tokens, transport, upload
from publisher.net.retry import Patience
from publisher.net.proxies import Proxies
_, _, url, ca, token, source, sha256, size, name = sys.argv

async def main():
    sender = transport.Transport(transport.Deadlines(), Proxies({}), Path(ca))
    origin = store.Store(sender, place.Direct(address.parse(url)), *[tokens.TokenFile(Path(token))] * 2)
    begun = time.monotonic()
    await upload.Own().carry(origin, name, content.of_file(Path(source), sha256, int(size)))
    sent = time.monotonic()
    assert await origin.sha256(name, int(size), Patience().run) == sha256
    back = time.monotonic()
    await sender.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"sent": sent - begun, "back": back - sent, "memory": peak}))

asyncio.run(main())
"""


def benchmark(size: int, rounds: int, work: Path, *, bars: bool, sparse: bool) -> bool:
    """Measure and print; True where the bars held, or none is wanted.

    Args:
        size: of the SIF, in bytes.
        rounds: of each, taking turns; medians count.
        work: directory for everything, made anew.
        bars: whether figures are compared with the bars.
        sparse: the SIF is all zeros.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    source, token = work / "source", work / "token"
    sha256 = _fill(source, size, sparse=sparse)
    spent: list[dict[str, float]] = []
    with Servers() as servers:
        token.touch(mode=0o600)
        top, ca = f"{servers.origin}{NAMESPACE}", str(servers.authority)
        for _ in range(rounds):
            token.write_text(servers.issuer.token("storage.read:/ storage.modify:/", life=3600))
            curl = ["curl", "-sSf", "--cacert", ca, "-H", f"Authorization: Bearer {token.read_text()}", "-o", "/dev/null"]
            ours = [sys.executable, "-c", _PROGRAM, str(_ROOT), top, ca, str(token), str(source), sha256, str(size), "ours"]
            theirs = {
                "curl sent": _timed([*curl, "-T", str(source), f"{top}/theirs"]),
                "curl back": _timed(["sh", "-c", '"$@" | openssl dgst -sha256 > /dev/null', "sh", *curl[:-2], f"{top}/theirs"]),
                "curl alone": _timed([*curl, f"{top}/theirs"]),
            }
            done = subprocess.run(ours, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(_ROOT)})
            spent.append({**theirs, **json.loads(done.stdout)})
            servers.empty()
    return _shown(spent, size) or not bars


def _shown(spent: Sequence[dict[str, float]], size: int) -> bool:
    held = True
    for what in ("sent", "back"):
        taken, theirs = median([one[what] for one in spent]), median([one[f"curl {what}"] for one in spent])
        print(f"{what}: {taken:.2f} s, curl {theirs:.2f} s, {taken / theirs:.2f} times; {size / taken / 1e6:.0f} MB/s")
        held = held and taken <= BAR * theirs
    print(f"curl alone, back: {median([one['curl alone'] for one in spent]):.2f} s")
    memory = max(one["memory"] for one in spent)
    print(f"memory: {memory / 1e6:.0f} MB at the most, for {size / 1e6:.0f} MB")
    held = held and memory <= MEMORY
    if not held:
        print(f"a bar was missed: {BAR:g} times curl, {MEMORY / 1e6:.0f} MB")
    return held


def _fill(path: Path, size: int, *, sparse: bool) -> str:
    """Make the file; its sha256."""
    with path.open("wb") as file:
        if sparse:
            file.truncate(size)
        else:
            for start in range(0, size, _PIECE):
                file.write(os.urandom(min(_PIECE, size - start)))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _timed(command: Sequence[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - begun
