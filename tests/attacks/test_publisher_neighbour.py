"""Attacker: another account on the publisher host, which could write to the state directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from tests.support.images.built_layers import request
from tests.support.images.layers import file, tar
from tests.support.images.printing_image import push, said_by
from tests.support.images.runnable import runnable
from tests.support.publisher.local_builder import build
from tests.support.registries.registry import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.publisher.host import Host
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system


def test_a_build_that_lies_under_another_images_digest_is_not_published(host: Host, registry: RegistryServer) -> None:
    digest = push(registry, "neighbour/good:1", "good")
    planted = build(request([tar([*runnable(), file("text", b"evil\n")])], host.where / "blobs"), host.state)
    config = read_manifest(registry.address, "neighbour/good", digest)["config"]["digest"]
    planted.sif.parent.rename(host.state / "builds" / config.removeprefix("sha256:"))
    host.images("neighbour/good:1")
    host.sync()
    for image in (host.repository / "neighbour/good:1", host.sif("neighbour/good:1")):
        assert said_by(image, host).endswith("good\n")


def test_nothing_is_published_from_a_state_directory_that_others_can_write_to(host: Host, registry: RegistryServer) -> None:
    push(registry, "neighbour/open:1", "good")
    host.images("neighbour/open:1")
    host.state.mkdir()
    host.state.chmod(0o777)
    refused = host.sync(check=False)
    assert refused.status == 4
    assert f"other accounts may write to the state directory {host.state}" in refused.stderr
    assert host.index() is None


@pytest.mark.parametrize("strange", ["cache", "cache/archives/planted.deb"])
def test_packages_that_another_account_could_have_written_are_not_installed(strange: str, shared_path: Path) -> None:
    """apt installs them as root without a signature: the cache has none."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("NOT TESTED: the installation of packages; this needs root and apt")
    (shared_path / "cache/archives").mkdir(parents=True)
    (shared_path / "cache/archives/planted.deb").touch()
    os.chown(shared_path / strange, 65534, 65534)
    (shared_path / "bin").mkdir()
    for name, status in (("dpkg-query", 1), ("apt-get", 99)):  # nothing is installed, and nothing must be asked of apt
        (shared_path / "bin" / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (shared_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{shared_path}/bin:{os.environ['PATH']}", "OSPOOL_PACKAGE_CACHE": str(shared_path / "cache")}
    done = subprocess.run([ROOT / "ci/install-system"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"{shared_path / strange} belongs to another account than root" in done.stderr
    assert not (shared_path / "cache/Packages").exists()
