"""Adoption of a repository that cvmfs-singularity-sync has laid out, with a real registry."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.images.printing_image import push
from tests.support.images.trees import snapshot
from tests.support.publisher.host import Host, run_as
from tests.support.registries.registry import OCI, RegistryServer, ask, push_index

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    return Host(shared_path, registry)


def hash_of_layers(registry: RegistryServer, repository: str, digest: str) -> str:
    """Return the hash that the older tool computes from the image manifest."""
    got = ask(registry.address, "GET", f"/v2/{repository}/manifests/{digest}", headers={"Accept": OCI["manifest"]})
    layers = [layer["digest"].partition(":")[2] for layer in json.loads(got.body)["layers"]]
    return hashlib.sha256("".join(layers).encode()).hexdigest()


def laid_out(host: Host, name: str, content: str, index: bool = False) -> Path:
    """Make what the older tool leaves of an image: a directory named by its hash, and an absolute link."""
    sandbox = f".images/{'sha256:' if index else ''}{content[:2]}/{content[2:]}"
    where = host.repository / sandbox
    (where / "etc").mkdir(parents=True, exist_ok=True)
    (where / "etc/motd").write_text(f"{name} by the older tool\n")
    link = host.repository / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"/cvmfs/{host.repository.name}/{sandbox}")
    return where


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def resolve(host: Host, name: str) -> str:
    flags = [f"--repository={host.repository}", f"--origin={host.origin}", f"--public-key={host.key}.pub"]
    done = run_as([sys.executable, "-m", "publisher.resolver", "resolve", name, *flags], None, host.where)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def current(host: Host, name: str, platform: str = "amd64") -> tuple[str, str | None, bool]:
    version = host.record(name).current(platform)
    assert version is not None
    return version.digest, version.sandbox, version.sif is not None


def test_a_current_image_is_adopted_without_a_build_and_gets_its_sif_later(host: Host, registry: RegistryServer) -> None:
    digests = {name: push(registry, f"adopt/{name}:1", name) for name in ("one", "two")}
    olds = {
        name: laid_out(host, f"adopt/{name}:1", hash_of_layers(registry, f"adopt/{name}", digest))
        for name, digest in digests.items()
    }
    parts = {platform: push(registry, "adopt/many:", platform, platform) for platform in ("linux/amd64", "linux/arm64")}
    index = push_index(registry.address, "adopt/many", "1", parts, attested=True)
    olds["many"] = laid_out(host, "adopt/many:1", index.partition(":")[2], index=True)
    digests["many"] = parts["linux/amd64"]
    host.images("adopt/one:1", "adopt/two:1", "adopt/many:1")
    before = snapshot(host.repository)

    shown = host.run("adopt", check=True)
    assert shown.stdout == "would be adopted (add --apply to do it): 3 current\n"
    assert snapshot(host.repository) == before
    assert not host.origin.exists()
    taken = host.run("adopt", "--apply", check=True)
    assert taken.stdout == "adopted: 3 current\n"
    after = {path: content for path, content in snapshot(host.repository).items() if not path.startswith(".publisher")}
    assert after == before, "the older tool could go on, and its users notice nothing"
    assert host.run("adopt", "--apply", check=True).stdout == "adopted: no links\n"
    assert host.run("verify").stdout == ""
    for name, old in olds.items():
        assert current(host, f"adopt/{name}:1") == (digests[name], str(old.relative_to(host.repository)), False)
        assert resolve(host, f"/cvmfs/{host.repository.name}/{old.relative_to(host.repository)}") == str(old), (
            "hard-coded in jobs"
        )
        assert resolve(host, f"docker://{registry.address}/adopt/{name}:1") == str(old)

    made = []
    for _ in digests:
        report = host.sync("--adopt-sifs-per-run=1")
        made += [name for name, result in report.results.items() if result == "published"]
    assert sorted(made) == ["adopt/many:1", "adopt/one:1", "adopt/two:1"], "one in each run"
    assert set(host.sync("--adopt-sifs-per-run=1").results.values()) == {"unchanged"}
    for name, old in olds.items():
        assert current(host, f"adopt/{name}:1") == (digests[name], str(old.relative_to(host.repository)), True)
        assert (host.repository / f"adopt/{name}:1").samefile(old)
    assert set((host.repository / ".images").glob("*/*")) == set(olds.values()), "nothing is unpacked anew"
    assert host.run("verify").stdout == ""


def test_an_outdated_image_keeps_its_name_until_a_sync_replaces_or_removes_it(host: Host, registry: RegistryServer) -> None:
    moved = push(registry, "adopt/moved:1", "new")
    olds = {name: laid_out(host, f"adopt/{name}:1", sha256(name)) for name in ("moved", "dead", "unlisted")}
    (host.repository / "adopt/nowhere:1").symlink_to(f"/cvmfs/{host.repository.name}/.images/00/{'1' * 62}")
    host.images("adopt/moved:1", "adopt/dead:1")
    taken = host.run("adopt", "--apply", check=True).stdout.splitlines()
    assert taken[-1] == "adopted: 2 not current, 1 not in the list, 1 dangling"
    assert sorted(line.partition(":")[0] for line in taken[:-1]) == ["dangling", "not current", "not current", "not in the list"]
    for name, old in olds.items():
        assert resolve(host, f"adopt/{name}:1") == str(old)

    report = host.sync("--allow-mass-removal")
    assert report.results == {"adopt/moved:1": "published", "adopt/dead:1": "gone"}
    assert sorted(one["name"] for one in report.said["removals"]) == ["adopt/dead:1", "adopt/unlisted:1"]
    assert (host.repository / "adopt/moved:1/etc/motd").read_text() == "new\n"
    assert os.readlink(host.repository / "adopt/moved:1").startswith("../.images/")  # noqa: PTH115 - its text
    states = [(version.digest, version.state) for version in host.record("adopt/moved:1").platforms["amd64"]]
    assert states == [(moved, "current"), (f"sha256:{sha256('moved')}", "superseded")]
    assert olds["moved"].is_dir(), "for the jobs that run in it"
    assert host.run("verify").stdout.splitlines() == ["adopt/nowhere:1: the manifest has no image for this link"]


def test_images_of_a_registry_that_is_down_are_adopted_by_a_later_run(host: Host, shared_path: Path) -> None:
    with RegistryServer(shared_path / "registry") as registry:
        host.registry = registry
        digest = push(registry, "adopt/late:1", "late")
        laid_out(host, "adopt/late:1", hash_of_layers(registry, "adopt/late", digest))
        host.images("adopt/late:1")
    laid_out(host, "adopt/unlisted:1", sha256("unlisted"))
    cut = host.run("adopt", "--apply")
    assert cut.returncode == 1
    assert cut.stdout.splitlines()[-1] == "adopted: 1 not in the list, 1 could not tell"
    index = host.index()
    assert index is not None
    assert index.shard_for("adopt/late:1") is None
    with RegistryServer(shared_path / "registry", port=host.registry.port):
        assert host.run("adopt", "--apply", check=True).stdout == "adopted: 1 current\n"
    assert current(host, "adopt/late:1")[0] == digest
    laid_out(host, "adopt/later:1", sha256("later"))
    host.images("adopt/late:1", "adopt/later:1")
    anyway = host.run("adopt", "--apply", "--anyway", check=True)
    assert anyway.stdout.splitlines()[-1] == "adopted: 1 could not tell"
    assert current(host, "adopt/later:1")[0] == f"sha256:{sha256('later')}"


def test_an_adoption_is_taken_back_until_something_of_it_was_removed(host: Host, registry: RegistryServer) -> None:
    stays = push(registry, "undo/stays:1", "stays")
    olds = {
        "stays": laid_out(host, "undo/stays:1", hash_of_layers(registry, "undo/stays", stays)),
        "moved": laid_out(host, "undo/moved:1", sha256("moved")),
    }
    push(registry, "undo/moved:1", "new")
    host.images("undo/stays:1", "undo/moved:1")
    for flags, said in (([], "no published image was adopted"), (["--anyway"], "leave out --anyway")):
        refused = host.run("adopt", "--undo", *flags)
        assert (refused.returncode, said in refused.stderr) == (2, True)
    for _ in range(2):  # it can be done again after it was taken back
        host.run("adopt", "--apply", check=True)
        assert set(host.sync().results.values()) == {"published"}
        assert (host.repository / "undo/moved:1/etc/motd").read_text() == "new\n"
        before = snapshot(host.repository)
        shown = host.run("adopt", "--undo", check=True).stdout.splitlines()
        assert shown[-1] == "would be undone (add --apply to do it): 2 adopted name(s)"
        assert snapshot(host.repository) == before
        done = host.run("adopt", "--undo", "--apply", check=True).stdout.splitlines()
        assert done == [*shown[:-1], "undone: 2 adopted name(s)"]
        for name, old in olds.items():
            link = os.readlink(host.repository / f"undo/{name}:1")  # noqa: PTH115 - its text
            assert link.endswith(str(old.relative_to(host.repository)))
            assert (old / "etc/motd").read_text() == f"undo/{name}:1 by the older tool\n"
        gone = host.run("status", "undo/stays:1")
        assert (gone.returncode, "undo/stays:1: waiting" in gone.stdout) == (1, True)
        index = host.index(origin=True)
        assert index is not None
        assert not any(index.shards), "nor in the origin's manifest"
    host.run("adopt", "--apply", check=True)
    host.run("block", "undo/moved:1", "--reason", "stolen data", check=True)
    late = host.run("adopt", "--undo", "--apply")
    assert late.returncode == 2
    assert "a build of undo/moved:1 was removed" in late.stderr
