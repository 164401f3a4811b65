"""A run in which nothing changed, as one program that can be timed: ``python -m ci.benchmarks.asking ADDRESS COUNT STATE``.

The references are asked for twice, by the classes that ``publisher sync`` uses: once to have something published, and then the
run that is measured. Prints a JSON object; times are seconds, memory is bytes.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.ours import own_memory
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
"""Over how many the references are spread."""
_PLATFORM = Platform("linux", "amd64")


def reference_of(number: int, address: str) -> Reference:
    """The reference with a number; every second one is an index."""
    return Reference(address, f"bench/image-{number % REPOSITORIES}", f"{number}")


def main() -> None:
    """Ask, publish in memory, and ask again."""
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
        sys.stdin.readline()  # whoever measures takes note of what the registry was asked so far
        start = time.perf_counter()
        again = make_plan(entries, intake.resolve(entries, snapshot.records), snapshot)
        seconds = time.perf_counter() - start
    unchanged = not again.work and not again.removals and all(item.error is None for item in again.items)
    figures = {"seconds": seconds, "memory": own_memory(), "published": len(snapshot.records), "unchanged": unchanged}
    sys.stdout.write(json.dumps(figures))


def _entry(reference: Reference) -> Entry:
    name = f"{reference.repository}:{reference.tag}"
    return Entry(name, reference, (_PLATFORM,), frozenset(("sandbox", "sif")))


def _published(plan: Plan) -> Snapshot:
    """The catalog after a plan, as if all of it had been built."""
    found: dict[str, Record] = {}
    for item in plan.work:
        current = {
            paths.platform_key(target.platform): transitions.make_version(
                target.digest, _built(target.digest), item.entry.formats, 1_800_000_000
            )
            for target in item.targets
        }
        name = item.entry.name
        found[name] = transitions.set_current(None, tag_reference(item.entry), item.digest, current, name)
    return Snapshot("bench.example.org").with_records(found)


def _built(manifest: str) -> BuiltImage:
    nowhere = Path("/nonexistent")
    tools = {"apptainer": "1.4.5", "mksquashfs": "4.5.1"}
    return BuiltImage(nowhere, manifest.removeprefix("sha256:"), 1 << 28, 1 << 30, 50_000, nowhere, "ran", tools)


if __name__ == "__main__":
    main()
