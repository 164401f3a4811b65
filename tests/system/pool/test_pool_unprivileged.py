"""A pilot of an ordinary user: HTCondor, hook, cache and jobs have one account, and the documented recipe switches it over."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool import ACCOUNT, Pool
from tests.support.ep.pool_site import LOOK, REPOSITORY, SMALL, recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.ep.pool import Jobs
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

PATIENCE = 600.0
"""Seconds; a pool starts and a job runs within ten on an idle machine."""
SETTINGS = """\
[resolver]
repository = /cvmfs/{name}
origin = {origin}
public-key = {keys}
probe = {probe}
"""


class Pilot:
    """A glidein's directory, and its pool."""

    def __init__(self, site: Site, pool: Pool) -> None:
        self.pool = pool
        self.root = pool.root / "glidein"
        self.images = self.root / "images"
        self.images.mkdir(parents=True)
        (self.root / "glidein_config").write_text(f"CVMFS_BASE {pool.cvmfs}\nIMAGES_DIR {self.images}\n")
        settings = SETTINGS.format(name=REPOSITORY, origin=site.web.url, keys=site.keys, probe=SMALL)
        (self.root / "resolver.conf").write_text(settings)
        (self.root / "condor_config.d").symlink_to(pool.root / "config.d")
        shutil.copy(site.program, self.root / "image-resolver.pyz")
        for path in (self.root, self.images):
            shutil.chown(path, ACCOUNT, ACCOUNT)
        (pool.cvmfs / REPOSITORY).symlink_to(site.host.repository)

    def run(self, commands: Sequence[str]) -> None:
        """Run commands of the recipe as the pilot's user."""
        environment = {**self.pool.environment, "glidein_config": str(self.root / "glidein_config")}
        for command in commands:
            done = subprocess.run(
                ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", "sh", "-ec", command],
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
            assert done.returncode == 0, done.stderr

    def until(self, value: str, *names: str) -> None:
        """Wait until the machine's ad has these values."""

        def said() -> str:
            return self.pool.run("condor_status", "-af", *names, "-constraint", "PartitionableSlot").strip()

        self.pool.until(lambda: said() == value, said, PATIENCE)

    def submit(self, **description: str) -> Jobs:
        """Submit a job that names the small image and says what it runs in."""
        named = {"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{SMALL}"', **description}
        return self.pool.submit({"executable": "/bin/sh", "arguments": f"\"-c '{LOOK}'\"", **named})


@pytest.fixture
def pilot(site: Site) -> Iterator[Pilot]:
    if site.pool.account is None:
        pytest.skip("this is an ordinary user's pool already")
    with Pool(2, pilot=True) as pool:
        yield Pilot(site, pool)


def test_an_ordinary_users_pilot_runs_both_forms_and_is_switched_back(pilot: Pilot) -> None:
    over, back = recipe()
    pilot.run(over)
    pilot.pool.start({})
    pilot.until("true true true", "HasImageResolver", "HAS_SINGULARITY", "ImageResolverUsable")
    jobs = [pilot.submit(), pilot.submit(**{"+WantImageForm": '"sif"'})]
    sandbox, sif = (one.done(seconds=PATIENCE).output().splitlines() for one in jobs)
    for shown in (sandbox, sif):
        assert shown[0] == SMALL
        assert REPOSITORY in shown[2:], "/cvmfs is what lies below CVMFS_BASE"
    assert sandbox[1].startswith(f"hello {pilot.pool.cvmfs}/{REPOSITORY}/.images/")
    assert sif[1].startswith(f"hello {pilot.images}/images-"), "the SIF is in the pilot's cache"
    assert len(list(pilot.images.glob("images-*/sif/*/*.sif"))) == 1
    pilot.run(back)
    pilot.until("undefined undefined", "HasImageResolver", "OSG_USING_JOB_HOOK")
