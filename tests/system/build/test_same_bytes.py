"""Reproducible builds: one image gives one SIF, whoever builds it, wherever and whenever."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.images.printing_image import push, said_by
from tests.support.publisher.host import ORDINARY, Host, run_as
from tests.support.registries.registry import RegistryServer, sha256

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system


def test_the_same_image_synced_twice_from_scratch_is_the_same_file(registry: RegistryServer, shared_path: Path) -> None:
    push(registry, "sync/same:1")
    sifs = []
    for number in (1, 2):
        where = shared_path / f"host-{number}"
        where.mkdir()
        host = Host(where, registry)
        host.images("sync/same:1")
        host.sync()
        sifs.append(host.sif("sync/same:1").read_bytes())
    assert sifs[0] == sifs[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user; this run is an ordinary user's already")
def test_an_ordinary_user_publishes_the_same_bytes_as_root(registry: RegistryServer, shared_path: Path) -> None:
    push(registry, "sync/user:1")
    hosts = {}
    for name, user in (("root", None), ("user", ORDINARY)):
        where = shared_path / name
        where.mkdir()
        hosts[name] = host = Host(where, registry)
        if user is not None:
            subprocess.run(["chown", "-R", f"{user}:", where], check=True)
        host.images("sync/user:1")
        done = host.run("sync", user=user)
        assert done.returncode == 0, done.stderr
    assert hosts["root"].sif("sync/user:1").read_bytes() == hosts["user"].sif("sync/user:1").read_bytes()
    assert said_by(hosts["user"].repository / "sync/user:1", hosts["user"]).startswith("good day")


def test_a_rebuild_on_another_host_can_be_compared_by_its_record(registry: RegistryServer, shared_path: Path) -> None:
    """Another state directory, user, umask, time zone and locale give what the record says; it says another compression."""
    push(registry, "sync/again:1")
    versions = []
    for name, flags in (("first", ["--compression=zstd"]), ("second", []), ("third", ["--compression=gzip"])):
        where = shared_path / name
        where.mkdir()
        host = Host(where, registry)
        host.images("sync/again:1")
        argv = [sys.executable, "-m", "publisher", "sync", *host.flags(), *flags]
        user = None
        if name == "second":
            user = ORDINARY
            argv = ["sh", "-c", 'umask 077; exec "$@"', "sh", "env", "TZ=Asia/Tokyo", "LC_ALL=C", *argv]
            if os.geteuid() == 0:
                subprocess.run(["chown", "-R", f"{user}:", where], check=True)
        done = run_as(argv, user, where)
        assert done.returncode == 0, done.stderr
        version = host.record("sync/again:1").current("amd64")
        assert version is not None
        assert version.sif is not None
        assert sha256(host.sif("sync/again:1").read_bytes()) == f"sha256:{version.sif.sha256}"
        versions.append((version.digest, version.tools, version.sif.sha256))
    assert versions[0] == versions[1]
    assert set(versions[0][1]) == {"publisher", "apptainer", "zstd", "compression"}
    assert versions[0][0] == versions[2][0]
    assert versions[0][2] != versions[2][2]
    assert {name for name, said in versions[2][1].items() if said != versions[0][1].get(name)} == {
        "mksquashfs",
        "zlib",
        "compression",
    }
