"""A half-broken CVMFS: no job is lost to it, and the machine says so when images do not start."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool import EVICTED, EXECUTE, HELD
from tests.support.ep.pool_site import LARGE, REPOSITORY, SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

NAMED = {"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{SMALL}"'}


@pytest.fixture
def without_shell(site: Site) -> Iterator[Path]:
    """A copy of the repository whose sandboxes open and are read, but do not start."""
    copy = site.host.repository.with_name("without-shell")
    shutil.copytree(site.host.repository, copy, symlinks=True)
    for shell in copy.glob(".images/*/*/bin/sh"):
        shell.unlink()
    yield copy
    shutil.rmtree(copy)
    (site.cache / "start-failures").unlink(missing_ok=True)  # the tests after this one get the sandbox again


def test_jobs_get_the_sif_where_files_of_the_repository_cannot_be_read(site: Site) -> None:
    with site.half_broken_cvmfs():
        jobs = site.submit(NAMED, count=8).done(8)
        assert jobs.count(EVICTED) == 0
        assert {jobs.ad(process)["ChirpImageForm"] for process in range(8)} == {"sif"}


def test_a_job_that_htcondors_test_sent_back_gets_the_other_form_at_once(site: Site, without_shell: Path) -> None:
    with site.lagging_cvmfs(without_shell):
        site.facts.unlink(missing_ok=True)  # else the cron may have noticed
        jobs = site.submit(NAMED).done()
    assert "Singularity test failed" in jobs.wait(EVICTED)[0]
    assert (jobs.count(EVICTED), jobs.count(HELD)) == (1, 0)
    assert jobs.ad()["ChirpImageForm"] == "sif"
    assert "the sandbox failed Apptainer's test" in jobs.log
    assert jobs.output().startswith(SMALL)
    assert (site.cache / "start-failures").exists()


def test_a_machine_on_which_images_do_not_start_says_so_and_takes_no_such_job(site: Site, without_shell: Path) -> None:
    faster = "STARTD_CRON_IMAGE_FAILURES_PERIOD = 2s\nSTARTD_CRON_IMAGE_RESOLVER_PERIOD = 1h\n"
    with site.lagging_cvmfs(without_shell), site.overridden(faster):
        site.pool.reconfigure("ImageResolverFailing", "false")
        site.facts.unlink(missing_ok=True)
        failed = [site.submit(NAMED) for _ in range(3)]
        for jobs in failed:
            jobs.wait(EVICTED)
        site.pool.until(lambda: machine(site, "ImageResolverFailing") == "true", lambda: machine(site, "ImageResolverFailures"))
        assert "Apptainer's test of" in machine(site, "ImageResolverLastFailure")
        refused = site.submit(NAMED)
        plain = site.submit({}, script="echo ran").done()
        assert plain.output() == "ran\n"
        assert refused.count(EXECUTE) == 0
        site.run("startd-cron", user="condor")  # a probe that succeeds: the SIF starts
        refused.done()
        assert all(jobs.done().count(EVICTED) == 1 for jobs in failed)
    site.pool.reconfigure("ImageResolverFailing", "false")


def test_a_job_whose_hook_was_killed_comes_back_to_the_same_machine(site: Site) -> None:
    site.empty_cache()
    with site.without_cvmfs():
        jobs = site.submit({"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{LARGE}"'})
        site.pool.until(lambda: bool(site.hooks()), jobs.told)
        for process in site.hooks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        jobs.done()
    assert jobs.count(EVICTED) >= 1


def machine(site: Site, attribute: str) -> str:
    return site.pool.run("condor_status", "-af", attribute, "-constraint", "PartitionableSlot").strip()
