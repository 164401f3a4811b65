"""Jobs that were written for the OSPool's scripts, on a machine with ``condor-config --profile ospool``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool_site import REPOSITORY, SMALL

if TYPE_CHECKING:
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

ATTRIBUTES = "HAS_SINGULARITY SINGULARITY_CAN_USE_SIF HAS_CVMFS_images_example_org OSG_USING_JOB_HOOK ALLOW_NONCVMFS_IMAGES"


def test_a_site_switches_over_and_back_and_old_jobs_run(site: Site) -> None:
    before = site.run("condor-config")
    old = {
        "+SingularityImage": f'"/cvmfs/{REPOSITORY}/{SMALL}"',
        "requirements": "HAS_SINGULARITY == True && SINGULARITY_CAN_USE_SIF && HAS_CVMFS_images_example_org",
    }
    site.run("startd-cron", user="condor")
    site.pool.configuration("50-image-resolver", site.run("condor-config", "--profile", "ospool"))
    try:
        site.pool.reconfigure("OSG_USING_JOB_HOOK", "true")
        site.pool.until(lambda: attributes(site) == "true " * 4 + "true", lambda: attributes(site))
        jobs = site.submit(old, script="cat /etc/motd; pwd; ls /etc/hosts").done()
        motd, place, hosts = jobs.output().split()
        assert (motd, place.startswith("/srv"), hosts) == (SMALL, True, "/etc/hosts")
    finally:
        site.pool.configuration("50-image-resolver", before)
        site.pool.reconfigure("OSG_USING_JOB_HOOK", "undefined")
    idle = site.submit(old)
    plain = site.submit({"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{SMALL}"'}, script="pwd").done()
    assert not plain.output().startswith("/srv")
    assert idle.log.count("Job executing") == 0
    idle.remove()


def attributes(site: Site) -> str:
    return site.pool.run("condor_status", "-af", *ATTRIBUTES.split(), "-constraint", "PartitionableSlot").strip()
