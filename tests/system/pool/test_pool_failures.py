"""Jobs that cannot have their image: held with what their user can mend, else idle again and not at once; never outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook import statuses
from tests.support.ep.pool import EVICTED, EXECUTE, HELD, IDLE
from tests.support.ep.pool_site import ELSEWHERE, LARGE, REPOSITORY, SMALL
from tests.support.images.layers import file, tar
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from tests.support.ep.pool import Jobs
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

MARK = "ran"
BARE = "htc/bare:1"


def vanilla(name: str) -> dict[str, str]:
    return {"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{name}"'}


def container(name: str) -> dict[str, str]:
    return {"universe": "container", "container_image": f"/cvmfs/{REPOSITORY}/{name}"}


TWICE = 2
"""Times that an image may fail to start on a machine: once in each form."""


def submit(site: Site, description: dict[str, str]) -> Jobs:
    """A job that leaves its mark wherever it runs."""
    return site.submit(description, script=f"echo {MARK}")


def comes_back(jobs: Jobs, site: Site, times: int = 1) -> str:
    """A job comes back into the queue that often, and its machine does not take it again for the time being; the reason."""
    jobs.wait(EVICTED, times=times)
    ad = jobs.ad()
    assert ad["JobStatus"] == IDLE
    analysis = site.pool.run("condor_q", "-better-analyze", f"{jobs.cluster}.0")
    assert "1 slots reject your job because of their own requirements" in analysis
    assert jobs.count(HELD) == 0
    assert MARK not in jobs.output_so_far()
    jobs.remove()
    return str(ad["VacateReason"])


def test_what_the_user_can_mend_holds_the_job_and_says_so(site: Site) -> None:
    none = (statuses.NO_IMAGE, "no image '/cvmfs/images.example.org/htc/none:1' is published")
    elsewhere = (statuses.ARCHITECTURE, f"{ELSEWHERE} is not published for amd64 (it is published for arm64)")
    number = (statuses.NO_REFERENCE, "SingularityImage")
    described = [
        vanilla("htc/none:1"),
        container("htc/none:1"),
        vanilla(ELSEWHERE),
        container(ELSEWHERE),
        {"+SingularityImage": "42"},
    ]
    submitted = [submit(site, description) for description in described]
    for jobs, (code, told) in zip(submitted, (none, none, elsewhere, elsewhere, number), strict=True):
        jobs.wait(HELD)
        ad = jobs.ad()
        assert (ad["HoldReasonCode"], ad["HoldReasonSubCode"]) == (19, code)
        assert told in ad["HoldReason"]
        assert told in jobs.log
        assert jobs.count(EXECUTE) == 0
        jobs.remove()


def test_below_300_a_status_holds_a_job_from_300_on_it_requeues_it_and_the_log_has_the_message(site: Site) -> None:
    script = site.pool.root / "answers"
    script.write_text(
        "#!/bin/sh\nstatus=$(sed -n 's/^TestStatus = //p')\n"
        'echo "HookStatusCode = $status"\necho "HookStatusMessage = \\"told $status\\""\n'
    )
    script.chmod(0o755)
    codes = [row[0] for row in statuses.TABLE if row[0] != statuses.OK]
    change = f"IMAGE_RESOLVER_HOOK_PREPARE_JOB = {script}\nCHANGED = true\nSTARTD_ATTRS = $(STARTD_ATTRS) CHANGED\n"
    with site.overridden(change):
        site.pool.reconfigure("CHANGED", "true")
        submitted = {code: site.submit({**vanilla(SMALL), "+TestStatus": str(code)}, script=f"echo {MARK}") for code in codes}
        for code, jobs in submitted.items():
            jobs.wait(HELD if code < statuses.FIRST_HOST_STATUS else EVICTED)
            assert jobs.count(HELD) == (code < statuses.FIRST_HOST_STATUS)
            assert MARK not in jobs.output_so_far()
            assert f"(reported status {code}): told {code}" in jobs.log
            jobs.remove()
    site.pool.reconfigure("CHANGED", "undefined")


def test_an_image_without_a_shell_holds_the_job_at_its_second_start(site: Site) -> None:
    push_image(site.host.registry.address, "htc/bare", "1", [tar([file("tool", b"x", mode=0o755)])], {})
    site.host.images(SMALL, LARGE, {"image": ELSEWHERE, "platforms": ["linux/arm64"]}, BARE)
    site.host.sync()
    jobs = submit(site, vanilla(BARE))
    jobs.wait(HELD)
    ad = jobs.ad()
    assert (ad["HoldReasonCode"], ad["HoldReasonSubCode"], jobs.count(EXECUTE)) == (19, statuses.NO_SHELL, 1)
    assert "Singularity test failed" in jobs.log
    assert f"the image {BARE} fails on every host" in jobs.log
    jobs.remove()


def test_what_the_user_cannot_mend_sends_the_job_elsewhere(site: Site) -> None:
    site.empty_cache()
    away = site.host.origin.with_name("away")
    with site.without_cvmfs():
        site.host.origin.rename(away)
        try:
            nothing = submit(site, vanilla(SMALL))
            not_there = submit(site, {"+SingularityImage": '"/nowhere/at/all"'})
            assert f"reported status {statuses.MANIFEST}" in comes_back(nothing, site)
        finally:
            away.rename(site.host.origin)
    assert "Singularity test failed" in comes_back(not_there, site, times=TWICE)


def test_without_the_hook_a_job_that_names_an_image_runs_in_it_or_not_at_all(site: Site) -> None:
    attributes = ("+SingularityImage", "+ContainerImage")
    with site.overridden("STARTER_JOB_HOOK_KEYWORD = NOBODY\n"):
        inside = [site.submit({attribute: f'"{site.repository}/{SMALL}"'}) for attribute in attributes]
        outside = [submit(site, {attribute: '"/cvmfs/nowhere/at:all"'}) for attribute in attributes]
        for jobs in inside:
            assert jobs.done().output().splitlines()[0] == SMALL
        for jobs in outside:
            assert "Singularity test failed" in comes_back(jobs, site, times=TWICE)


def test_a_job_that_names_no_image_is_left_alone(site: Site) -> None:
    assert submit(site, {}).done().output() == f"{MARK}\n"


def test_a_machine_that_cannot_run_containers_takes_no_job_that_names_an_image(site: Site) -> None:
    text = "ImageResolverUsable = false\nSTARTD_ATTRS = $(STARTD_ATTRS) ImageResolverUsable\nSTARTD_CRON_JOBLIST =\n"
    with site.overridden(text):
        site.pool.reconfigure("ImageResolverUsable", "false")
        refused = submit(site, vanilla(SMALL))
        plain = submit(site, {}).done()
        analysis = site.pool.run("condor_q", "-better-analyze", f"{refused.cluster}.0")
    site.pool.reconfigure("ImageResolverUsable", "true")
    assert "1 slots reject your job because of their own requirements" in analysis
    assert plain.output() == f"{MARK}\n"
    assert refused.done().output() == f"{MARK}\n", "as soon as it can, it takes it"
