"""Jobs that were written for the OSPool's scripts, on a glidein that docs/ep.md has switched over, and back."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool_site import REPOSITORY, SMALL, recipe
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ep.pool_site import Site
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

FORMER = "old.example.org"
ATTRIBUTES = (
    "HAS_SINGULARITY SINGULARITY_CAN_USE_SIF HAS_CVMFS_images_example_org HAS_CVMFS_old_example_org OSG_USING_JOB_HOOK "
    "ALLOW_NONCVMFS_IMAGES"
)
LOOK = (
    "cat /etc/motd; pwd; cat .gwms.d/bin/condor_chirp; ls /etc/hosts /bound; "
    "echo $APPTAINER_CONTAINER; ls /cvmfs; ls /etc/OpenCL/vendors 2> /dev/null; "
    "echo made > /srv/made; cat made $_CONDOR_SCRATCH_DIR/made /srv/.gwms.d/bin/condor_chirp; "
    "echo $LD_LIBRARY_PATH:$PYTHONPATH:$KEPT; ls -l /proc/self/ns/pid"
)


class Glidein:
    """The directory of a glidein, with what its own scripts have left there, in a pool that knows no resolver."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.root = site.pool.root / "glidein"
        self.images = self.root / "images"
        self.cvmfs = self.root / "cvmfs"
        for name in ("images", "bound", ".gwms.d/bin", f"cvmfs/{REPOSITORY}", "etc/OpenCL/vendors"):
            (self.root / name).mkdir(parents=True)
        self.images.chmod(0o1777)
        (self.root / "etc" / "OpenCL" / "vendors" / "graphics.icd").touch()
        (self.root / "bound" / "file").touch()
        (self.root / ".gwms.d" / "bin" / "condor_chirp").write_text("chirp\n")
        (self.root / "glidein_config").write_text(
            f"CVMFS_BASE {self.cvmfs}\nIMAGES_DIR {self.images}\nSINGULARITY_DISABLE_PID_NAMESPACES 1\n"
            f"GLIDEIN_SINGULARITY_BINDPATH {self.root}/bound:/bound,/absent\n"
        )
        shutil.copy(site.program, self.root / "image-resolver.pyz")
        more = f"insecure-registry = {site.host.registry.address}\nrepository-alias = {FORMER}\n"
        usual = site.configuration.read_text().replace(f"{site.repository}\n", f"/cvmfs/{REPOSITORY}\n")
        (self.root / "resolver.conf").write_text(usual + more)
        (self.root / "condor_config.d").symlink_to(site.pool.root / "config.d")

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Let the machine have CVMFS below CVMFS_BASE, and a directory of OpenCL's vendors if this is root's pool."""
        inside, place = self.site.pool.inside, self.cvmfs / REPOSITORY
        if not self.site.pool.account:
            place.rmdir()
            place.symlink_to(self.site.host.repository)
            yield
            return
        inside("mount", "--bind", self.site.host.repository, place)
        inside("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={self.root}/etc:/etc", "/etc")
        try:
            yield
        finally:
            for path in (place, "/etc"):
                inside("umount", "--lazy", path)

    def run(self, commands: list[str]) -> None:
        environment = {**self.site.pool.environment, "glidein_config": str(self.root / "glidein_config")}
        for command in commands:
            shell = [*self.site.pool.enter(), "sh", "-ec", f"cd {self.root}; {command}"]
            subprocess.run(shell, check=True, env=environment, timeout=120, capture_output=True)

    def said(self, *names: str) -> str:
        return self.site.pool.run("condor_status", "-af", *names, "-constraint", "PartitionableSlot").strip()

    def until(self, value: str, *names: str) -> None:
        self.site.pool.until(lambda: self.said(*names) == value, lambda: self.said(*names, "ImageResolverProblems"))


@pytest.fixture
def glidein(site: Site) -> Iterator[Glidein]:
    before = site.pool.root / "config.d" / "50-image-resolver"
    text = before.read_text()
    made = Glidein(site)
    faster = "STARTD_CRON_IMAGE_FAILURES_PERIOD = 2s\n"
    with site.overridden(faster), made.mounted():
        yield made
    site.pool.configuration("50-image-resolver", text)
    site.pool.configuration("40-scripts", "")
    (site.pool.root / "config.d" / "51-image-resolver").unlink(missing_ok=True)
    site.pool.run("condor_reconfig")
    made.until("true undefined", "HasImageResolver", "OSG_USING_JOB_HOOK")
    shutil.rmtree(made.root)


def named(image: str, **more: str) -> dict[str, str]:
    return {"+SingularityImage": f'"{image}"', **more}


def test_a_site_switches_over_and_back_and_old_jobs_run(glidein: Glidein, site: Site, registry: RegistryServer) -> None:
    over, back = recipe()
    site.pool.configuration(
        "40-scripts", "SCRIPTS = true\nSTARTD_ATTRS = $(STARTD_ATTRS) SCRIPTS\nSINGULARITY_TARGET_DIR = /old\n"
    )
    layers = [tar(runnable("/usr/bin/ls")), tar([directory("etc"), file("etc/motd", b"theirs\n")])]
    push_image(registry.address, "theirs/tool", "1", layers, {"Env": ["PATH=/bin"]})
    pulled = f"docker://{registry.address}/theirs/tool:1"
    registry.requests()

    glidein.run([*over, "condor_reconfig"])
    glidein.until("true " * 6 + "true", *ATTRIBUTES.split(), "SCRIPTS")
    wants = "HAS_SINGULARITY == True && SINGULARITY_CAN_USE_SIF && HAS_CVMFS_images_example_org && OSG_USING_JOB_HOOK == True"
    environment = "\"LD_LIBRARY_PATH=/opt/lib PYTHONPATH=/opt/python KEPT='a b'\""
    old = named(f"/cvmfs/{FORMER}/{SMALL}", requirements=wants, environment=environment)
    published = site.host.sif(SMALL).name
    jobs = site.submit(old, script=LOOK)
    stash = site.submit(named(f"stash:///ospool/images/sif/{published[:2]}/{published}"), script="cat /etc/motd")
    docker = site.submit(named(pulled), count=2, script="cat /etc/motd")
    container = site.submit({"universe": "container", "container_image": pulled}, script="cat /etc/motd")
    staff = {"+ProjectName": '"OSG-Staff"', "+container_bypass": "true"}
    bare = site.submit(
        named(f"/cvmfs/{REPOSITORY}/{SMALL}", **staff), script="echo bare$APPTAINER_CONTAINER; ls -l /proc/self/ns/pid"
    )
    shown = jobs.done().output()
    motd, place, chirp, hosts = shown.splitlines()[:4]
    assert (motd, place, chirp, hosts) == (SMALL, "/srv", "chirp", "/etc/hosts")
    assert "\nmade\nmade\nchirp\n" in shown, "the literal /srv is the scratch directory, whose other name works too"
    assert "\n/bound:\nfile\n" in shown
    assert ("\ngraphics.icd\n" in shown) == bool(site.pool.account), "what OpenCL's programs look for"
    assert f"\n{glidein.cvmfs}/{REPOSITORY}/.images/" in shown, "the sandbox is below CVMFS_BASE"
    assert f"\n{REPOSITORY}\n" in shown, "which is /cvmfs in the container"
    assert "/opt/" not in shown, "variables of the access point"
    assert stash.done().output() == f"{SMALL}\n"
    assert [docker.done(2).output(process) for process in range(2)] == ["theirs\n"] * 2
    assert len([asked for asked in registry.requests() if asked.method == "GET" and "/blobs/" in asked.path]) <= 3, "one pull"
    assert container.done().output() == "theirs\n"
    (counted,) = glidein.images.glob("images-*/tally/candidates")
    assert counted.read_text() == f"1 {pulled}\n" * 3
    inside, outside = shown.splitlines()[-2:], bare.done().output().splitlines()
    assert outside[0] == "bare"
    assert inside[0].endswith(":a b")
    assert inside[1].split(" -> ")[1] == outside[1].split(" -> ")[1], "the glidein forbids PID namespaces"

    (glidein.root / "stop-glidein.stamp").touch()
    glidein.until("true", "ImageResolverStopped")
    waits = site.submit({}, script="echo ran")
    glidein.run(back)
    glidein.until("undefined undefined true", "HasImageResolver", "OSG_USING_JOB_HOOK", "SCRIPTS")
    assert waits.done().output() == "ran\n", "it waited for the machine, and nothing is left that stops it"
    analysed = site.pool.run("condor_config_val", "SINGULARITY_TARGET_DIR")
    assert analysed.strip() == "/old"
