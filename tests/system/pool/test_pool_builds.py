"""SIFs built by jobs of a real pool: their bytes, and what becomes of them when jobs, daemons and the publisher are killed."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.images.layers import file, tar
from tests.support.images.runnable import runnable
from tests.support.osdf import origin
from tests.support.osdf.xrootd import NAMESPACE
from tests.support.publisher.building_pool import SLOTS, BuildingPool, building_pool, names
from tests.support.publisher.host import Host
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ep.pool import Pool
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

IMAGES, KILLS = (40, 20) if "OSPOOL_EVERY_POINT" in os.environ else (3, 2)
LINES = (2, 12)
"""The publisher is killed after so many lines of its progress, at least and at most."""
DISTURBANCES = ["condor_rm", "condor_schedd", "condor_hold", "condor_startd", "condor_shadow", "condor_starter"]
"""Two of them after each kill: a job is removed or held, or a daemon is killed."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with building_pool() as made:
        yield made


def push(registry: RegistryServer, name: str, platform: str = "linux/amd64") -> str:
    layers = [tar(runnable()), tar([file("content", name.encode())])] if platform == "linux/amd64" else [tar([file("content")])]
    push_image(registry.address, name.partition(":")[0], "1", layers, {"Env": ["GREETING=hello"]}, platform=platform)
    return name


@pytest.mark.timeout(900)
def test_a_pool_and_this_host_give_the_same_bytes(pool: Pool, registry: RegistryServer) -> None:
    """Also where the image is for another architecture, of which nothing runs, and where the sample builds it again."""
    built = BuildingPool(pool, "same-bytes", registry)
    (built.host.where / "here").mkdir()
    here = Host(built.host.where / "here", registry)
    amd64, arm64 = push(registry, "pool/amd:1"), push(registry, "pool/arm:1", "linux/arm64")
    for host in (built.host, here):
        host.images(amd64, {"image": arm64, "platforms": ["linux/arm64"]})
    assert names(built.sync("--condor-sample=0.5"), ["published"]) == {amd64, arm64}
    history = built.history()
    assert Counter(job["OspoolImageName"] for job in history) == {amd64: 1, arm64: 1}, (history, built.errors)
    here.sync()
    for name, platform in ((amd64, "amd64"), (arm64, "arm64")):
        assert built.host.sif(name, platform).read_bytes() == here.sif(name, platform).read_bytes()
        versions = [host.record(name).current(platform) for host in (built.host, here)]
        facts = [version.to_json() for version in versions if version]
        assert [{**fact, "since": 0, "published": 0} for fact in facts[:1]] == [
            {**fact, "since": 0, "published": 0} for fact in facts[1:]
        ]
    assert (built.queue(), built.directories(), built.host.leftovers()) == ([], [], [])


@pytest.mark.timeout(900)
def test_a_job_uploads_into_the_origin_with_a_token_of_its_own(pool: Pool, registry: RegistryServer) -> None:
    """The origin is a real one (XRootD); this host moves the upload to its name."""
    built, there = BuildingPool(pool, "uploads", registry), origin.running()
    place, issuer, name = origin.prefix(built.host.where), there.servers.issuer, push(registry, "uploads/image:1")
    built.host.images(name)
    report = built.sync(
        f"--origin={there.servers.origin}{place}",
        f"--token-key={there.key}",
        f"--token-issuer={issuer.url}",
        f"--token-key-id={issuer.keyid}",
        f"--token-base={NAMESPACE}",
        f"--origin-authority={there.servers.authority}",
        "--allowed-networks=127.0.0.0/8",
    )
    assert names(report, ["published"]) == {name}
    version = built.host.record(name).current("amd64")
    assert version is not None
    assert version.sif is not None
    top = there.servers.data / place.lstrip("/")
    sif = top / version.sif.path
    assert hashlib.sha256(sif.read_bytes()).hexdigest() == version.sif.sha256
    assert list((top / ".incoming").iterdir()) == [], "nothing is left"
    (job,) = built.history()
    assert job["BytesSent"] < sif.stat().st_size, "the SIF did not come by file transfer"


@pytest.mark.timeout(20_000 if IMAGES > 3 else 1800)
def test_no_build_is_lost_or_repeated_while_jobs_daemons_and_the_publisher_are_killed(
    pool: Pool, registry: RegistryServer
) -> None:
    """One image leaves the list meanwhile; its job is removed."""
    built = BuildingPool(pool, "killed", registry)
    dice = random.Random(19)
    images = [push(registry, f"killed/image{number}:1") for number in range(IMAGES)]
    leaving = push(registry, "killed/leaving:1")
    built.host.images(leaving)
    with built.start("--condor-requirements=OpSys is undefined") as process:
        pool.until(lambda: bool(built.queue()), lambda: "no job is submitted", seconds=600)
        process.kill()
    built.host.images(*images)
    again = 0
    for number in range(KILLS - 1):
        kill_publisher(built, dice)
        again += sum(disturb(built, dice, how) for how in (DISTURBANCES * 2)[2 * number % len(DISTURBANCES) :][:2])
    report = built.sync()
    assert names(report) == set(images), report
    if "the schedd does not answer yet" in built.errors:  # it was killed, and nothing had to wait for it: the next run sweeps
        built.sync()
    assert (built.queue(), built.directories()) == ([], [])
    history = built.history()
    assert [job["OspoolImageName"] for job in history if not job.get("NumJobStarts")].count(leaving) == 1
    completed = Counter(job["OspoolImageName"] for job in history if job.get("CompletionDate") and job.get("ExitCode") == 0)
    assert completed == dict.fromkeys(images, 1), f"each is built to its end once: {history}"
    assert len(history) <= 1 + IMAGES + again
    assert sum(job.get("NumJobStarts", 0) for job in history) <= IMAGES + SLOTS * 2 * KILLS


def kill_publisher(built: BuildingPool, dice: random.Random) -> None:
    """Start the publisher and kill it at some point of its work."""
    last = dice.randint(*LINES)
    with built.start() as process:
        assert process.stderr is not None
        for number, line in enumerate(process.stderr):
            assert "Traceback" not in line
            if number >= last:
                break
        process.kill()


def disturb(built: BuildingPool, dice: random.Random, how: str) -> int:
    """Remove or hold a job, or kill a daemon; return how many jobs have to be submitted again."""
    if how not in {"condor_rm", "condor_hold"}:
        built.kill(how)
        return 0
    jobs: list[dict[str, Any]] = built.queue()
    return int(built.act(how, dice.choice(jobs))) if jobs else 0
