"""``ci/bench store``: upload of a SIF into a real origin, and its readback, against curl.

The origin is XRootD over TLS on this machine. curl only sends, while the publisher also hashes what it sends. Both hash what they
read back, curl by a pipe into ``openssl dgst``; the time of curl alone is shown as well.
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
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.targets.pelican import content, tokens, transport, upload, webdav
from publisher.targets.pelican.federation import address, endpoint
_, _, url, ca, token, source, sha256, size, name = sys.argv

async def main():
    policy = AddressPolicy({address.parse(url).host})
    sender = transport.OriginTransport(transport.OriginTimeouts(), Proxies({}), Path(ca), policy)
    file_tokens = tokens.FileTokens(Path(token))
    client = webdav.WebDavClient(sender, endpoint.DirectEndpoint(address.parse(url)), file_tokens, file_tokens)
    start = time.monotonic()
    await upload.WebDavUpload().send(client, name, content.from_file(Path(source), sha256, int(size)))
    sent = time.monotonic()
    assert await client.sha256(name, int(size), RetryPolicy().run) == sha256
    back = time.monotonic()
    await sender.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"sent": sent - start, "back": back - sent, "memory": peak}))

asyncio.run(main())
"""


def benchmark(size: int, rounds: int, work: Path, *, bars: bool, sparse: bool) -> bool:
    """Measure and print; return whether the bars were met, or ``bars`` is false.

    Args:
        size: size of the SIF, bytes.
        rounds: alternating uploads and downloads of each program; medians are compared.
        work: directory for all files; deleted first.
        bars: compare the figures with the bars.
        sparse: use a SIF of zeros.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    source, token = work / "source", work / "token"
    sha256 = _fill(source, size, sparse=sparse)
    times: list[dict[str, float]] = []
    with Servers() as servers:
        token.touch(mode=0o600)
        top, ca = f"{servers.origin}{NAMESPACE}", str(servers.authority)
        for _ in range(rounds):
            token.write_text(servers.issuer.token("storage.read:/ storage.modify:/", life=3600))
            curl = ["curl", "-sSf", "--cacert", ca, "-H", f"Authorization: Bearer {token.read_text()}", "-o", "/dev/null"]
            publisher = [sys.executable, "-c", _PROGRAM, str(_ROOT), top, ca]
            publisher += [str(token), str(source), sha256, str(size), "publisher"]
            curl_times = {
                "curl sent": _timed([*curl, "-T", str(source), f"{top}/theirs"]),
                "curl back": _timed(["sh", "-c", '"$@" | openssl dgst -sha256 > /dev/null', "sh", *curl[:-2], f"{top}/theirs"]),
                "curl alone": _timed([*curl, f"{top}/theirs"]),
            }
            result = subprocess.run(publisher, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(_ROOT)})
            times.append({**curl_times, **json.loads(result.stdout)})
            servers.empty()
    return _report(times, size) or not bars


def _report(times: Sequence[dict[str, float]], size: int) -> bool:
    met = True
    for direction in ("sent", "back"):
        seconds, curl = median([each[direction] for each in times]), median([each[f"curl {direction}"] for each in times])
        print(f"{direction}: {seconds:.2f} s, curl {curl:.2f} s, {seconds / curl:.2f} times; {size / seconds / 1e6:.0f} MB/s")
        met = met and seconds <= BAR * curl
    print(f"curl alone, back: {median([each['curl alone'] for each in times]):.2f} s")
    memory = max(each["memory"] for each in times)
    print(f"memory: {memory / 1e6:.0f} MB at most, for {size / 1e6:.0f} MB")
    met = met and memory <= MEMORY
    if not met:
        print(f"a bar was missed: {BAR:g} times curl, {MEMORY / 1e6:.0f} MB")
    return met


def _fill(path: Path, size: int, *, sparse: bool) -> str:
    """Write the file and return its sha256."""
    with path.open("wb") as file:
        if sparse:
            file.truncate(size)
        else:
            for start in range(0, size, _PIECE):
                file.write(os.urandom(min(_PIECE, size - start)))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _timed(command: Sequence[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - start
