"""The main job on real parts: docker-registry, Apptainer, mksquashfs; the command line in its own process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from publisher.contract import files
from tests.support.images.layers import directory, file, tar
from tests.support.images.printing_image import ENTRYPOINT, push, said_by
from tests.support.images.runnable import runnable
from tests.support.publisher.host import Host
from tests.support.registries.registry import (
    OCI,
    RegistryServer,
    ask,
    describe,
    push_blob,
    push_image,
    push_index,
    push_manifest,
    read_manifest,
    sha256,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    return Host(shared_path, registry)


def test_both_forms_run_the_images_own_entrypoint_as_an_ordinary_user(host: Host, registry: RegistryServer) -> None:
    push(registry, "sync/both:1", "in both")
    host.images("sync/both:1")
    report = host.sync()
    assert report.results == {"sync/both:1": "published"}
    for image in (host.repository / "sync/both:1", host.sif("sync/both:1")):
        assert said_by(image, host) == "good day, everybody \nin both\n"
        assert said_by(image, host, "you", "there") == "good day, you there\nin both\n"
    assert host.index() is not None
    assert host.leftovers() == []


def test_a_second_run_does_nothing_says_so_and_costs_one_head_a_reference(host: Host, registry: RegistryServer) -> None:
    push(registry, "sync/again:1", "one")
    amd64, arm64 = (push(registry, "sync/again-multi:", "two", platform) for platform in ("linux/amd64", "linux/arm64"))
    push_index(registry.address, "sync/again-multi", "2", {"linux/amd64": amd64, "linux/arm64": arm64}, attested=True)
    host.images("sync/again:1", {"image": "sync/again-multi:2", "platforms": ["linux/amd64", "linux/arm64"]})
    host.sync()
    before = (host.repository / ".publisher/index.json").read_bytes()
    registry.requests()
    second = host.run("sync", check=True)
    assert second.stdout.startswith("nothing to do: 2 unchanged")
    asked = [(request.method, request.path) for request in registry.requests()]
    assert sorted(request for request in asked if request != ("GET", "/v2/")) == [
        ("HEAD", "/v2/sync/again-multi/manifests/2"),
        ("HEAD", "/v2/sync/again/manifests/1"),
    ]
    assert asked.count(("GET", "/v2/")) <= 1, "a registry is asked once how it wants to be asked"
    assert (host.repository / ".publisher/index.json").read_bytes() == before


def test_a_changed_tag_is_rebuilt_and_the_old_data_stays(host: Host, registry: RegistryServer) -> None:
    old = push(registry, "sync/moving:1", "old")
    host.images("sync/moving:1")
    host.sync()
    old_sif, old_sandbox = host.sif("sync/moving:1"), (host.repository / "sync/moving:1").resolve()
    new = push(registry, "sync/moving:1", "new")
    report = host.sync()
    assert old[7:19] in report.reasons["sync/moving:1"]
    assert new[7:19] in report.reasons["sync/moving:1"]
    assert said_by(host.repository / "sync/moving:1", host).endswith("new\n")
    assert said_by(old_sandbox, host).endswith("old\n")
    assert said_by(old_sif, host).endswith("old\n")
    states = [(version.digest, version.state) for version in host.record("sync/moving:1").platforms["amd64"]]
    assert states == [(new, "current"), (old, "superseded")]


def test_layers_that_were_converted_to_zstd_are_published_without_a_build(host: Host, registry: RegistryServer) -> None:
    layers = [tar(runnable()), tar([directory("etc"), file("etc/motd", b"one content\n")])]

    def push_as(compression: str, name: str) -> str:
        return push_image(registry.address, name, "1", layers, ENTRYPOINT, compression=compression)

    first = push_as("gzip", "sync/zstd")
    host.images("sync/zstd:1")
    host.sync()
    before = host.sif("sync/zstd:1"), (host.repository / "sync/zstd:1").resolve()
    second = push_as("zstd", "sync/zstd")
    assert push_as("zstd", "sync/mirrored") == second != first
    host.images("sync/zstd:1", "sync/mirrored:1")
    registry.requests()
    report = host.sync()
    assert report.results == {"sync/zstd:1": "published", "sync/mirrored:1": "published"}
    described = {layer["digest"] for layer in read_manifest(registry.address, "sync/zstd", second)["layers"]}
    assert not [request.path for request in registry.requests() if request.path.rpartition("/")[2] in described], (
        "no layer is fetched"
    )
    for name in ("sync/zstd:1", "sync/mirrored:1"):
        assert (host.sif(name), (host.repository / name).resolve()) == before
        current = host.record(name).platforms["amd64"][0]
        assert (current.digest, current.config) == (
            second,
            read_manifest(registry.address, name.removesuffix(":1"), second)["config"]["digest"],
        )
    assert said_by(host.repository / "sync/mirrored:1", host).endswith("one content\n")
    assert host.run("verify").stdout == ""
    host.run("block", first, "--reason=both are one", check=True)
    assert not before[0].exists()
    assert not before[1].exists()
    assert not (host.repository / "sync").exists()


def test_an_index_gives_every_platform_that_is_asked_for(host: Host, registry: RegistryServer) -> None:
    digests = {platform: push(registry, "sync/multi:", platform, platform) for platform in ("linux/amd64", "linux/arm64")}
    push_index(registry.address, "sync/multi", "1", digests, attested=True)
    host.images({"image": "sync/multi:1", "platforms": ["linux/amd64", "linux/arm64"]})
    host.sync()
    current = {platform: versions[0] for platform, versions in host.record("sync/multi:1").platforms.items()}
    assert {f"linux/{platform}": version.digest for platform, version in current.items()} == digests
    for name, platform in (("sync/multi:1", "amd64"), (".arch/arm64/sync/multi:1", "arm64")):
        assert (host.repository / name).samefile(host.repository / str(current[platform].sandbox))
    tests = {platform: version.test for platform, version in current.items()}
    assert tests == {"amd64": "ran", "arm64": "structure"}
    header = subprocess.run(
        ["apptainer", "sif", "header", host.sif("sync/multi:1", "arm64")], capture_output=True, check=True, text=True
    )
    assert "arm64" in header.stdout


def test_plan_says_what_sync_then_does(host: Host, registry: RegistryServer) -> None:
    push(registry, "sync/planned:1")
    host.images("sync/planned:1", "sync/missing:1")
    answer = host.run("plan", "--json")
    assert answer.returncode == 1, "a cron job that only plans notices it"
    planned = json.loads(answer.stdout)
    assert {image["name"]: image["action"] for image in planned["images"]} == {
        "sync/planned:1": "new",
        "sync/missing:1": "failed",
    }
    assert not host.repository.exists(), "a plan changes nothing"
    assert host.sync(check=False).results == {"sync/planned:1": "published", "sync/missing:1": "failed"}
    assert "unchanged" in host.run("plan").stdout


def test_sync_of_names_does_just_these(host: Host, registry: RegistryServer) -> None:
    for name in ("sync/wanted:1", "sync/other:1"):
        push(registry, name)
    host.images("sync/wanted:1", "sync/other:1")
    assert host.sync("sync/wanted:1").results == {"sync/wanted:1": "published"}
    assert not (host.repository / "sync/other:1").exists()
    refused = host.run("sync", "sync/nobody:1")
    assert refused.returncode == 2
    assert "sync/nobody:1" in refused.stderr


def broken_blob(registry: RegistryServer, root: Path) -> None:
    """An image with a layer whose bytes changed on the registry's disk."""
    push(registry, "sync/damaged:1", "some bytes that nobody else has")
    top = json.loads(next(iter(_manifests(root, "sync/damaged"))))["layers"][-1]["digest"].removeprefix("sha256:")
    path = root / "storage/docker/registry/v2/blobs/sha256" / top[:2] / top / "data"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _manifests(root: Path, repository: str) -> list[bytes]:
    blobs = root / "storage/docker/registry/v2/blobs/sha256"
    revisions = root / f"storage/docker/registry/v2/repositories/{repository}/_manifests/revisions/sha256"
    return [(blobs / path.name[:2] / path.name / "data").read_bytes() for path in revisions.iterdir()]


def not_a_tar(registry: RegistryServer) -> None:
    layer = b"this is no archive " * 1000
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]}}
    ).encode()
    for blob in (layer, config):
        push_blob(registry.address, "sync/no-tar", blob)
    layers = [describe(layer, OCI["none"])]
    document = {"schemaVersion": 2, "config": describe(config, OCI["config"]), "layers": layers}
    push_manifest(registry.address, "sync/no-tar", "1", document)


def test_each_broken_image_fails_with_its_reason_and_the_others_are_published(shared_path: Path) -> None:
    with RegistryServer(shared_path / "registry") as registry:
        push(registry, "sync/good:1")
        broken_blob(registry, shared_path / "registry")
        not_a_tar(registry)
        push(registry, "sync/wrong-platform:1", platform="linux/arm64")
        host = Host(shared_path, registry)
        host.images("sync/damaged:1", "sync/no-tar:1", "sync/missing:1", "sync/wrong-platform:1", "sync/good:1")
        report = host.sync(check=False)
    assert report.status == 1
    assert report.results == {
        "sync/damaged:1": "failed",
        "sync/no-tar:1": "failed",
        "sync/missing:1": "failed",
        "sync/wrong-platform:1": "failed",
        "sync/good:1": "published",
    }
    for name, reason in {
        "sync/damaged:1": r"sha256|digest",
        "sync/no-tar:1": r"not a tar archive",
        "sync/missing:1": r"has no sync/missing:1",
        "sync/wrong-platform:1": r"linux/arm64",
    }.items():
        assert re.search(reason, report.reasons[name]), report.reasons[name]
        assert "\n" not in report.reasons[name]
    assert sorted(path.name for path in (host.repository / "sync").iterdir()) == ["good:1"]
    assert host.leftovers() == []


def test_a_registry_that_is_down_changes_nothing(host: Host, shared_path: Path) -> None:
    with RegistryServer(shared_path / "registry") as registry:
        host.registry = registry
        push(registry, "sync/kept:1", "kept")
        host.images("sync/kept:1")
        host.sync()
    before = (host.repository / ".publisher/index.json").read_bytes()
    report = host.sync(check=False)
    assert report.status == 1
    assert report.results == {"sync/kept:1": "failed"}
    assert "the published version stays" in report.reasons["sync/kept:1"]
    assert (host.repository / ".publisher/index.json").read_bytes() == before
    assert said_by(host.repository / "sync/kept:1", host).endswith("kept\n")


def test_a_malformed_list_is_refused_as_a_whole_with_every_line(host: Host) -> None:
    host.list.write_text(
        "version: 1\n"
        "groups:\n"
        "  - title: Bad ones\n"
        "    images:\n"
        "      - UPPER/case:1\n"
        "      - debian:12\n"
        "      - image: debian:13\n"
        "        platfroms: [linux/amd64]\n"
        "      - docker.io/library/debian:12\n"
    )
    done = host.run("sync")
    assert done.returncode == 2
    for line in (5, 8, 9):
        assert f"images.yaml:{line}:" in done.stderr
    assert not host.repository.exists()
    assert not host.origin.exists()
    assert not host.state.exists()


@pytest.mark.parametrize(
    ("flag", "word"),
    [("--key=missing.pem", "keys new"), ("--repository=", "--repository"), ("--images=missing.yaml", "missing.yaml")],
)
def test_wrong_settings_are_told_in_a_line_before_anything_is_done(host: Host, flag: str, word: str) -> None:
    host.images("sync/any:1")
    flags = [*(given for given in host.flags() if not given.startswith(flag.partition("=")[0])), flag]
    done = host.run("sync", flags=flags)
    assert done.returncode == 2
    assert word in done.stderr
    assert not host.repository.exists()


def test_the_second_of_two_runs_at_once_exits(host: Host, registry: RegistryServer) -> None:
    push(registry, "sync/once:1")
    host.images("sync/once:1")
    host.state.mkdir()
    with files.locked(str(host.state / "lock"), 0):
        done = host.run("sync")
    assert done.returncode == 5
    assert "another run is using" in done.stderr
    assert not host.repository.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system; nothing is tried of a full disk here")
@pytest.mark.parametrize("full", ["state", "origin", "images.example.org"])
def test_a_full_disk_leaves_nothing_half_done_and_free_space_repairs_it(host: Host, registry: RegistryServer, full: str) -> None:
    repository, tag = f"sync/big-{full}", "1"
    noise = tar([file("noise", os.urandom(24 << 20))])
    push_image(registry.address, repository, tag, [tar(runnable()), noise], ENTRYPOINT, compression="none")
    host.images(f"{repository}:{tag}")
    place = host.where / full
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "small", place], check=True)
    try:
        report = host.sync(check=False)
        assert report.status == 4
        assert "space" in report.stderr + json.dumps(report.said)
        assert host.index() is None
        assert not (host.repository / repository).exists()
        subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
        assert host.sync().results == {f"{repository}:{tag}": "published"}
        assert host.leftovers() == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_terminated_run_says_so_and_the_next_one_finishes(host: Host, registry: RegistryServer) -> None:
    push_image(registry.address, "sync/killed", "1", [tar(runnable()), tar([file("noise", os.urandom(64 << 20))])], ENTRYPOINT)
    host.images("sync/killed:1")
    argv = [sys.executable, "-m", "publisher", "sync", *host.flags()]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=host.where) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "squash" in line:
                break
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "interrupted" in rest
    assert host.index() is None
    assert host.sync().results == {"sync/killed:1": "published"}
    assert host.leftovers() == []


def test_wildcards_publish_what_matches_and_follow_the_registry(host: Host, registry: RegistryServer) -> None:
    for tag in ("1.9", "1.10", "1.11-rc1", "2.0"):
        push(registry, f"sync/wild:{tag}", tag)
    host.images({"image": "sync/wild", "tags": ["1.*"], "exclude": ["*-rc*"], "keep": 1})
    assert host.sync().results == {"sync/wild:1.10": "published"}
    push(registry, "sync/wild:1.12", "1.12")
    refused = host.sync(check=False)
    assert refused.results == {"sync/wild:1.12": "published"}
    assert refused.status == 4
    assert refused.said["removals"] == [{"name": "sync/wild:1.10", "reason": "no longer in the list"}]
    assert "--allow-mass-removal" in refused.said["withheld"]
    assert host.record("sync/wild:1.10").platforms["amd64"][0].state == "current"
    allowed = host.sync("--allow-mass-removal")
    assert allowed.said["withheld"] is None
    (leaving,) = host.record("sync/wild:1.10").platforms["amd64"]
    assert leaving.state == "expiring"
    assert said_by(host.repository / "sync/wild:1.10", host).endswith("1.10\n"), "jobs go on using it for now"
    assert host.sync().results == {"sync/wild:1.12": "unchanged"}


def test_an_image_gone_from_its_registry_expires_and_comes_back(host: Host, registry: RegistryServer) -> None:
    digest = push(registry, "sync/gone:1", "here today")
    host.images("sync/gone:1")
    host.sync()
    assert ask(registry.address, "DELETE", f"/v2/sync/gone/manifests/{digest}").status == 202
    report = host.sync("--allow-mass-removal")
    assert report.results == {"sync/gone:1": "gone"}
    assert host.record("sync/gone:1").platforms["amd64"][0].state == "expiring"
    push(registry, "sync/gone:1", "here today")
    back = host.sync()
    assert back.results == {"sync/gone:1": "published"}
    assert host.record("sync/gone:1").platforms["amd64"][0].state == "current"


def test_a_name_does_not_move_to_another_registry_without_rebind(host: Host, registry: RegistryServer, shared_path: Path) -> None:
    push(registry, "sync/bound:1", "the first")
    host.images("sync/bound:1")
    host.sync()
    with RegistryServer(shared_path / "other") as other:
        push(other, "sync/bound:1", "the other")
        flags = [*host.flags(), f"--insecure-registry={other.address}"]
        host.registry = other
        host.images("sync/bound:1")
        refused = host.run("sync", flags=flags)
        assert refused.returncode == 1
        assert "--rebind sync/bound:1" in refused.stdout
        assert said_by(host.repository / "sync/bound:1", host).endswith("the first\n")
        assert host.run("sync", "--rebind=sync/bound:1", flags=flags).returncode == 0
        assert said_by(host.repository / "sync/bound:1", host).endswith("the other\n")


def test_an_owner_beyond_the_quota_gets_no_more_images(host: Host, registry: RegistryServer) -> None:
    for name in ("sync/quota-a:1", "sync/quota-b:1"):
        push(registry, name)
    (host.where / "publisher.yaml").write_text("quotas: {default: {images: 1}}\n")
    host.images(*({"image": f"sync/quota-{one}:1", "owner": "me"} for one in "ab"))
    report = host.sync("--config=publisher.yaml", check=False)
    assert report.results == {"sync/quota-a:1": "published", "sync/quota-b:1": "failed"}
    assert "quota" in report.reasons["sync/quota-b:1"]


def test_diff_shows_what_a_new_build_of_a_name_changed(host: Host, registry: RegistryServer) -> None:
    old = push(registry, "sync/diff:1", "old")
    host.images("sync/diff:1")
    host.sync()
    new = push(registry, "sync/diff:1", "new!")
    host.sync()
    for arguments in (["sync/diff:1"], [old, new], [old, "sync/diff:1"]):
        done = host.run("diff", *arguments, check=True)
        assert "~ etc/motd (file, 5 bytes): size, content" in done.stdout.splitlines()
        assert not [line for line in done.stdout.splitlines() if "bin/" in line]
        assert "of the SIFs differ" in done.stderr
    said = json.loads(host.run("diff", "--sif", "--json", "sync/diff:1", check=True).stdout)
    assert 0 < said["needed"] <= said["size"]
    assert json.loads(host.run("diff", "--sif", "--json", old, old, check=True).stdout)["needed"] == 0
    assert host.run("diff", old, old, check=True).stdout == ""
    shown = [json.loads(line) for line in host.run("diff", "--json", "sync/diff:1", check=True).stdout.splitlines()]
    assert ("etc/motd", "~", ["size", "content"]) in [(one["path"], one["change"], one["what"]) for one in shown]
    for wrong in (["sync/nobody:1"], ["sha256:" + "0" * 64, new], ["sync/diff:1", "--arch=arm64"]):
        refused = host.run("diff", *wrong)
        assert refused.returncode == 2
        assert refused.stdout == ""
