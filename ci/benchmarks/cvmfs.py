"""``ci/bench cvmfs``: a whole image and a small change into a real CVMFS repository, against the tool by hand and against ducc.

No registry of packages has ``cvmfs_server``, so the benchmark is skipped where there is none. The repository has to be
new. Everybody publishes an image of their own, with different content, so that nobody profits from what another has stored.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks import cvmfs_images, measure
from publisher.errors import UsageError
from publisher.targets.repositories.cvmfs.stratum import StratumZero
from tests.support.images.layers import tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import RegistryServer, ask, push_image, push_manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CHANGE, WHOLE, BOTH = 1.5, 1.2, 1.3
"""Bars: publishing a change, and publishing a whole image, against the tool by hand; a run with both forms against ducc."""
_PROGRAM = "cvmfs_server"
WHO = ("hand", "both", "alone", "ducc")


@dataclass(frozen=True)
class Step:
    """What one step took.

    Attributes:
        seconds: seconds of the whole step.
        cpu: CPU seconds of its programs, without the CVMFS client's.
        revisions: how many revisions the repository has more.
        transactions: seconds of the publisher's transactions alone; empty for others.
    """

    seconds: float
    cpu: float
    revisions: int
    transactions: tuple[float, ...] = ()


def benchmark(
    fqrn: str | None, ducc: str | None, work: Path, *, image: str, only: Sequence[str], pause: float, bars: bool
) -> bool:
    """Measure and print; return whether the bars were met, or ``bars`` is false, or there is nothing to measure on.

    Args:
        fqrn: a new repository of this host; None for none.
        ducc: the program ``cvmfs_ducc``; None leaves it out.
        work: directory for all files; the images in its registry are kept for the next run.
        image: which images, a key of :data:`ci.benchmarks.cvmfs_images.KINDS`.
        only: which of hand, both, alone and ducc to measure; all if empty.
        pause: seconds between two contestants. ext4 passes over inodes that were freed in the last six minutes, one by one, so
            that whoever comes next pays for the files that the one before has deleted.
        bars: compare the figures with the bars.

    Raises:
        UsageError: the repository is not new, or packages for the images cannot be downloaded.
    """
    if shutil.which(_PROGRAM) is None or fqrn is None:
        print(f"skipped: {_PROGRAM} is not on PATH, or --repository names no repository to publish to")
        return True
    if any(path.name != "new_repository" for path in Path("/cvmfs", fqrn).iterdir()):
        raise UsageError(f"the repository {fqrn} is not empty", hint="make a new one with `cvmfs_server mkfs`")
    with RegistryServer(work / "registry") as registry:
        images = {who: cvmfs_images.ensure(image, registry.address, who) for who in WHO}
        bench = _Benchmark(fqrn, ducc, work / "run", registry.address, images)
        measured: dict[str, tuple[Step, Step]] = {}
        for who in only or WHO:
            if who == "ducc" and ducc is None:
                continue
            time.sleep(pause if measured else 0)
            measured[who] = bench.measure(who)
    return _report(measured) or not bars


class _Benchmark:
    """The steps on the repository ``fqrn``; ``work`` is deleted first. ``images`` has what each contestant publishes."""

    def __init__(self, fqrn: str, ducc: str | None, work: Path, address: str, images: Mapping[str, str]) -> None:
        self._fqrn = fqrn
        self._ducc = ducc
        self._work = work
        self._address = address
        self._images = images
        self._mount = Path("/cvmfs", fqrn)
        self._entries: list[dict[str, object]] = []  # of the one list, since a repository has one publisher
        self._stratum = StratumZero(f"http://localhost/cvmfs/{fqrn}")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        top = read_manifest(address, images["hand"], "v2")["layers"][-1]["digest"]
        blob = ask(address, "GET", f"/v2/{images['hand']}/blobs/{top}").body
        for name, content in cvmfs_images.changed_files(gzip.decompress(blob)).items():
            path = work / "changed" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def measure(self, who: str) -> tuple[Step, Step]:
        """Return what the whole image and then the small change took."""
        step = {"hand": self._by_hand, "ducc": self._by_ducc}.get(who, self._by_publisher(who))
        steps = []
        for version in ("1", "2"):
            self._retag(self._images[who], version)
            steps.append(step(version))
            _print(f"{who}, {'30 files changed' if version == '2' else 'whole image'}", steps[-1])
        return steps[0], steps[1]

    def _by_hand(self, version: str) -> Step:
        if version == "2":
            lines = ["transaction -T hand/1=hand/2 {0}", f"cp -a {self._work}/changed/. {self._mount}/hand/2/", "publish {0}"]
        else:
            tree = self._mount / "hand/1"
            repository = self._images["hand"]
            layers = read_manifest(self._address, repository, "1")["layers"]
            blobs = [f"http://{self._address}/v2/{repository}/blobs/{layer['digest']}" for layer in layers]
            unpacking = [f"curl -sSf {blob} | tar -xzf - -C {tree}" for blob in blobs]
            lines = ["transaction {0}", f"mkdir -p {tree}", f"touch {tree}/.cvmfscatalog", *unpacking, "publish {0}"]
        tool = ("transaction", "publish")
        script = "\n".join(f"{_PROGRAM} {line}" if line.startswith(tool) else line for line in lines)
        return self._run(["sh", "-euc", script.format(self._fqrn)], "hand")

    def _by_ducc(self, version: str) -> Step:
        flat_only = ["-d", "-i", "-p"]
        image = f"http://{self._address}/{self._images['ducc']}:1"
        return self._run([str(self._ducc), "convert-single-image", *flat_only, image, self._fqrn], f"ducc-{version}")

    def _by_publisher(self, who: str) -> Callable[[str], Step]:
        formats = ["sandbox", "sif"] if who == "both" else ["sandbox"]
        home = self._work / "publisher"
        publisher = [sys.executable, "-m", "publisher"]
        options = [f"--key={home}/key.pem", f"--state={home}/state"]
        sync = ["-vv", *options, f"--images={home}/images.yaml", f"--repository=cvmfs:{self._fqrn}", f"--origin={home}/origin"]
        sync += [f"--insecure-registry={self._address}", "--page=none"]

        def step(version: str) -> Step:
            if version == "1":
                if not self._entries:
                    home.mkdir()
                    subprocess.run([*publisher, "keys", "new", *options], check=True, stdout=subprocess.DEVNULL)
                    push_image(self._address, "first", "1", [tar(runnable())], {"Cmd": ["sh"]})
                    self._list("first", ["sandbox"])
                    self._run([*publisher, "sync", *sync], "first")  # the measured images are not the repository's first
                self._list(self._images[who], formats)
            run = self._run([*publisher, "sync", *sync], f"{who}-{version}")
            last = json.loads((home / "state" / "last-run.json").read_text())
            return Step(run.seconds, run.cpu, run.revisions, tuple(last["transactions"]))

        return step

    def _list(self, repository: str, formats: list[str]) -> None:
        """Add an image to the list."""
        self._entries.append({"image": f"{self._address}/{repository}:1", "formats": formats})
        content = {"version": 1, "groups": [{"title": "Benchmark", "images": self._entries}]}
        (self._work / "publisher" / "images.yaml").write_text(json.dumps(content))

    def _run(self, argv: Sequence[str], log: str) -> Step:
        before = self._stratum.revision()
        done = measure.run(argv, {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}, self._work / f"{log}.log")
        return Step(done.seconds, done.cpu, self._stratum.revision() - before)

    def _retag(self, repository: str, version: str) -> None:
        push_manifest(self._address, repository, "1", read_manifest(self._address, repository, f"v{version}"))


def _print(title: str, step: Step) -> None:
    alone = f", its transaction {step.transactions[0]:.2f} s" if step.transactions else ""
    print(f"{title:28} {step.seconds:6.2f} s{alone}, CPU {step.cpu:.2f} s, {step.revisions} revision(s)", flush=True)


def _report(measured: dict[str, tuple[Step, Step]]) -> bool:
    """Print the ratios; return whether those of which both sides were measured meet their bars."""
    seconds = {who: [step.seconds for step in steps] for who, steps in measured.items()}
    transactions = {who: [sum(step.transactions) for step in steps] for who, steps in measured.items()}
    ratios = []
    if {"hand", "both"} <= measured.keys():
        ratios.append(("publishing a small change / by hand", transactions["both"][1] / seconds["hand"][1], CHANGE))
        ratios.append(("a whole image in both forms / by hand", seconds["both"][0] / seconds["hand"][0], WHOLE))
    if {"alone", "ducc"} <= measured.keys():
        ratios.append(("a sandbox alone, small change / ducc", seconds["alone"][1] / seconds["ducc"][1], 1.0))
    if {"both", "ducc"} <= measured.keys():
        ratios.append(("both forms, small change / ducc", seconds["both"][1] / seconds["ducc"][1], BOTH))
    for title, ratio, bar in ratios:
        print(f"{title}: {ratio:.2f}, bar {bar:g}{'' if ratio <= bar else ': missed'}")
    return all(ratio <= bar for _, ratio, bar in ratios)
