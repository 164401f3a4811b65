"""A run in which nothing changed, as a program to measure: ``python -m ci.benchmarks.unchanged_run ADDRESS COUNT STATE``.

The references are resolved twice by the classes that ``publisher sync`` uses: once for a published state, then in the run that
is measured. It prints a JSON object; times are in seconds, memory is in bytes.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.publisher_build import own_memory
from publisher.contract.reference import Reference
from publisher.images.reader import Entry
from publisher.oci import Platform
from publisher.plan.make import make_plan
from publisher.plan.model import Plan, tag_reference
from publisher.publish.intake import Intake
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.state import paths, transitions
from publisher.state.built import BuiltImage
from publisher.state.snapshot import Snapshot
from publisher.system.progress import LineDisplay

if TYPE_CHECKING:
    from publisher.contract.records import Record

REPOSITORIES = 50
"""Number of repositories of the registry that have the references."""
_PLATFORM = Platform("linux", "amd64")


def reference_of(number: int, address: str) -> Reference:
    """Return the reference with a number; those with even numbers are image indexes."""
    return Reference(address, f"bench/image-{number % REPOSITORIES}", f"{number}")


def main() -> None:
    """Resolve, publish in memory, and resolve again."""
    address, count, state = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    entries = [_entry(reference_of(number, address)) for number in range(count)]
    insecure = frozenset({address})
    with Intake(
        lambda: RegistryClient(insecure=insecure),
        lambda: BlobStore(state / "blobs"),
        LineDisplay(io.StringIO()),
        public=lambda: RegistryClient(insecure=insecure),
    ) as intake:
        first = make_plan(entries, intake.resolve(entries, {}), Snapshot("bench.example.org"))
        snapshot = _published(first)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()  # the benchmark reads the registry's requests so far
        start = time.perf_counter()
        plan = make_plan(entries, intake.resolve(entries, snapshot.records), snapshot)
        seconds = time.perf_counter() - start
    unchanged = not plan.work and not plan.removals and all(item.error is None for item in plan.items)
    figures = {"seconds": seconds, "memory": own_memory(), "published": len(snapshot.records), "unchanged": unchanged}
    sys.stdout.write(json.dumps(figures))


def _entry(reference: Reference) -> Entry:
    name = f"{reference.repository}:{reference.tag}"
    return Entry(name, reference, (_PLATFORM,), frozenset(("sandbox", "sif")))


def _published(plan: Plan) -> Snapshot:
    """Return the published state after a plan, as if everything in it had been built."""
    records: dict[str, Record] = {}
    for item in plan.work:
        current = {
            paths.platform_key(target.platform): transitions.make_version(
                target.digest, _built(target.digest), item.entry.formats, 1_800_000_000
            )
            for target in item.targets
        }
        name = item.entry.name
        records[name] = transitions.set_current(None, tag_reference(item.entry), item.digest, current, name)
    return Snapshot("bench.example.org").with_records(records)


def _built(digest: str) -> BuiltImage:
    missing = Path("/nonexistent")
    tools = {"apptainer": "1.4.5", "mksquashfs": "4.5.1"}
    return BuiltImage(missing, digest.removeprefix("sha256:"), 1 << 28, 1 << 30, 50_000, missing, "ran", tools)


if __name__ == "__main__":
    main()
