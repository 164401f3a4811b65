"""One name with three builds on three hosts: startds of one pool that differ in processor and GPU, as HTCondor simulates them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool import HELD
from tests.support.ep.pool_site import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

NAME, DEMANDING = "htc/family:1", "htc/family:2"
PLAIN, V3, GPU = "htc/family:plain", "htc/family:v3", "htc/family:gpu"
HOSTS = {
    "old": ("x86_64-v1", "none", PLAIN, "amd64"),
    "new": ("x86_64-v3", "none", V3, "amd64,x86-64-v3"),
    "gpu": ("x86_64-v4", "-properties -simulate:4,1 -extra", GPU, "amd64,x86-64-v3,capability>=8.0"),
}
"""Simulated host -> its processor, its GPUs for condor_gpu_discovery, and the image and variant that its jobs get."""
_STARTD = """
STARTD_{upper} = $(STARTD)
STARTD_{upper}_ARGS = -local-name {name}
{name}.STARTD_NAME = {name}
{name}.STARTD_LOG = $(LOG)/StartLog.{name}
{name}.STARTD_ADDRESS_FILE = $(LOG)/.startd_address.{name}
{name}.EXECUTE = {execute}
{name}.Microarch = "{microarch}"
{name}.SimulatedHost = "{name}"
{name}.STARTD_ATTRS = $(STARTD_ATTRS) Microarch SimulatedHost
{name}.STARTD_DETECT_GPUS = {gpus}
"""


def simulate(site: Site) -> str:
    """HTCondor's configuration for the three hosts."""
    lines = [f"DAEMON_LIST = $(DAEMON_LIST) {' '.join(f'STARTD_{name.upper()}' for name in HOSTS)}"]
    for name, (microarch, gpus, _, _) in HOSTS.items():
        execute = site.pool.root / f"execute-{name}"
        execute.mkdir()
        if site.pool.account:
            shutil.chown(execute, "condor")
        lines.append(_STARTD.format(upper=name.upper(), name=name, execute=execute, microarch=microarch, gpus=gpus))
    return "\n".join(lines)


@pytest.fixture
def hosts(site: Site) -> Iterator[None]:
    """The three hosts, and a family for them beside what is published."""

    def known() -> str:
        return site.pool.run(
            "condor_status", "-af", "SimulatedHost", "-constraint", "PartitionableSlot && isString(SimulatedHost)"
        )

    listed = json.loads(site.host.list.read_text())
    for name in (PLAIN, V3, GPU):
        site.push(name)
    images = {name: f"{site.host.registry.address}/{name}" for name in (PLAIN, V3, GPU)}
    family = [{"image": images[PLAIN]}, {"image": images[V3], "when": "x86-64-v3"}]
    gpu = {"image": images[GPU], "when": "x86-64-v3,capability>=8"}
    site.host.images({"image": NAME, "variants": [*family, gpu]}, {"image": DEMANDING, "variants": [gpu]})
    both = json.loads(site.host.list.read_text())
    both["groups"] += listed["groups"]
    site.host.list.write_text(json.dumps(both))
    site.host.sync()
    with site.overridden(simulate(site)):
        site.pool.run("condor_reconfig", "-master")
        site.pool.until(lambda: sorted(known().split()) == sorted(HOSTS), known)
        yield
    site.pool.run("condor_reconfig", "-master")
    site.pool.until(lambda: known() == "", known)
    site.host.list.write_text(json.dumps(listed))


@pytest.mark.usefixtures("hosts")
def test_each_host_runs_its_own_build_of_one_name(site: Site) -> None:
    image = f"/cvmfs/{REPOSITORY}/{NAME}"
    submitted = {}
    for host, (_, gpus, _, _) in HOSTS.items():
        wants = {"requirements": f'SimulatedHost == "{host}"', "request_gpus": int(gpus != "none")}
        submitted[host] = site.submit({"universe": "container", "container_image": image, **wants})
    refused = site.submit({"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{DEMANDING}"', "requirements": 'SimulatedHost == "new"'})
    for host, (_, _, name, variant) in HOSTS.items():
        jobs = submitted[host].done()
        assert jobs.output().splitlines()[0] == name
        assert jobs.ad()["ChirpImageVariant"] == variant
        assert f"image {NAME} for {variant} is" in jobs.log
    (held,) = refused.wait(HELD)
    assert "reported status 102" in held
    needs = "amd64,x86-64-v3,capability>=8.0: it needs a GPU of NVIDIA, and the job has none"
    assert f"no variant of {DEMANDING} is for this host: {needs}" in held
    refused.remove()
