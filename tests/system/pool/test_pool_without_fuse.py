"""A host that cannot mount SIFs and has no CVMFS: each image is unpacked once into the cache, for all jobs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool import EVICTED, HELD
from tests.support.ep.pool_site import LARGE, REPOSITORY
from tests.system.pool.test_pool_many import MANY, SCRIPT, kill_jobs_at_random

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
    before = site.downloads(LARGE)
    with site.without_cvmfs(), site.without_fuse():
        assert json.loads(site.facts.read_text())["sif"] is False
        made: set[int] = set()
        jobs = site.submit(DESCRIPTION, MANY, script=SCRIPT.format(1)).done(MANY, seconds=600)
        made.add(unpacked(site).stat().st_ino)
        again = site.submit(DESCRIPTION, script="cat /etc/motd").done()
        made.add(unpacked(site).stat().st_ino)
    assert jobs.output_so_far() == f"{LARGE}\n" * MANY
    assert again.output() == f"{LARGE}\n"
    assert again.ad()["ChirpImageForm"] == "unpacked"
    assert (jobs.count(EVICTED), jobs.count(HELD)) == (0, 0)
    assert site.downloads(LARGE) - before == 1
    assert len(made) == 1


@pytest.mark.timeout(900)
def test_after_kills_during_unpacking_the_sandbox_is_complete(site: Site) -> None:
    site.empty_cache()
    with site.without_cvmfs(), site.without_fuse():
        kill_jobs_at_random(site)
        assert site.submit(DESCRIPTION, script="cat /etc/motd").done().output() == f"{LARGE}\n"
        site.run("cache", "verify", user=site.pool.account)
