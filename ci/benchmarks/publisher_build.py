"""The publisher's way from a tag to a SIF, as a program to measure: ``python -m ci.benchmarks.publisher_build REFERENCE STATE``.

With a third argument, ``fetch``, it only fetches, and prints nothing.

Tag -> digest -> image manifest -> layers in the content store (verified and indexed) -> SIF -> test run -> origin and sandbox, by
the classes that ``publisher sync`` uses. Layers that are already in the content store are not fetched. It prints a JSON object;
times are in seconds, memory is in bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from publisher import oci
from publisher.build.builder import BuildRequest
from publisher.build.local import LocalBuilder
from publisher.build.sandbox import unpack
from publisher.build.squash.find import find_squasher
from publisher.build.testrun import TestRunner
from publisher.contract import reference as references
from publisher.layers.flatten import flatten
from publisher.layers.survey import survey
from publisher.publish.fetch import fetch_image, fetch_layers
from publisher.registry.blobs.copies import memory_room
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.resolver.config.machine import go_name
from publisher.state.paths import sif_path
from publisher.targets.origins.directory import DirectoryOrigin

if TYPE_CHECKING:
    from publisher.build.testrun import TestOutcome

_ACCOUNT = "image-test"  # created by ci/install-system


class _TimedTestRunner(TestRunner):
    """The real test run, timed separately because apptainer build has none."""

    seconds = 0.0

    def test(self, sif: Path, *, architecture: str, has_shell: bool) -> TestOutcome:
        start = time.perf_counter()
        try:
            return super().test(sif, architecture=architecture, has_shell=has_shell)
        finally:
            self.seconds = time.perf_counter() - start


def main() -> None:
    """Build one image and print the figures."""
    reference, state = references.parse(sys.argv[1]), Path(sys.argv[2])
    start = time.perf_counter()
    request = asyncio.run(_fetch(reference, state))
    fetched = time.perf_counter()
    if sys.argv[3:] == ["fetch"]:
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        Path(scratch).chmod(0o711)
        tester = _TimedTestRunner(_ACCOUNT, Path(scratch))
        steps: dict[str, float] = {}

        def record_start(step: str, _done: int, _total: int) -> None:
            steps.setdefault(step, time.perf_counter())

        built = LocalBuilder(state / "builds", find_squasher(), tester).build(request, record_start)
        readback = steps["test"] - steps["read back"]
    finished = time.perf_counter()
    DirectoryOrigin(state / "origin").put(sif_path(built.sha256), built.sif, sha256=built.sha256, size=built.size)
    stored = time.perf_counter()
    unpack.unpack(built.sif, state / "sandbox", deadline=1800)
    figures = {
        "fetch": fetched - start,
        "build": finished - fetched - tester.seconds - readback,
        "readback": readback,
        "test": tester.seconds,
        "store": stored - finished,
        "sandbox": time.perf_counter() - stored,
        "memory": own_memory(),
        "children": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "sif": str(built.sif),
        "size": built.size,
        "unpacked": built.unpacked_size,
        "entries": built.files,
        "layers": [str(layer) for layer in request.layers],
        "indexes": [str(index) for index in request.indexes],
    }
    sys.stdout.write(json.dumps(figures))


def totals(indexes: list[Path]) -> dict[str, object]:
    """Return the totals that the squasher gets for an image, so that the bare pipe uses the same options."""
    result = survey(flatten(indexes).finish(), indexes, int(time.time()))
    return {"newest": result.newest, "unpacked_size": result.unpacked_size, "root": list(result.root)}


async def _fetch(reference: references.Reference, state: Path) -> BuildRequest:
    store = BlobStore(state / "blobs", copies=memory_room(state))
    async with RegistryClient(insecure=frozenset({reference.registry})) as client:
        digest = (await client.head(reference)).digest
        image = await fetch_image(client, store, reference, digest, oci.Platform("linux", go_name(os.uname().machine)))
        layers, indexes = await fetch_layers(client, store, image, reference, lambda *_: None)
    return BuildRequest(str(reference), image, layers, indexes, copies=store.copies)


def own_memory() -> int:
    """Return this process's peak memory. ``ru_maxrss`` would include its parent's memory at the start (getrusage(2))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    main()
