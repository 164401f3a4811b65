"""``publisher verify``, ``status`` and ``rollback`` on a publication of real parts."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from publisher.state import paths
from tests.support.images.layers import directory, file, hardlink, symlink, tar
from tests.support.images.runnable import runnable
from tests.support.publisher.host import Host
from tests.support.registries.registry import RegistryServer, ask, push_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    return Host(shared_path, registry)


def push(registry: RegistryServer, name: str, text: str) -> str:
    repository, _, tag = name.partition(":")
    entries = [
        directory("etc"),
        file("etc/motd", f"{text}\n".encode()),
        hardlink("etc/again", "etc/motd"),
        symlink("to", "etc/motd"),
    ]
    return push_image(registry.address, repository, tag, [tar(runnable()), tar([*entries, file("etc/odd\x01 näme", b"x")])])


def test_verify_accepts_a_real_publication_and_reports_every_damage(host: Host, registry: RegistryServer) -> None:
    digest = push(registry, "verify/one:1", "one")
    host.images("verify/one:1")
    host.sync()
    well = host.run("verify")
    assert (well.returncode, well.stdout, well.stderr) == (0, "", "publisher: 0 problem(s)\n")
    without = host.run("verify", flags=[flag for flag in host.flags() if not flag.startswith("--key=")])
    assert without.returncode == 0
    assert "signature is not verified" in without.stderr
    label = f"verify/one:1 amd64 {digest}"
    motd = (host.repository / "verify/one:1").resolve() / "etc/motd"
    before, time = motd.read_bytes(), motd.stat().st_mtime
    motd.write_bytes(b"two\n")
    os.utime(motd, (time, time))
    sif = host.sif("verify/one:1")
    content = bytearray(sif.read_bytes())
    content[-1] ^= 1
    sif.write_bytes(content)
    told = host.run("verify", "--sample=5")
    assert told.returncode == 1
    assert f"{label}: 'etc/motd' has different content" in told.stdout.splitlines()
    assert f"{label}: the SIF {sif.relative_to(host.origin)} is damaged" in told.stdout.splitlines()
    motd.write_bytes(before)
    os.utime(motd, (time, time))
    sif.unlink()
    (motd.parent.parent / ".cvmfscatalog").unlink()
    assert host.run("verify", "verify/one:1").stdout.splitlines() == [
        f"{label}: the sandbox has no .cvmfscatalog",
        f"{label}: the SIF {sif.relative_to(host.origin)} is missing",
    ]
    (host.repository / paths.file_index_path(host.record("verify/one:1").platforms["amd64"][0].content)).write_bytes(b"no index")
    assert "is damaged" in host.run("verify", "verify/one:1").stdout
    assert host.run("verify", "verify/nobody:1").returncode == 2


def test_a_sif_that_the_origin_lost_comes_back_by_the_next_sync_or_by_repair(host: Host, registry: RegistryServer) -> None:
    for name in ("verify/lost:1", "verify/damaged:1"):
        push(registry, name, name)
    host.images("verify/lost:1", "verify/damaged:1")
    host.sync()
    lost, damaged = (host.sif(f"verify/{name}:1") for name in ("lost", "damaged"))
    before = {path: path.read_bytes() for path in (lost, damaged)}
    lost.unlink()
    report = host.sync()
    assert [line.partition(" ")[0] for line in report.said["restored"]] == ["verify/lost:1"]
    assert lost.read_bytes() == before[lost]
    damaged.write_bytes(bytes(len(before[damaged])))
    lost.unlink()
    assert host.run("verify", "--sample=1").returncode == 1
    repaired = host.run("verify", "--repair")
    assert (repaired.returncode, repaired.stdout) == (0, ""), repaired.stderr
    assert repaired.stderr.count("restored: the SIF of verify/") == 2
    assert {path: path.read_bytes() for path in before} == before
    assert host.leftovers() == []


def test_a_lost_sif_whose_image_is_gone_fails_the_run_and_says_what_to_do(host: Host, registry: RegistryServer) -> None:
    push(registry, "verify/gone:1", "gone")
    host.images("verify/gone:1")
    host.sync()
    record = host.record("verify/gone:1")
    digest = record.platforms["amd64"][0].digest
    push(registry, "verify/gone:1", "newer")
    assert ask(registry.address, "DELETE", f"/v2/verify/gone/manifests/{digest}").status == 202
    (host.state / "blobs").rename(host.where / "away")
    host.sif("verify/gone:1").unlink()
    report = host.sync(check=False)
    assert report.status == 4
    assert report.results == {"verify/gone:1": "published"}, "the newer image"
    (line,) = report.said["lost"]
    assert "verify/gone:1: the origin has lost its SIF (amd64), which cannot be restored:" in line
    assert f"publisher block {digest}" in line


def test_a_name_goes_back_and_forth_and_syncs_leave_it_where_it_is(host: Host, registry: RegistryServer) -> None:
    old = push(registry, "verify/back:1", "old")
    host.images("verify/back:1")
    host.sync()
    new = push(registry, "verify/back:1", "new")
    host.sync()
    motd = host.repository / "verify/back:1/etc/motd"
    rolled = host.run("rollback", "verify/back:1", check=True)
    assert "rolled back" in rolled.stdout
    assert motd.read_text() == "old\n"
    report = host.sync()
    assert (report.results, report.reasons) == ({"verify/back:1": "held"}, {"verify/back:1": "rolled back by the operator"})
    assert any("rollback --undo verify/back:1" in note for note in report.said["notes"])
    assert motd.read_text() == "old\n"
    assert host.run("verify").stdout == ""
    assert host.run("rollback", "verify/back:1").returncode == 2, "there is none before it"
    host.run("rollback", "--undo", "verify/back:1", check=True)
    assert motd.read_text() == "new\n"
    assert host.sync().reasons == {"verify/back:1": "current"}

    shown = host.run("status", "verify/back:1", check=True).stdout
    for text in (
        f"{registry.address}/verify/back:1",
        old,
        new,
        "current since",
        "(earlier) superseded since",
        str((host.repository / "verify/back:1").resolve().relative_to(host.repository)),
    ):
        assert text in shown
    (status,) = json.loads(host.run("status", "--json", "verify/back:1", check=True).stdout)
    assert [version["digest"] for version in status["record"]["platforms"]["amd64"]] == [new, old]
    nobody = host.run("status", "verify/nobody:1")
    assert (nobody.returncode, "not listed" in nobody.stdout) == (1, True)
