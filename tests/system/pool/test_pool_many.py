"""Many jobs at once in a real pool, and processes that are killed while they start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool import ABORTED, EVICTED, HELD, TERMINATED
from tests.support.ep.pool_site import LARGE, REPOSITORY

if TYPE_CHECKING:
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

MANY = 200 if "OSPOOL_EVERY_POINT" in os.environ else 24
"""Jobs that start at once, several times what two processors run; test_cache_storm.py always has two hundred, without a pool."""
DESCRIPTION = {"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{LARGE}"'}
SCRIPT = "cat /etc/motd; sleep {}"


def assert_cache_is_right(site: Site) -> None:
    """One whole SIF under its digest, and the next job has it from there."""
    found = [path for path in (site.cache / "sif").rglob("*.sif") if path.name == site.sif(LARGE).name]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in found] == [site.sif(LARGE).stem]
    before = site.downloads(LARGE)
    assert site.submit(DESCRIPTION, script="cat /etc/motd").done().output() == f"{LARGE}\n"
    assert site.downloads(LARGE) == before


@pytest.mark.timeout(900)
def test_many_jobs_that_start_at_once_on_a_cold_cache_make_one_download(site: Site) -> None:
    site.empty_cache()
    before = site.downloads(LARGE)
    with site.without_cvmfs():
        jobs = site.submit(DESCRIPTION, MANY, script=SCRIPT.format(1)).done(MANY, seconds=600)
        assert jobs.output_so_far() == f"{LARGE}\n" * MANY
        assert site.downloads(LARGE) - before == 1
        assert jobs.count(EVICTED) == 0
        assert_cache_is_right(site)


@pytest.mark.timeout(900)
def test_the_cache_is_right_after_hooks_and_starters_were_killed_at_random(site: Site) -> None:
    site.empty_cache()
    with site.without_cvmfs():
        kill_jobs_at_random(site)
        assert_cache_is_right(site)


def kill_jobs_at_random(site: Site) -> None:
    """Submit jobs, kill their hooks and starters for seconds, and remove what is left of them; the host has the manifest then."""
    dice, count = random.Random(7), 12
    jobs = site.submit(DESCRIPTION, count, script=SCRIPT.format(1))
    site.pool.until(lambda: bool(site.hooks()), jobs.told)
    kill(site.hooks()[0])
    end = time.monotonic() + 8
    while time.monotonic() < end and jobs.count(TERMINATED) < count:
        victims = [*site.hooks(), *site.starters()]
        if victims and dice.random() < 0.6:
            kill(dice.choice(victims))
        time.sleep(0.05)
    jobs.wait(TERMINATED, EVICTED, times=count)
    assert any("PREPARE_JOB" in text for number, text in jobs.events() if number == EVICTED), "back into the queue"
    assert jobs.count(HELD) == 0, jobs.told()
    site.pool.run("condor_rm", str(jobs.cluster), user=site.pool.account, check=False)
    jobs.wait(TERMINATED, ABORTED, times=count)
    assert set(jobs.output_so_far().split()) <= {LARGE}, "inside its image, or nowhere"
    site.pool.until(lambda: site.resolves(LARGE), lambda: "no job gets the image")  # a killed poll is repeated after a while


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
