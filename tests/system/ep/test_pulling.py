"""Images of registries that no manifest lists, pulled by Apptainer from a docker-registry on loopback."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook import statuses
from publisher.resolver.hook.decide import decide
from publisher.resolver.hook.job import Job
from publisher.resolver.system.notes import Warnings
from publisher.resolver.transfer.sif_header import squashfs_offset
from tests.support.ep.execution_point import NOW, ExecutionPoint, record
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import RegistryServer, push_image

if TYPE_CHECKING:
    from publisher.resolver.hook.decision import Decision

pytestmark = pytest.mark.system


def decided(ep: ExecutionPoint, url: str, registry: RegistryServer) -> Decision:
    settings = ep.settings(unknown="pull", insecure_registry=registry.address)
    job = Job({"containerimage": url})
    return decide(job, settings, scratch=str(ep.root), now=NOW, until=time.monotonic() + 120, notes=Warnings())


def test_apptainer_pulls_an_image_once_from_either_kind_of_registry_reference(tmp_path: Path, registry: RegistryServer) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record("htc/rocky:9"))
    layers = [tar(runnable("/usr/bin/id")), tar([directory("etc"), file("etc/motd", b"theirs\n")])]
    push_image(registry.address, "theirs/tool", "1", layers, {"Env": ["PATH=/bin"]})
    url = f"docker://{registry.address}/theirs/tool:1"
    first = decided(ep, url, registry)
    assert first.code == statuses.OK, first.message
    registry.requests()
    again = decided(ep, url, registry)
    sif = str(first.updates["SingularityImage"])
    assert (again.updates, registry.requests()) == (first.updates, []), "the registry is not asked again"
    offset = str(squashfs_offset(Path(sif).read_bytes()[: 1 << 16]))
    shown = subprocess.run(["unsquashfs", "-offset", offset, "-cat", sif, "etc/motd"], capture_output=True, check=True)
    assert shown.stdout == b"theirs\n"
    oras = f"oras://{registry.address}/theirs/sif:1"
    push = ["apptainer", "push", sif, oras]
    subprocess.run(push, env={**os.environ, "APPTAINER_NOHTTPS": "1"}, check=True, capture_output=True)
    assert decided(ep, oras, registry).updates == first.updates, "it is the same SIF"
    for absent in (f"docker://{registry.address}/theirs/none:1", f"oras://{registry.address}/theirs/none:1"):
        assert decided(ep, absent, registry).code == statuses.NO_IMAGE
    assert not [path for path in ep.cache.rglob("*") if ".part" in path.name]


def test_a_private_image_is_not_pulled_for_everybody(tmp_path: Path) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record("htc/rocky:9"))
    with RegistryServer(tmp_path / "private", user=("user", "password")) as private:
        found = decided(ep, f"docker://{private.address}/theirs/tool:1", private)
    assert (found.code, "is not public" in found.message) == (statuses.NO_IMAGE, True)
