"""What a pilot measures at its start becomes its pool's configuration; its jobs that name no image run in the default one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool_site import LARGE, REPOSITORY, SMALL

if TYPE_CHECKING:
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system


def measured(site: Site, command: str, *flags: str) -> str:
    """What a command says that is run as HTCondor's own account runs the startd cron."""
    return site.run(command, *flags, user="condor")


def attributes(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))


def test_a_pilots_jobs_that_name_no_image_run_in_the_default_image(site: Site) -> None:
    said = measured(site, "pilot-start", "--default-images", f"3%{SMALL}", "--default-images", f"1%{LARGE},arm64")
    found = attributes(said)
    assert found["ImageResolverDefaultImage"] == f'"{SMALL}"'
    assert found["HasSIF"] == found["ImageResolverUsable"] == found["ImageResolverCVMFS"] == "true"
    cvmfs = site.pool.cvmfs
    assert found["IMAGE_RESOLVER_BINDS"] == ("/cvmfs" if str(cvmfs) == "/cvmfs" else f"{cvmfs}:/cvmfs:ro")
    with site.overridden(said):
        site.pool.reconfigure("ImageResolverDefaultImage", SMALL)
        plain = site.submit({}).done()
        named = site.submit({"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{LARGE}"'}, script="cat /etc/motd").done()
    site.pool.reconfigure("ImageResolverDefaultImage", "undefined")
    assert plain.output().splitlines()[:1] == [SMALL]
    assert plain.output().splitlines()[1].startswith("hello /cvmfs/")
    assert named.output() == f"{LARGE}\n"


def test_what_was_measured_is_written_down_for_the_hook(site: Site) -> None:
    site.facts.unlink(missing_ok=True)
    measured(site, "pilot-start")
    facts = json.loads(site.facts.read_text())
    assert {name: facts[name] for name in ("sif", "userns", "overlay", "cvmfs")} == dict.fromkeys(
        ("sif", "userns", "overlay", "cvmfs"), True
    )


def test_where_cvmfs_hangs_a_pilot_starts_all_the_same_and_says_so(site: Site) -> None:
    with site.hanging_cvmfs():
        said = measured(site, "pilot-start", "--probe-time", "3")
    found = attributes(said)
    assert (found["ImageResolverCVMFS"], found["HasSIF"], found["ImageResolverUsable"]) == ("false", "true", "true")
    assert f"# CVMFS: {site.repository}: no answer in time" in said
    measured(site, "pilot-start")


def test_where_nothing_runs_the_machine_is_of_no_use_until_something_does(site: Site) -> None:
    facts = ["--facts", str(site.facts.with_name("other.json"))]
    names = ("HasSIF", "ImageResolverUsable")
    nothing = attributes(measured(site, "startd-cron", "--apptainer", "/bin/false", *facts))
    assert [nothing[name] for name in names] == ["false", "false"]
    again = attributes(measured(site, "startd-cron", *facts))
    assert [again[name] for name in names] == ["true", "true"], "what was measured before decides nothing"


def test_apptainer_that_unpacks_each_sif_is_told_from_one_that_mounts_it(site: Site) -> None:
    unpacks = site.pool.root / "unpacks"
    unpacks.write_text('#!/bin/sh\necho "INFO:    Converting SIF file to temporary sandbox..." >&2\nexec apptainer "$@"\n')
    unpacks.chmod(0o755)
    said = measured(site, "startd-cron", "--apptainer", str(unpacks), "--facts", str(site.facts.with_name("other.json")))
    found = attributes(said)
    assert (found["HasSIF"], found["ImageResolverUsable"]) == ("false", "true")
    assert "unpacked before each start" in found["ImageResolverProblems"]
