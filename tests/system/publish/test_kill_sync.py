"""A sync that is killed (SIGKILL) at changes to the file system, from its first to its last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.cli.main import publisher
from publisher.contract import manifest
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.machine import child_process
from tests.support.publisher.host import Host
from tests.support.registries.registry import RegistryServer, push_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

KILLS = 10
"""Number of runs that are killed, from the first change to the last."""


def everything_named_is_there(host: Host) -> int:
    """Assert that no manifest names what is not there; return the records seen."""
    seen = 0
    for where, index in ((host.repository / ".publisher", host.index()), (host.origin / "manifest", host.index(origin=True))):
        for sha256 in filter(None, index.shards if index is not None else ()):
            shard = manifest.Shard.parse((where / manifest.shard_name(sha256)).read_bytes(), sha256)
            for name in shard.records:
                record = shard.record(name)
                assert record is not None
                for _, version in record.versions():
                    assert version.sandbox is not None
                    assert version.sif is not None
                    assert (host.repository / version.sandbox / ".singularity.d/runscript").is_file()
                    assert (host.origin / version.sif.path).stat().st_size == version.sif.size
                    seen += 1
    for link in host.repository.rglob("kill/*"):
        assert (link / ".singularity.d/runscript").is_file(), f"{link} dangles"
    return seen


def sync_in_a_child(host: Host) -> None:
    """Run the command line in this process, which is a child that may be killed."""
    out = os.open(os.devnull, os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    publisher.main(["sync", *host.flags()], standalone_mode=False)


@pytest.mark.timeout(900)
def test_a_kill_at_any_moment_costs_only_a_rerun(shared_path: Path) -> None:
    with RegistryServer(shared_path / "registry") as registry:
        push_image(registry.address, "kill/base", "1", [tar(runnable())])
        push_image(registry.address, "kill/top", "1", [tar(runnable()), tar([directory("etc"), file("etc/motd")])])

        def fresh(name: str) -> Host:
            where = shared_path / name
            where.mkdir()
            host = Host(where, registry)
            host.images("kill/base:1", "kill/top:1")
            return host

        whole = fresh("whole")
        changes = child_process.count_changes(lambda: _to_the_end(whole))
        assert changes > 10 * KILLS, "or the run was not watched"
        killed = 0
        for at in child_process.sample(changes, KILLS):
            host = fresh(f"host-{at}")
            killed += child_process.killed(at, lambda host=host: _to_the_end(host))  # type: ignore[misc]  # bound per round
            everything_named_is_there(host)
            assert host.sync().results.keys() == {"kill/base:1", "kill/top:1"}
            assert everything_named_is_there(host) == 4
            assert host.leftovers() == []
        assert killed > KILLS // 2, "a run may make a few changes less than the one that was counted"


def _to_the_end(host: Host) -> None:
    try:
        sync_in_a_child(host)
    except SystemExit as end:
        assert end.code == 0  # noqa: PT017 - in a child
