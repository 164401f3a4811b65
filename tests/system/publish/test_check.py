"""``publisher check`` as a pull request's workflow runs it: a git checkout, a real registry, the command in its own process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import git
import pytest

from tests.support.images.layers import file, tar
from tests.support.publisher.host import Host
from tests.support.registries.registry import free_port, push_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system


class Change:
    """A checkout of the list's repository, and a change to it."""

    def __init__(self, where: Path, registry: RegistryServer) -> None:
        self.host = Host(where, registry)
        self.repository = git.Repo.init(where)
        with self.repository.config_writer() as config:
            config.set_value("user", "name", "Test")
            config.set_value("user", "email", "test@example.org")

    def base(self, *entries: str) -> None:
        self.host.images(*entries)
        self.repository.index.add(["images.yaml"])
        self.repository.index.commit("base")

    def check(self, *arguments: str) -> CompletedProcess[str]:
        return self.host.run(
            "check", *arguments, flags=[f"--state={self.host.state}", f"--insecure-registry={self.host.registry.address}"]
        )


@pytest.fixture
def change(shared_path: Path, registry: RegistryServer) -> Iterator[Change]:
    made = Change(shared_path, registry)
    yield made
    made.repository.close()  # it has processes at work


def push(registry: RegistryServer, name: str, platform: str = "linux/amd64") -> None:
    repository, _, tag = name.partition(":")
    push_image(registry.address, repository, tag, [tar([file("content", name.encode())])], platform=platform)


def test_only_changed_entries_are_checked_and_sound_ones_are_reported(change: Change, registry: RegistryServer) -> None:
    change.base("check/old:1")
    push(registry, "check/new:1")
    change.host.images("check/old:1", "check/new:1")
    registry.requests()
    done = change.check("--base=HEAD")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fine: check/new:1: check/new:1 (amd64;" in done.stdout
    assert "1 fine" in done.stdout
    assert not [request for request in registry.requests() if "check/old" in request.path]
    assert not change.host.repository.exists(), "a check publishes nothing"


def test_a_wrong_entry_is_annotated_at_its_line_and_listed_in_the_summary(change: Change, registry: RegistryServer) -> None:
    change.base("check/old:1")
    push(registry, "check/arm:1", "linux/arm64")
    down = f"127.0.0.1:{free_port()}/check/down:1"
    change.host.list.write_text(
        "version: 1\ngroups:\n  - title: Test\n    images:\n"
        f"      - {registry.address}/check/old:1\n"
        f"      - {registry.address}/check/missing:1\n"
        f"      - {registry.address}/check/arm:1\n"
        f"      - {down}\n"
    )
    done = change.check("--base=HEAD", "--format=github", "--summary=summary.md")
    assert done.returncode == 1
    errors = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert [line.partition("::")[2].partition("::")[0] for line in errors] == [
        "error file=images.yaml,line=6",
        "error file=images.yaml,line=7",
    ]
    assert "linux/arm64" in errors[1]
    (warning,) = [line for line in done.stdout.splitlines() if line.startswith("::warning")]
    assert "line=8" in warning
    summary = (change.host.where / "summary.md").read_text()
    assert "| `check/missing:1` | **wrong**" in summary
    assert "| `check/down:1` | could not tell" in summary


def test_a_registry_that_is_down_is_no_failure(change: Change) -> None:
    change.base("check/old:1")
    change.host.list.write_text(f"version: 1\ngroups: [{{title: Test, images: ['127.0.0.1:{free_port()}/check/down:1']}}]\n")
    done = change.check("--all")
    assert done.returncode == 0
    assert "could not tell" in done.stdout


def test_a_list_that_cannot_be_read_is_annotated_too(change: Change) -> None:
    change.base("check/old:1")
    change.host.list.write_text("version: 1\ngroups:\n  - title: Test\n    images:\n      - UPPER/case:1\n")
    done = change.check("--base=HEAD", "--format=github", "--summary=summary.md")
    assert done.returncode == 2
    assert ",line=5::" in done.stdout
    assert "images.yaml:5:" in (change.host.where / "summary.md").read_text()


def test_wildcards_are_judged_by_the_existing_tags(change: Change, registry: RegistryServer) -> None:
    change.base("check/old:1")
    for tag in ("1.0", "1.1"):
        push(registry, f"check/wild:{tag}")
    change.host.images("check/old:1", "check/wild:1.*", "check/wild:7.*")
    done = change.check("--base=HEAD", "--json")
    assert done.returncode == 1
    found = {entry["name"].partition("/")[2]: entry["verdict"] for entry in json.loads(done.stdout)["entries"]}
    assert found["check/wild:1.*"] == "fine"
    assert found["check/wild:7.*"] == "wrong"
    names = {entry["name"] for entry in json.loads(done.stdout)["entries"]}
    assert {"check/wild:1.0", "check/wild:1.1"} <= names


def test_an_owner_beyond_the_quota_is_reported_at_the_line(change: Change, registry: RegistryServer) -> None:
    change.base("check/old:1")
    for name in ("check/one:1", "check/two:1"):
        push(registry, name)
    (change.host.where / "publisher.yaml").write_text("quotas: {me: {images: 1}}\n")
    change.host.images(*({"image": f"check/{name}:1", "owner": "me"} for name in ("one", "two")))
    done = change.check("--base=HEAD", "--config=publisher.yaml")
    assert done.returncode == 1
    assert "wrong: quota: the images of 'me' number 2, but the quota is 1" in done.stdout


def test_which_revision_must_be_said(change: Change) -> None:
    change.base("check/old:1")
    assert change.check().returncode == 2
    assert change.check("--all", "--base=HEAD").returncode == 2
    done = change.check("--base=nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
