"""Jobs in a real HTCondor pool: whatever is down or hangs, they run inside their image, in both universes."""

from __future__ import annotations

import contextlib
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool import EXECUTE
from tests.support.ep.pool_site import LARGE, PADDING, REPOSITORY, SMALL
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ep.pool import Jobs
    from tests.support.ep.pool_site import Site
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

PATH = f"/cvmfs/{REPOSITORY}/{SMALL}"
VANILLA = {"+SingularityImage": f'"{PATH}"'}
CONTAINER = {"universe": "container", "container_image": PATH}


def where(jobs: Jobs, process: int = 0) -> str:
    """What a job ran in, as Apptainer says there; it was inside the small image, and nothing of ours is in its errors."""
    motd, environment, *_ = jobs.output(process).splitlines()
    greeting, _, image = environment.partition(" ")
    assert (motd, greeting) == (SMALL, "hello"), jobs.output(process)
    assert jobs.error(process) == ""
    return image


@contextlib.contextmanager
def without_origin(site: Site) -> Iterator[None]:
    """OSDF is gone: all that is asked for there is answered by an error."""
    away = site.host.origin.with_name("away")
    site.host.origin.rename(away)
    try:
        yield
    finally:
        away.rename(site.host.origin)


def in_both_universes(site: Site) -> list[str]:
    """What jobs of both universes ran in, which were submitted at once."""
    submitted = [site.submit(description) for description in (VANILLA, CONTAINER)]
    return [where(jobs.done()) for jobs in submitted]


def test_a_job_runs_in_the_sandbox_and_sees_cvmfs(site: Site) -> None:
    version = site.host.record(SMALL).current("amd64")
    assert version is not None
    submitted = [site.submit(description) for description in (VANILLA, CONTAINER)]
    for jobs in submitted:
        assert where(jobs.done()) == f"{site.repository}/{version.sandbox}"
        assert jobs.output().splitlines()[2] == REPOSITORY
        assert version.digest in jobs.log, "the user finds in the log what to cite"


def test_without_cvmfs_it_runs_in_the_sif_and_then_without_osdf_too(site: Site) -> None:
    with site.without_cvmfs():
        assert in_both_universes(site) == [str(site.sif(SMALL))] * 2
        with without_origin(site):
            assert in_both_universes(site) == [str(site.sif(SMALL))] * 2


def test_when_cvmfs_hangs_it_runs_in_the_sif(site: Site) -> None:
    with site.hanging_cvmfs():
        assert in_both_universes(site) == [str(site.sif(SMALL))] * 2


def test_an_image_named_by_its_docker_reference_is_ours_if_it_was_published_from_there(site: Site) -> None:
    reference = f"docker://{site.host.registry.address}/{SMALL}"
    described = [{"+SingularityImage": f'"{reference}"'}, {"universe": "container", "container_image": reference}]
    for jobs in [site.submit(description) for description in described]:
        assert where(jobs.done()).startswith(f"{site.repository}/.images/")


def test_ssh_lands_inside_the_container(site: Site) -> None:
    jobs = site.submit(VANILLA, script="sleep 600")
    jobs.wait(EXECUTE)
    answers: list[str] = []

    def has_landed() -> bool:  # HTCondor's own -auto-retry waits ten seconds between two tries
        command = ("condor_ssh_to_job", f"{jobs.cluster}.0", "cat /etc/motd")
        answers.append(site.pool.run(*command, user=site.pool.account, check=False))
        return answers[-1] != ""

    site.pool.until(has_landed, jobs.told)
    jobs.remove()
    assert answers[-1] == f"{SMALL}\n"


def test_a_sif_in_the_cache_is_not_counted_against_the_disk_that_a_job_asked_for(site: Site) -> None:
    asked = PADDING // 10 // 1024
    description = {"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{LARGE}"', "request_disk": asked}
    with site.without_cvmfs():
        jobs = site.submit(description, script="cat /etc/motd; ls -a").done()
    assert jobs.output().splitlines()[0] == LARGE
    assert site.sif(LARGE).stat().st_size > PADDING
    assert int(jobs.ad()["DiskUsage_RAW"]) < asked
    assert not any(name.endswith(".sif") for name in jobs.output().splitlines())


def test_the_machine_says_what_was_measured(site: Site) -> None:
    names = ("HasImageResolver", "HasSIF", "ImageResolverSIF", "ImageResolverUserNamespaces", "ImageResolverUsable")

    def said() -> str:
        return site.pool.run(
            "condor_status", "-constraint", "PartitionableSlot", "-af", *names, "ImageCacheImages", "ImageResolverProblems"
        )

    site.pool.until(lambda: said().split() == ["true"] * len(names) + ["1"], said)


def test_htcondor_takes_the_configuration_without_a_complaint(site: Site) -> None:
    written = site.run("condor-config")
    names = re.findall(r"^(\w+) = ", written, re.MULTILINE)
    assert len(names) > 15
    done = subprocess.run(
        ["condor_config_val", *names], env=site.pool.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not defined" not in done.stdout


def test_the_machine_names_what_jobs_of_other_users_pulled(site: Site, registry: RegistryServer) -> None:
    """The startd's cron runs as HTCondor's account, and each user of the pool has a cache of their own."""
    layers = [tar(runnable()), tar([directory("etc"), file("etc/motd", b"theirs\n")])]
    push_image(registry.address, "theirs/unlisted", "1", layers, {"Env": ["PATH=/bin"]})
    pulled = f"docker://{registry.address}/theirs/unlisted:1"
    site.configure(unknown="pull", insecure_registry=registry.address)
    try:
        jobs = site.submit({"+SingularityImage": f'"{pulled}"'}, script="cat /etc/motd").done()
        said = site.run("startd-cron", user="condor")
    finally:
        site.configure()
    assert jobs.output() == "theirs\n"
    assert f'ImageCandidates = "{pulled} (1)"' in said.splitlines()
