"""``ci/bench references``: a run over thousands of references in which nothing changed, against sequential HEAD requests.

The registry is a real docker-registry behind a round trip of 40 ms. Every reference has its own image manifest; half of them are
image indexes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import aiohttp

from ci.benchmarks.unchanged_run import reference_of
from publisher.errors import BuildError
from tests.support.registries.registry import OCI, RegistryServer, describe, push_blob, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUND_TRIP = 40
"""The simulated round trip, milliseconds."""
BAR_SPEED = 20.0
BAR_MEMORY = 250 << 20
BAR_GROWTH = 1.5
"""The most that time and memory may grow, as a factor of proportional growth."""
_SEQUENTIAL = 250  # references that are requested in sequence; the time of the others is extrapolated
_PARALLEL_PUSHES = 32


def benchmark(counts: list[int], work: Path, *, bars: bool) -> bool:
    """Measure and print; return whether all bars were met, or ``bars`` is false.

    Args:
        counts: numbers of references, ascending.
        work: directory for the registry's storage, which is kept for the next run.
        bars: compare the figures with the bars.
    """
    work.mkdir(parents=True, exist_ok=True)
    met = []
    rows: dict[int, dict[str, float]] = {}
    with RegistryServer(work / "references-registry") as registry:
        for count in counts:
            _fill(registry, count, work)
            with _delayed(registry.port) as address:
                sequential = _sequential_seconds(address, count)
                figures = rows[count] = _run_figures(registry, address, count, work)
            faster = sequential / figures["seconds"]
            memory = figures["memory"]
            print(
                f"{count} references, {ROUND_TRIP} ms: {figures['seconds']:.2f} s against {sequential:.0f} s in sequence "
                f"({_SEQUENTIAL} measured), {faster:.1f} times faster; {memory / 2**20:.0f} MiB; {figures['heads']:.0f} HEADs, "
                f"{figures['others']:.0f} other requests"
            )
            met += [faster >= BAR_SPEED, figures["heads"] <= count, figures["others"] <= 1]
            met += [memory <= BAR_MEMORY] if count == counts[0] else []
    if len(counts) > 1:
        small, large = counts[0], counts[-1]
        for quantity in ("seconds", "memory"):
            growth = rows[large][quantity] / rows[small][quantity] / (large / small)
            print(f"{quantity}, {large} against {small} references: {growth:.2f} of proportional growth")
            met.append(growth <= BAR_GROWTH)
    if bars and not all(met):
        print(f"a bar was missed: {BAR_SPEED:g} times, {BAR_MEMORY >> 20} MiB, one HEAD for each, growth {BAR_GROWTH:g}")
    return all(met) or not bars


def _fill(registry: RegistryServer, count: int, work: Path) -> None:
    """Push the images that earlier runs have not pushed."""
    marker = work / "references-registry" / "pushed"
    pushed = int(marker.read_text()) if marker.exists() else 0
    if pushed < count:
        print(f"pushing {count - pushed} images")
        asyncio.run(_push(registry.address, range(pushed, count)))
        marker.write_text(str(count))
        registry.requests()


async def _push(address: str, numbers: range) -> None:
    layer = b"\0" * 1024
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]}}
    raw = json.dumps(config).encode()
    for repository in {reference_of(number, address).repository for number in numbers}:
        for blob in (layer, raw):
            push_blob(address, repository, blob)
    common = {"schemaVersion": 2, "config": describe(raw, OCI["config"]), "layers": [describe(layer, OCI["none"])]}
    slots = asyncio.Semaphore(_PARALLEL_PUSHES)

    async def put(session: aiohttp.ClientSession, repository: str, name: str, document: dict[str, object]) -> dict[str, object]:
        body = json.dumps(document).encode()
        kind = str(document["mediaType"])
        url = f"http://{address}/v2/{repository}/manifests/{name or sha256(body)}"
        async with session.put(url, data=body, headers={"Content-Type": kind}) as answer:
            answer.raise_for_status()
        return describe(body, kind)

    async def push(session: aiohttp.ClientSession, number: int) -> None:
        reference = reference_of(number, address)
        single = {**common, "mediaType": OCI["manifest"], "annotations": {"number": str(number)}}
        async with slots:
            if number % 2:
                await put(session, reference.repository, str(reference.tag), single)
                return
            described = await put(session, reference.repository, "", single)
            entry = {**described, "platform": {"os": "linux", "architecture": "amd64"}}
            index = {"schemaVersion": 2, "mediaType": OCI["index"], "manifests": [entry]}
            await put(session, reference.repository, str(reference.tag), index)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(push(session, number) for number in numbers))


@contextlib.contextmanager
def _delayed(port: int) -> Iterator[str]:
    """Yield an address of the registry with the simulated round trip."""
    argv = [sys.executable, "-m", "ci.benchmarks.delayed_proxy", str(port), str(ROUND_TRIP)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise AssertionError
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def _sequential_seconds(address: str, count: int) -> float:
    """Return the seconds that sequential HEAD requests for ``count`` references take on one persistent connection."""
    number_measured = min(count, _SEQUENTIAL)
    connection = http.client.HTTPConnection(address, timeout=60)
    accept = {"Accept": f"{OCI['index']}, {OCI['manifest']}"}
    start = time.perf_counter()
    for number in range(number_measured):
        reference = reference_of(number, address)
        connection.request("HEAD", f"/v2/{reference.repository}/manifests/{reference.tag}", headers=accept)
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise BuildError(f"the registry answers {answer.status} for {reference}")
    connection.close()
    return (time.perf_counter() - start) * count / number_measured


def _run_figures(registry: RegistryServer, address: str, count: int, work: Path) -> dict[str, float]:
    """Return the figures of a run of the publisher in which nothing changed, with the registry's requests."""
    state = work / f"references-{count}"
    argv = [sys.executable, "-m", "ci.benchmarks.unchanged_run", address, str(count), str(state)]
    shutil.rmtree(state, ignore_errors=True)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise AssertionError
        process.stdout.readline()  # the first run has finished
        registry.requests()
        out, _ = process.communicate(b"go on\n")
    if process.returncode:
        raise BuildError(f"the run over {count} references failed with status {process.returncode}")
    figures: dict[str, float] = json.loads(out)
    if not figures["unchanged"] or figures["published"] != count:
        raise BuildError(f"the run over {count} references reports changes")
    requests = registry.requests()
    heads = sum(request.method == "HEAD" for request in requests)
    return figures | {"heads": heads, "others": len(requests) - heads}
