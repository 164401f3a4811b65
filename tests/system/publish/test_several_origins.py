"""Several origins: syncs publish with the first one, whatever the others do; later ones repair them.

The second one is a directory, and a real origin (XRootD) that a director names.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images.layers import file, tar
from tests.support.osdf import origin
from tests.support.publisher.host import Host
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from tests.support.publisher.host import Report
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system


class Run:
    """A host with a second origin that is a file at first, so that nothing can be stored in it.

    Attributes:
        second: the directory in which the second origin has its objects.
        address: the second origin in the settings.
    """

    def __init__(self, where: Path, registry: RegistryServer, kind: str) -> None:
        self.host = Host(where, registry)
        self.second = where / "second"
        self.address, self._flags = str(self.second), []
        if kind == "pelican":
            there = origin.running()
            self.second = there.servers.data / origin.prefix(where).lstrip("/")
            self.address = f"pelican://{there.director}{origin.prefix(where)}"
            issuer = there.servers.issuer
            self._flags = [
                f"--token-key={there.key}",
                f"--token-issuer={issuer.url}",
                f"--token-key-id={issuer.keyid}",
                f"--origin-authority={there.servers.authority}",
                "--allowed-networks=127.0.0.0/8",
            ]
        self._flags += [f"--further-origins={self.address}"]
        self.second.write_text("not a directory")
        push_image(registry.address, "several/image", "1", [tar([file("content")])])
        self.host.images("several/image:1")
        self.first = self.sync()
        self.said = self.run("status").stdout
        self.metrics = self.run("metrics").stdout

    def sync(self) -> Report:
        return self.host.sync(*self._flags, check=False)

    def run(self, *arguments: str) -> CompletedProcess[str]:
        return self.host.run(*arguments, *self._flags)


def stored(origin: Path) -> dict[str, bytes]:
    """Return the objects of an origin that counts for execution points."""
    files = [path for name in ("sif", "manifest") for path in (origin / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(origin)): path.read_bytes() for path in files}


@pytest.fixture(scope="module", params=["directory", "pelican"])
def run(registry: RegistryServer, request: pytest.FixtureRequest) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="publisher-test-") as made:
        Path(made).chmod(0o755)
        yield Run(Path(made), registry, request.param)


def test_a_second_origin_that_fails_fails_no_run_and_is_reported(run: Run) -> None:
    assert run.first.status == 0
    assert run.first.results == {"several/image:1": "published"}
    assert run.host.sif("several/image:1").exists()
    assert f"the origin {run.address} is behind" in run.said
    assert f'publisher_origin_behind{{origin="{run.address}"}} 1.0' in run.metrics


def test_the_next_sync_copies_what_it_lacks(run: Run) -> None:
    run.second.unlink(missing_ok=True)
    assert run.sync().status == 0
    assert stored(run.second) == stored(run.host.origin) != {}
    assert "is behind" not in run.run("status").stdout


def test_verify_finds_what_it_has_lost_and_repairs_it(run: Run) -> None:
    name = str(run.host.sif("several/image:1").relative_to(run.host.origin))
    damaged = run.second / name
    damaged.chmod(0o644)
    damaged.write_bytes(b"other bytes")
    done = run.run("verify")
    assert done.returncode == 1
    assert f"the origin {run.address} lacks {name}, or has it damaged" in done.stdout
    assert run.run("verify", "--repair").returncode == 0
    assert stored(run.second) == stored(run.host.origin)
    shutil.rmtree(run.second)
    assert run.run("verify", "--repair").returncode == 0
    assert stored(run.second) == stored(run.host.origin)


def test_a_take_down_removes_it_from_all(run: Run) -> None:
    name = str(run.host.sif("several/image:1").relative_to(run.host.origin))
    assert run.run("block", "several/image:1", "--reason=test").returncode == 0
    assert not (run.host.origin / name).exists()
    assert not (run.second / name).exists()
