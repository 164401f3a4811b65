"""Images that mean harm, all in one run of the real command line, as root where we are root.

Each gets its own reason, no other one fails with it, and nothing outside of what is published is touched.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images.hostile_images import LIMITS, images
from tests.support.images.trees import snapshot
from tests.support.publisher.host import ORDINARY, Host, run_as

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.publisher.host import Report
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system


class Run:
    """The result of one sync of all images."""

    def __init__(self, where: Path, registry: RegistryServer) -> None:
        self.canary = where / "canary"
        self.canary.mkdir()
        (self.canary / "kept").write_bytes(b"the host's")
        self.canary.chmod(0o777)
        self.before = snapshot(self.canary)
        self.images = images(self.canary)
        for name, image in self.images.items():
            image.push(registry.address, f"hostile/{name}")
        self.host = Host(where, registry)
        self.host.images(*(f"hostile/{name}:1" for name in self.images))
        self.report: Report = self.host.sync(*(f"--{flag}={value}" for flag, value in LIMITS.items()), check=False)

    def sandbox(self, name: str) -> Path:
        return self.host.repository / f"hostile/{name}:1"


@pytest.fixture(scope="module")
def run(registry: RegistryServer) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="publisher-test-") as made:
        Path(made).chmod(0o755)
        yield Run(Path(made), registry)


def test_nothing_outside_of_the_published_tree_is_changed(run: Run) -> None:
    assert snapshot(run.canary) == run.before
    names = {path.name for path in run.host.where.iterdir() if not path.name.startswith("home-")}
    assert names == {"canary", "images.example.org", "origin", "state", "images.yaml", "key.pem", "key.pem.pub"}
    assert run.host.leftovers() == []
    assert not Path("/planted").exists()


_ALL = images(Path("/canary"))


@pytest.mark.parametrize("name", [name for name, image in _ALL.items() if image.refused is not None])
def test_an_image_that_cannot_be_published_is_refused_with_its_own_reason(name: str, run: Run) -> None:
    reason = run.report.reasons[f"hostile/{name}:1"]
    assert run.report.results[f"hostile/{name}:1"] == "failed"
    assert re.search(run.images[name].refused or "", reason), reason
    assert "\n" not in reason
    assert not run.sandbox(name).is_symlink()


@pytest.mark.parametrize("name", [name for name, image in _ALL.items() if image.refused is None])
def test_an_image_that_is_harmless_within_its_root_is_published_and_runs(name: str, run: Run) -> None:
    image = f"hostile/{name}:1"
    assert run.report.results[image] == "published", run.report.reasons[image]
    assert [version.test for version in run.host.record(image).platforms["amd64"]] == ["ran"]
    for path, content in run.images[name].inside.items():
        assert (run.sandbox(name) / path).read_bytes() == content
        assert not (run.sandbox(name) / path).is_symlink()
    argv = ["apptainer", "--silent", "exec", "--containall", str(run.sandbox(name)), "/bin/cat", "/.singularity.d/runscript"]
    done = run_as(argv, ORDINARY, run.host.where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/sh")


def test_an_images_own_metadata_is_not_that_of_the_published_one(run: Run) -> None:
    own = run.sandbox("own-singularity-d") / ".singularity.d"
    assert not (own / "mine").exists()
    assert b"/planted" not in (own / "actions/exec").read_bytes()
    linked = run.sandbox("singularity-d-as-a-link")
    assert not (linked / ".singularity.d").is_symlink()
    assert (linked / ".run").readlink() == run.canary / "kept", "the image's own, which fills its name"
