"""Blocked images and a stolen key as execution points see them: the real publisher and the real resolver."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.state import snapshot as snapshots
from publisher.state.signing import Signer
from publisher.state.snapshot import Snapshot
from tests.support.images.printing_image import push
from tests.support.publisher.host import Host, run_as

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

BLOCKED, UNTRUSTED = 1, 4
"""Exit statuses of the resolver."""


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    return Host(shared_path, registry)


def resolve(host: Host, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Resolve as an execution point does, with its cache and the trusted keys in ``ep-keys``."""
    places = [f"--repository={host.repository}", f"--origin={host.origin}", f"--cache={host.where / 'cache'}"]
    argv = [
        sys.executable,
        "-m",
        "publisher.resolver",
        "resolve",
        name,
        *places,
        f"--public-key={host.where / 'ep-keys'}",
        *flags,
    ]
    return run_as(argv, None, host.where)


def give(host: Host, *keys: Path) -> None:
    """Replace the public keys that the execution point trusts."""
    there = host.where / "ep-keys"
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir()
    for key in keys:
        shutil.copy(f"{key}.pub", there)


def test_a_blocked_image_is_refused_by_every_name_for_it_and_from_a_warm_cache(host: Host, registry: RegistryServer) -> None:
    digest = push(registry, "takedown/bad:1", "bad")
    assert push(registry, "takedown/bad:latest", "bad") == digest
    push(registry, "takedown/good:1", "good")
    host.images("takedown/bad:1", "takedown/bad:latest", "takedown/good:1")
    host.sync()
    give(host, host.key)
    sif, sandbox = host.sif("takedown/bad:1"), (host.repository / "takedown/bad:1").resolve()
    handed_out = [
        "takedown/bad:1",
        "takedown/bad:latest",
        f"docker://{registry.address}/takedown/bad:1",
        digest,
        f"sha256:{sif.stem}",
        str(sandbox),
        str(host.repository / "takedown/bad:1"),
    ]
    warm = resolve(host, "takedown/bad:1", "--form=sif")
    assert warm.returncode == 0, warm.stderr
    assert all(resolve(host, name).returncode == 0 for name in handed_out)

    done = host.run("block", "takedown/bad:1", "--reason=it steals tokens", check=True)
    assert done.stdout.splitlines() == ["blocked: takedown/bad:1", "blocked: takedown/bad:latest"]
    for name in handed_out:
        for form in ("auto", "sif"):
            refused = resolve(host, name, f"--form={form}")
            assert (refused.returncode, refused.stdout) == (BLOCKED, ""), name
            assert "it steals tokens" in refused.stderr
    assert os.path.exists(warm.stdout.strip()), "the copy is there, and not given out"  # noqa: PTH110 - a path that was printed
    assert not sandbox.exists()
    assert not sif.exists()
    assert sorted(path.name for path in (host.repository / "takedown").iterdir()) == ["good:1"]
    assert resolve(host, "takedown/good:1").returncode == 0

    assert host.sync().results["takedown/bad:1"] == "blocked", "the list's entry notwithstanding"
    assert resolve(host, "takedown/bad:1").returncode == BLOCKED
    assert host.run("verify").stdout == ""
    blocked = host.run("status", "takedown/bad:1")
    assert (blocked.returncode, "it steals tokens" in blocked.stdout) == (1, True)

    host.run("unblock", "takedown/bad:1", check=True)
    assert host.sync().results["takedown/bad:1"] == "published"
    assert resolve(host, "takedown/bad:1").stdout == f"{sandbox}\n"
    assert host.run("unblock", "takedown/bad:1").returncode == 2


def test_the_drill_for_a_stolen_key(host: Host, registry: RegistryServer) -> None:
    """docs/keys.md, "A stolen key", step by step."""
    push(registry, "takedown/key:1", "mine")
    host.images("takedown/key:1")
    host.sync()
    give(host, host.key)
    assert resolve(host, "takedown/key:1").returncode == 0
    forge(host)
    assert resolve(host, "takedown/key:1").returncode == BLOCKED, (
        "the thief's manifest has the highest serial: nothing is published"
    )

    stolen, host.key = host.key, host.where / "new.pem"
    host.run("keys", "new", check=True)
    give(host, host.key)
    refused = resolve(host, "takedown/key:1")
    assert (refused.returncode, refused.stdout) == (UNTRUSTED, ""), "the old key's manifests count no more, the kept copy too"
    assert "takedown/key:1" in host.run("status", "takedown/key:1", check=True).stdout
    without = host.run("sync")
    assert without.returncode == 4
    assert "not signed by this publisher's key" in without.stderr

    report = host.sync(f"--trusted-keys={stolen}.pub")
    assert report.results == {"takedown/key:1": "unchanged"}
    index = host.index()
    assert index is not None
    assert index.serial >= 1000, "above the thief's"
    assert any("the origin has a manifest (serial 999)" in note for note in report.said["notes"])
    answer = resolve(host, "takedown/key:1")
    assert answer.returncode == 0, answer.stderr
    assert host.index(origin=True) is not None
    after = host.sync()
    assert after.status == 0, "and the old key is needed no more"
    assert after.said["serial"] == index.serial
    give(host, stolen)
    assert resolve(host, "takedown/key:1").returncode == UNTRUSTED


def forge(host: Host) -> None:
    """Store an empty manifest with a serial far ahead in the origin, as a thief with the key could."""
    index = host.index()
    assert index is not None
    revision = snapshots.make_revision(Snapshot(host.repository.name), Signer(host.key), serial=999, now=index.generated)
    (host.origin / "manifest" / manifest.INDEX_NAME).write_bytes(revision.index)
