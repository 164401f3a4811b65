"""``ci/bench references``: a run over thousands of references in which nothing changed, against one HEAD after another.

A real docker-registry behind 40 ms of round trip. Every reference has a manifest of its own; half of them are indexes.
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

from ci.benchmarks.asking import reference_of
from publisher.errors import BuildError
from tests.support.registries.registry import OCI, RegistryServer, describe, push_blob, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUND_TRIP = 40
"""Milliseconds."""
BAR_SPEED = 20.0
BAR_MEMORY = 250 << 20
BAR_GROWTH = 1.5
"""How much more than proportionally time and memory may grow."""
_ALONE = 250  # references that are asked for one after another; the rest would take as long each
_PUSHING = 32


def benchmark(counts: list[int], work: Path, *, bars: bool) -> bool:
    """Measure and print; True where every bar held, or none is wanted.

    Args:
        counts: numbers of references, ascending.
        work: directory for the registry's storage, kept for the next time.
        bars: whether figures are compared with the bars.
    """
    work.mkdir(parents=True, exist_ok=True)
    held = []
    rows: dict[int, dict[str, float]] = {}
    with RegistryServer(work / "references-registry") as registry:
        for count in counts:
            _fill(registry, count, work)
            with _far(registry.port) as address:
                alone = _one_after_another(address, count)
                figures = rows[count] = _ours(registry, address, count, work)
            faster = alone / figures["seconds"]
            memory = figures["memory"]
            print(
                f"{count} references, {ROUND_TRIP} ms: {figures['seconds']:.2f} s against {alone:.0f} s one after another "
                f"({_ALONE} measured), {faster:.1f} times faster; {memory / 2**20:.0f} MiB; {figures['heads']:.0f} HEADs, "
                f"{figures['others']:.0f} other requests"
            )
            held += [faster >= BAR_SPEED, figures["heads"] <= count, figures["others"] <= 1]
            held += [memory <= BAR_MEMORY] if count == counts[0] else []
    if len(counts) > 1:
        small, large = counts[0], counts[-1]
        for what in ("seconds", "memory"):
            growth = rows[large][what] / rows[small][what] / (large / small)
            print(f"{what}, {large} against {small} references: {growth:.2f} of what is proportional")
            held.append(growth <= BAR_GROWTH)
    if bars and not all(held):
        print(f"a bar was missed: {BAR_SPEED:g} times, {BAR_MEMORY >> 20} MiB, one HEAD for each, growth {BAR_GROWTH:g}")
    return all(held) or not bars


def _fill(registry: RegistryServer, count: int, work: Path) -> None:
    """Push what is not there from an earlier time."""
    done = work / "references-registry" / "pushed"
    there = int(done.read_text()) if done.exists() else 0
    if there < count:
        print(f"pushing {count - there} images")
        asyncio.run(_push(registry.address, range(there, count)))
        done.write_text(str(count))
        registry.requests()


async def _push(address: str, numbers: range) -> None:
    layer = b"\0" * 1024
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]}}
    raw = json.dumps(config).encode()
    for repository in {reference_of(number, address).repository for number in numbers}:
        for blob in (layer, raw):
            push_blob(address, repository, blob)
    common = {"schemaVersion": 2, "config": describe(raw, OCI["config"]), "layers": [describe(layer, OCI["none"])]}
    places = asyncio.Semaphore(_PUSHING)

    async def put(session: aiohttp.ClientSession, repository: str, name: str, document: dict[str, object]) -> dict[str, object]:
        body = json.dumps(document).encode()
        kind = str(document["mediaType"])
        url = f"http://{address}/v2/{repository}/manifests/{name or sha256(body)}"
        async with session.put(url, data=body, headers={"Content-Type": kind}) as answer:
            answer.raise_for_status()
        return describe(body, kind)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        reference = reference_of(number, address)
        single = {**common, "mediaType": OCI["manifest"], "annotations": {"number": str(number)}}
        async with places:
            if number % 2:
                await put(session, reference.repository, str(reference.tag), single)
                return
            described = await put(session, reference.repository, "", single)
            entry = {**described, "platform": {"os": "linux", "architecture": "amd64"}}
            index = {"schemaVersion": 2, "mediaType": OCI["index"], "manifests": [entry]}
            await put(session, reference.repository, str(reference.tag), index)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, number) for number in numbers))


@contextlib.contextmanager
def _far(port: int) -> Iterator[str]:
    """The registry's address from far away."""
    argv = [sys.executable, "-m", "ci.benchmarks.far", str(port), str(ROUND_TRIP)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise AssertionError
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def _one_after_another(address: str, count: int) -> float:
    """Seconds that one HEAD after another takes for ``count`` references, over one connection that stays open."""
    some = min(count, _ALONE)
    connection = http.client.HTTPConnection(address, timeout=60)
    accept = {"Accept": f"{OCI['index']}, {OCI['manifest']}"}
    start = time.perf_counter()
    for number in range(some):
        reference = reference_of(number, address)
        connection.request("HEAD", f"/v2/{reference.repository}/manifests/{reference.tag}", headers=accept)
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise BuildError(f"the registry answers {answer.status} for {reference}")
    connection.close()
    return (time.perf_counter() - start) * count / some


def _ours(registry: RegistryServer, address: str, count: int, work: Path) -> dict[str, float]:
    state = work / f"references-{count}"
    argv = [sys.executable, "-m", "ci.benchmarks.asking", address, str(count), str(state)]
    shutil.rmtree(state, ignore_errors=True)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise AssertionError
        process.stdout.readline()  # the first run is over
        registry.requests()
        out, _ = process.communicate(b"go on\n")
    if process.returncode:
        raise BuildError(f"the run over {count} references failed with status {process.returncode}")
    figures: dict[str, float] = json.loads(out)
    if not figures["unchanged"] or figures["published"] != count:
        raise BuildError(f"the run over {count} references found something changed")
    requests = registry.requests()
    heads = sum(request.method == "HEAD" for request in requests)
    return figures | {"heads": heads, "others": len(requests) - heads}
