"""The publication log with the real command line, and a git repository as its witness."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.state.publication_log import entry_name
from tests.support.images.printing_image import push
from tests.support.publisher.host import Host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

IMAGE = "log/image:1"


def test_what_was_published_and_blocked_is_told_and_verified(shared_path: Path, registry: RegistryServer) -> None:
    host = Host(shared_path, registry)
    bare = shared_path / "witness.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", bare], check=True)
    flags = [*host.flags(), f"--witness=git:{bare}", "--operator=the operators"]
    digest = push(registry, IMAGE)
    host.images(IMAGE)
    host.run("sync", flags=flags, check=True)
    host.run("block", IMAGE, "--reason=it steals tokens", flags=flags, check=True)

    shown = host.run("log", "show", "--json", IMAGE, check=True).stdout.splitlines()
    changes = [json.loads(line) for line in shown]
    assert [(change["why"], change["digest"]) for change in changes] == [("new", digest), ("block", digest)]
    published, blocked = (change["serial"] for change in changes)
    assert 0 < published < blocked
    assert {change["who"] for change in changes} == {"the operators"}
    assert changes[1]["reason"] == "it steals tokens"
    assert "block (it steals tokens)" in host.run("log", "show", check=True).stdout
    verified = host.run("log", "verify", flags=flags)
    assert (verified.returncode, verified.stdout) == (0, "")

    entry = host.repository / ".publisher" / entry_name(blocked)
    entry.write_bytes(entry.read_bytes().replace(b"the operators", b"somebody else"))
    found = host.run("log", "verify", flags=flags)
    assert found.returncode == 1
    assert f"{entry_name(blocked)} was changed" in found.stdout
