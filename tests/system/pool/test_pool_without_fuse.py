"""A host that cannot mount SIFs and has no CVMFS: each image is unpacked once into the cache, for all jobs."""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool import ABORTED, EVICTED, HELD, TERMINATED
from tests.support.ep.pool_site import LARGE, REPOSITORY
from tests.system.pool.test_pool_many import MANY, SCRIPT, kill

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.ep.pool_site import Site

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="only root can take /dev/fuse away")]

DESCRIPTION = {"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{LARGE}"'}


def unpacked(site: Site) -> Path:
    sif = site.sif(LARGE)
    return sif.with_name(f"{sif.stem}-unpacked")


@pytest.mark.timeout(900)
def test_many_jobs_that_start_at_once_make_one_download_and_one_unpacking(site: Site) -> None:
    site.empty_cache()
    before = site.web.downloads()
    with site.without_cvmfs(), site.without_fuse():
        assert json.loads(site.facts.read_text())["sif"] is False
        made: set[int] = set()
        jobs = site.submit(DESCRIPTION, MANY, script=SCRIPT.format(5)).done(MANY, seconds=600)
        made.add(unpacked(site).stat().st_ino)
        again = site.submit(DESCRIPTION, script="cat /etc/motd").done()
        made.add(unpacked(site).stat().st_ino)
    assert jobs.output_so_far() == f"{LARGE}\n" * MANY
    assert again.output() == f"{LARGE}\n"
    assert again.ad()["ChirpImageForm"] == "unpacked"
    assert (jobs.count(EVICTED), jobs.count(HELD)) == (0, 0)
    assert site.web.downloads() - before == 1
    assert len(made) == 1


@pytest.mark.timeout(900)
def test_after_kills_during_unpacking_the_sandbox_is_complete(site: Site) -> None:
    dice, count = random.Random(7), 12
    site.empty_cache()
    with site.without_cvmfs(), site.without_fuse():
        jobs = site.submit(DESCRIPTION, count, script=SCRIPT.format(1))
        site.pool.until(lambda: bool(site.hooks()), jobs.told)
        kill(site.hooks()[0])
        end = time.monotonic() + 8
        while time.monotonic() < end and jobs.count(TERMINATED) < count:
            victims = [*site.hooks(), *site.starters()]
            if victims and dice.random() < 0.3:
                kill(dice.choice(victims))
        jobs.wait(TERMINATED, EVICTED, times=count)
        assert jobs.count(HELD) == 0
        site.pool.run("condor_rm", str(jobs.cluster), user=site.pool.account, check=False)
        jobs.wait(TERMINATED, ABORTED, times=count)
        assert set(jobs.output_so_far().split()) <= {LARGE}, "inside its image, or nowhere"
        assert site.submit(DESCRIPTION, script="cat /etc/motd").done().output() == f"{LARGE}\n"
        site.run("cache", "verify", user=site.pool.account)
