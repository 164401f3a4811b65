"""``ci/bench publish``: one image into a repository of thousands against one of a few, and the comparison of file indexes.

Repository and origin are directories, so that only the work of this program and of the disk is measured. The cost of CVMFS
depends on the catalogs that are changed, which ``tests/system/publish/test_cost.py`` counts.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks import measure
from publisher.errors import BuildError
from publisher.state import transitions
from tests.support.publisher.built_values import answer, built, digest, entry
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from publisher.contract.records import Record

FEW = 20
"""Number of images in the small repository."""
ENTRIES = (100_000, 1_000_000)
"""Numbers of paths in the file indexes that are compared."""
BAR_RATIO = 1.5
BAR_MEMORY = 300 << 20


class _Publisher:
    """A publisher with a manifest of many images, of which no data exists.

    Attributes:
        opening: seconds that reading the published state took.
        seconds: seconds that publishing one image took, each time.
    """

    def __init__(self, directory: Path, images: int) -> None:
        directory.mkdir()
        self._place = Place(directory)
        publication = self._place.publication()
        records = {record.name: record for record in map(_record, range(images))}
        publication.change(publication.open()[0], records, relink=False)
        self._publication = self._place.publication()
        start = time.perf_counter()
        self._snapshot, _ = self._publication.open()
        self.opening = time.perf_counter() - start
        self.seconds: list[float] = []

    def publish(self, text: str) -> None:
        """Publish an image that is built and stored, until the manifest in both targets names it."""
        staged = self._place.stage(entry("htc/rocky:9"), answer(text), self._snapshot)
        for build in staged.builds.values():
            self._publication.store_sif(build)
        start = time.perf_counter()
        published = self._publication.publish(self._snapshot, [staged])
        self.seconds.append(time.perf_counter() - start)
        if published.failed or published.behind is not None:
            raise BuildError(f"the image could not be published: {published}")
        self._snapshot = published.snapshot


def benchmark(images: int, work: Path, rounds: int, *, bars: bool) -> bool:
    """Measure and print; return whether all bars were met, or ``bars`` is false.

    Args:
        images: number of images in the large repository, with two builds each.
        work: directory for both repositories, which are deleted afterwards.
        rounds: rounds of publishing, alternating between the repositories.
        bars: compare the figures with the bars.
    """
    work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="publish-", dir=work))
    try:
        ratio = _publish_ratio(images, scratch, rounds)
        memories = [_comparison_memory(count, scratch) for count in ENTRIES]
    finally:
        shutil.rmtree(scratch)
    met = ratio <= BAR_RATIO and max(memories) <= BAR_MEMORY and memories[-1] <= BAR_RATIO * memories[0]
    if bars and not met:
        print(f"a bar was missed: {BAR_RATIO:g} times time and memory of the small one, {BAR_MEMORY >> 20} MiB")
    return met or not bars


def _publish_ratio(images: int, scratch: Path, rounds: int) -> float:
    """Return how many times longer publishing one image takes in the large repository: the ratio of the medians."""
    counts = (FEW, images)
    publishers = [_Publisher(scratch / str(count), count) for count in counts]
    for number in range(rounds):
        for publisher in publishers:
            publisher.publish(f"build {number}")
    small, large = (measure.median(publisher.seconds) for publisher in publishers)
    print(f"one image into {FEW} images {small:.3f} s, into {images} images {large:.3f} s: {large / small:.2f} times")
    print(f"reading the manifest, once per run: {publishers[0].opening:.3f} s and {publishers[1].opening:.3f} s")
    return large / small


def _record(number: int) -> Record:
    name = f"group{number % 100}/image-{number}:1"
    texts = [f"{name} {build}" for build in ("new", "old")]
    new, old = (transitions.make_version(digest(text), built(text), ("sandbox", "sif"), 1_800_000_000) for text in texts)
    before = transitions.set_current(None, f"docker.io/{name}", digest(name), {"amd64": old}, name)
    return transitions.set_current(before, before.reference, before.digest, {"amd64": new}, name)


def _comparison_memory(count: int, scratch: Path) -> int:
    """Return the bytes of memory of a process that compares two file indexes."""
    argv = [sys.executable, "-m", "ci.benchmarks.index_comparison", str(count), str(scratch)]
    run = measure.run(argv, {"PYTHONPATH": str(Path(__file__).parents[2])}, scratch / "log")
    if run.figures["added"] != run.figures["changed"]:
        raise BuildError(f"{run.figures['changed']} files were changed, {run.figures['added']} were found")
    memory: int = run.figures["memory"]
    print(f"two file indexes of {count} paths compared: {memory / 2**20:.0f} MiB, {run.figures['seconds']:.1f} s")
    return memory
