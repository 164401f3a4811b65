"""SIFs as sources, from the list to the manifest: what Apptainer made is published byte for byte, with its sandbox."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images import foreign_sif
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.osdf.file_server import FileServer
from tests.support.publisher.host import Host, run_as
from tests.support.registries.registry import push_blob, push_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from tests.support.publisher.host import Report
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

REGISTRY, URL, BAD = "lab/in-registry:1", "lab/at-url:1", "lab/bad:1"


class Run:
    """A host with a SIF that ``apptainer build`` made, in a registry and at a URL, and a hostile one."""

    def __init__(self, where: Path, registry: RegistryServer, server: FileServer) -> None:
        self.host = Host(where, registry)
        self.server = server
        self.sif = _build(where)
        (server.root / "lab").mkdir()
        (server.root / "lab" / "x.sif").write_bytes(self.sif)
        (server.root / "lab" / "cut.sif").write_bytes(self.sif[:-1000])
        self.push(self.sif)
        self.list()
        self.first = self.sync()

    def push(self, content: bytes) -> None:
        push_blob(self.host.registry.address, "lab/in-registry", content)
        push_blob(self.host.registry.address, "lab/in-registry", b"{}")
        push_manifest(self.host.registry.address, "lab/in-registry", "1", foreign_sif.manifest(content))

    def list(self) -> None:
        address = self.server.url.removeprefix("http://")
        images = [
            f"oras://{self.host.registry.address}/{REGISTRY}",
            {"image": f"https://{address}/lab/x.sif", "name": URL, "sha256": hashlib.sha256(self.sif).hexdigest()},
            {"image": f"https://{address}/lab/cut.sif", "name": BAD, "sha256": hashlib.sha256(self.sif[:-1000]).hexdigest()},
        ]
        self.host.list.write_text(json.dumps({"version": 1, "images": images}))

    def sync(self) -> Report:
        return self.host.sync(f"--insecure-registry={self.server.url.removeprefix('http://')}", check=False)

    def run(self, *arguments: str) -> CompletedProcess[str]:
        return self.host.run(*arguments, f"--insecure-registry={self.server.url.removeprefix('http://')}")


def _build(where: Path) -> bytes:
    """Return what ``apptainer build`` makes of a tree."""
    tree, made = where / "tree", where / "made.sif"
    tree.mkdir()
    entries = (*runnable(), directory("dev"), directory("proc"), directory("sys"), directory("tmp"), file("hello", b"from a SIF"))
    subprocess.run(["tar", "-x", "-C", str(tree)], input=tar(entries), check=True, timeout=60)
    done = run_as(["apptainer", "--quiet", "build", str(made), str(tree)], None, where)
    assert done.returncode == 0, done.stderr
    return made.read_bytes()


@pytest.fixture(scope="module")
def run(registry: RegistryServer) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="publisher-test-") as made:
        where = Path(made)
        where.chmod(0o755)
        (where / "web").mkdir()
        with FileServer(where / "web") as server:
            yield Run(where, registry, server)


def test_the_sif_is_published_byte_for_byte_with_its_sandbox(run: Run) -> None:
    assert run.first.results == {REGISTRY: "published", URL: "published", BAD: "failed"}, run.first.reasons
    for name in (REGISTRY, URL):
        assert run.host.sif(name).read_bytes() == run.sif
        assert (run.host.repository / name / "hello").read_bytes() == b"from a SIF"
        version = run.host.record(name).current("amd64")
        assert version is not None
        assert (version.test, version.notes["source"]) == ("ran", "SIF for amd64")
        assert version.config == f"sha256:{hashlib.sha256(run.sif).hexdigest()}"


def test_a_damaged_one_is_refused_with_its_reason(run: Run) -> None:
    assert "the SIF is truncated" in run.first.reasons[BAD]


def test_status_and_list_say_where_it_comes_from(run: Run) -> None:
    assert f"oras://{run.host.registry.address}/{REGISTRY}" in run.run("status", REGISTRY).stdout
    assert f"{run.server.url.replace('http', 'https')}/lab/x.sif" in run.run("status", URL).stdout
    assert "source: SIF for amd64" in run.run("status", URL).stdout


def test_check_knows_them(run: Run) -> None:
    said = run.run("check", "--all").stdout
    assert URL in said
    assert REGISTRY in said


def test_verify_and_a_second_run_find_nothing_to_do(run: Run) -> None:
    again = run.sync()
    assert (again.results[REGISTRY], again.results[URL]) == ("unchanged", "unchanged")
    done = run.run("verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sif_that_the_origin_lost_is_fetched_again(run: Run) -> None:
    lost = run.host.sif(REGISTRY)
    lost.unlink()
    run.sync()
    assert lost.read_bytes() == run.sif


def test_a_new_digest_of_the_tag_is_a_new_version(run: Run) -> None:
    run.push(run.sif[:-1] + b"x")
    assert run.sync().results[REGISTRY] == "published"
    assert run.host.sif(REGISTRY).read_bytes() == run.sif[:-1] + b"x"
