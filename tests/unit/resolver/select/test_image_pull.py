"""Images of registries that no manifest lists: a program in Apptainer's place pulls them once, without anybody's credentials."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.build import sif
from publisher.contract.errors import ExpectedError, InvalidReferenceError
from publisher.resolver.cache import counters
from publisher.resolver.errors import (
    ArchitectureError,
    CacheBusyError,
    CacheSpaceError,
    FetchError,
    HostError,
    UnknownImageError,
)
from publisher.resolver.hook import statuses
from publisher.resolver.hook.decide import decide
from publisher.resolver.hook.job import Job
from publisher.resolver.host import cache_admin
from publisher.resolver.select import foreign, image_pull
from publisher.resolver.system import locks, path_probe
from publisher.resolver.system.notes import Warnings
from tests.support.ep.execution_point import NOW, record
from tests.support.machine import child_process

if TYPE_CHECKING:
    from publisher.contract.records import Sif
    from publisher.resolver.hook.decision import Decision
    from tests.support.ep.execution_point import ExecutionPoint

pytestmark = pytest.mark.usefixtures("own_reads")

URL = "docker://hub.example.org/theirs/tool:1"
SECRET = "not-for-others"


class Registry:
    """An execution point, and a program in Apptainer's place that does what ``script`` says with ``$target`` and ``$image``."""

    def __init__(self, ep: ExecutionPoint) -> None:
        self.ep = ep
        self.calls = ep.root / "calls"
        self.made = ep.root / "made.sif"
        self.make()
        self.program = ep.root / "apptainer"
        self.does('cp "$made" "$target"')

    def make(self, arch: str = "amd64", size: int = 1000) -> None:
        """Make the SIF that the program delivers."""
        self.made.write_bytes(bytes(sif.DATA_OFFSET) + b"hsqs" + bytes(size))
        sif.write_sif_header(self.made, architecture=arch, identity=hashlib.sha256(arch.encode()).digest(), epoch=1)

    def does(self, script: str) -> None:
        head = f'#!/bin/sh\nmade={self.made}\ntarget=$3\nimage=$4\necho "$@" >> {self.calls}\n'
        self.program.write_text(head + script + "\n")
        self.program.chmod(0o755)

    def pull(self, url: str = URL, seconds: float = 60.0, **changed: str) -> tuple[Sif, str, str]:
        settings = self.ep.settings(apptainer=str(self.program), **changed)
        return foreign.ensure(url, settings, now=float(NOW), until=time.monotonic() + seconds, starter=None)

    def pulls(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0

    def left(self) -> list[Path]:
        return [path for path in self.ep.cache.rglob("*") if ".part" in path.name]


@pytest.fixture
def registry(ep: ExecutionPoint) -> Registry:
    return Registry(ep)


def test_an_image_is_pulled_once_and_stands_under_its_sha256(registry: Registry) -> None:
    found, path, came_from = registry.pull()
    assert found.sha256 == hashlib.sha256(registry.made.read_bytes()).hexdigest()
    assert path == f"{registry.ep.cache}/sif/{found.sha256[:2]}/{found.sha256}.sif"
    assert Path(path).read_bytes() == registry.made.read_bytes()
    assert (came_from, registry.pull()[1:]) == (URL, (path, ""))
    assert (registry.pulls(), registry.left()) == (1, [])
    counts = counters.read(str(registry.ep.cache))
    assert (counts.pulls, counts.pulled_bytes) == (1, found.size)


def test_many_jobs_at_once_make_one_pull(registry: Registry) -> None:
    fork = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[str] = fork.SimpleQueue()
    jobs = [fork.Process(target=lambda: answers.put(registry.pull()[1])) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len({answers.get() for _ in jobs}) == 1
    assert registry.pulls() == 1


def test_one_image_at_a_time_is_pulled(registry: Registry) -> None:
    registry.pull("oras://hub.example.org/theirs/other:1")
    lock = registry.ep.cache / "locks" / "pull"
    with (
        locks.acquire([str(lock)], time.monotonic()),
        pytest.raises(CacheBusyError, match="other images have been pulled for too long"),
    ):
        registry.pull(seconds=0.1)
    assert registry.pulls() == 1


def test_nobodys_credentials_go_to_the_registry(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", SECRET)
    monkeypatch.setenv("BEARER_TOKEN", SECRET)
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    registry.does('env > "$made.env"; cat "$APPTAINER_AUTHFILE" > "$made.auth"; cp "$made" "$target"')
    registry.pull(insecure_registry="hub.example.org", ca=str(registry.ep.root))
    text = Path(f"{registry.made}.env").read_text()
    environ = dict(line.split("=", 1) for line in text.splitlines())
    assert SECRET not in text
    assert environ["HOME"].startswith(str(registry.ep.cache))
    assert environ["APPTAINER_CONFIGDIR"] == environ["XDG_RUNTIME_DIR"] == environ["HOME"]
    assert Path(f"{registry.made}.auth").read_text() == "{}"
    assert (environ["https_proxy"], environ["APPTAINER_NOHTTPS"]) == ("http://proxy.example.org:3128", "1")
    assert environ["SSL_CERT_DIR"] == str(registry.ep.root)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("reading manifest 1 in 127.0.0.1:9/x: manifest unknown", UnknownImageError),
        ("ORAS SIF image should have a single layer, found 2", UnknownImageError),
        ("reading manifest 1 in x: authentication required", UnknownImageError),
        ("toomanyrequests: authentication required for more", FetchError),
        ("no image found in image index for architecture arm64", ArchitectureError),
        ("write /x: no space left on device", CacheSpaceError),
        ("dial tcp 127.0.0.1:9: connect: connection refused", FetchError),
    ],
)
def test_a_failure_is_remembered_as_what_it_is(registry: Registry, said: str, kind: type[ExpectedError]) -> None:
    registry.does(f"echo '{said}' >&2; exit 255")
    with pytest.raises(kind) as first:
        registry.pull()
    with pytest.raises(kind, match=r"not retried yet: .*theirs/tool:1") as again:
        registry.pull()
    assert type(first.value) is type(again.value) is kind
    assert (registry.pulls(), registry.left()) == (1, [])


def test_what_is_no_sif_for_this_machine_is_refused(registry: Registry) -> None:
    registry.make("arm64")
    with pytest.raises(ArchitectureError, match="is for arm64, but this machine is amd64"):
        registry.pull()
    registry.does('echo text > "$target"')
    with pytest.raises(InvalidReferenceError, match="not an image that Apptainer can start"):
        registry.pull("docker://hub.example.org/theirs/text:1")
    assert registry.left() == []


def test_a_pull_that_takes_too_long_ends_and_is_remembered(registry: Registry) -> None:
    registry.does("exec sleep 600")
    with pytest.raises(FetchError, match="apptainer did not end in time"):
        registry.pull(seconds=0.5)
    with pytest.raises(FetchError, match="not retried yet"):
        registry.pull()
    assert (registry.pulls(), registry.left()) == (1, [])


def test_a_pull_counts_against_the_limits_of_the_cache(registry: Registry) -> None:
    with pytest.raises(CacheSpaceError, match="no space in the cache"):
        registry.pull(cache_free="100 %")
    assert registry.pulls() == 0
    registry.make(size=300_000)
    with pytest.raises(CacheSpaceError, match="more than the whole cache may have"):
        registry.pull("docker://hub.example.org/theirs/large:1", cache_size="200 kB")
    registry.make()
    old = registry.pull("oras://hub.example.org/theirs/old:1")[1]
    registry.make(size=60_000)
    new = registry.pull("oras://hub.example.org/theirs/new:1", cache_size="100 kB")[1]
    assert (Path(old).exists(), Path(new).exists()) == (False, True), "the least recently used one makes room"
    assert registry.left() == []


def test_a_pull_that_outgrows_the_cache_is_ended(registry: Registry) -> None:
    registry.does('head -c 3000000 /dev/zero > "$target"; exec sleep 600')
    with pytest.raises(CacheSpaceError):
        registry.pull(cache_size="4 MB")
    assert registry.left() == []


def test_a_host_without_apptainer_says_so(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_probe, "find_program", lambda *_: None)
    with pytest.raises(HostError, match="this host has no Apptainer"):
        foreign.ensure(URL, registry.ep.settings(), now=float(NOW), until=time.monotonic() + 60, starter=None)


@pytest.mark.parametrize(
    "text", ["docker://ubuntu", "docker://docker.io/library/ubuntu:latest", "docker://index.docker.io/ubuntu"]
)
def test_all_spellings_of_a_reference_are_one(text: str) -> None:
    assert image_pull.canonical(text) == "docker://docker.io/library/ubuntu:latest"
    assert image_pull.canonical("oras://x/y:1") == "oras://x/y:1"


def decided(registry: Registry, url: str = URL, environment: str = "", **changed: str) -> Decision:
    registry.ep.publish(record("htc/rocky:9"))
    job = Job({"containerimage": url, "environment": environment, "wantsandboximage": True})
    settings = registry.ep.settings(apptainer=str(registry.program), **{"unknown": "pull", **changed})
    return decide(job, settings, scratch=str(registry.ep.root), now=NOW, until=time.monotonic() + 60, notes=Warnings())


def test_a_job_gets_the_sif_and_the_operator_a_candidate(registry: Registry) -> None:
    found = decided(registry, "docker://hub.example.org/theirs/tool:1")
    assert found.code == statuses.OK, found.message
    assert str(found.updates["SingularityImage"]).endswith(".sif")
    assert (found.updates["WantSIF"], found.updates["WantDockerImage"]) == (True, False)
    assert found.to_json()["candidate"] == found.to_json()["sif_source"] == URL
    assert found.chirp_attributes["ImageName"] == URL
    assert decided(registry).to_json()["candidate"] == URL
    statistics = cache_admin.run(["statistics"], registry.ep.settings(), Warnings())
    assert statistics["ImagePulls"] == 1
    assert statistics["ImageCandidates"] == f"{URL} (2)"


def test_only_a_site_that_pulls_does_so_and_credentials_stay_with_their_job(registry: Registry) -> None:
    for found in (
        decided(registry, unknown="fetch"),
        decided(registry, unknown="pass"),
        decided(registry, never="sif"),
        decided(registry, environment=f"APPTAINER_DOCKER_PASSWORD={SECRET}"),
    ):
        assert (found.code, found.updates) == (statuses.OK, {}), "it is passed on to Apptainer"
    assert registry.pulls() == 0
    assert decided(registry, unsigned="refuse").code == statuses.UNSIGNED


def test_where_sifs_cannot_be_mounted_a_job_gets_the_unpacked_image(registry: Registry) -> None:
    registry.does('[ "$1" = pull ] || { mkdir "$3"; exit; }\ncp "$made" "$target"')
    facts = registry.ep.root / "facts.json"
    facts.write_text(f'{{"schema": 1, "measured": {NOW}, "sif": false, "userns": true, "overlay": true, "cvmfs": true}}')
    found = decided(registry, facts=str(facts))
    assert (found.code, found.updates.get("WantSandboxImage")) == (statuses.OK, True), found.message


def test_after_a_kill_during_a_pull_nothing_is_left_running_and_the_next_job_pulls(registry: Registry) -> None:
    begun = registry.ep.root / "begun"
    os.mkfifo(begun)
    registry.does(f'echo part > "$target"; echo $$ > {begun}; exec sleep 600')
    job = child_process.start(registry.pull)
    program = os.pidfd_open(int(begun.read_text()))
    try:
        os.kill(job, signal.SIGKILL)
        child_process.end(job)
        assert select.select([program], [], [], 60)[0], "Apptainer ends with its hook"
    finally:
        os.close(program)
    registry.does('cp "$made" "$target"')
    assert Path(registry.pull()[1]).read_bytes() == registry.made.read_bytes()
    assert registry.left() == []
