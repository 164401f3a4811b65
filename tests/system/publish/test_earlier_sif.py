"""A new version whose SIF is copied, for the most part, from the one before: the same bytes as without it."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest

from publisher.build.sif import DATA_OFFSET
from tests.support.images.layers import file, tar
from tests.support.images.printing_image import ENTRYPOINT, said_by
from tests.support.images.runnable import runnable
from tests.support.publisher.host import Host
from tests.support.registries.registry import RegistryServer, push_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

LIBRARY = tar([file(f"usr/lib/{number}", random.Random(number).randbytes(5000 * number)) for number in range(60)])


def push(registry: RegistryServer, version: str) -> None:
    top = tar([file("etc/motd", f"{version}\n".encode()), file(f"usr/lib/{version}", version.encode() * 1000)])
    push_image(registry.address, "sync/grows", "1", [tar(runnable()), LIBRARY, top], ENTRYPOINT)


def synced(host: Host) -> str:
    """Let a run publish the image's present version; return its log."""
    host.images("sync/grows:1")
    done = host.run("sync", "-vv")
    assert done.returncode == 0, done.stderr
    return done.stderr


def new_host(where: Path, registry: RegistryServer) -> Host:
    where.mkdir()
    return Host(where, registry)


def test_the_next_versions_sif_is_copied_from_the_one_before_and_is_as_one_built_alone(
    registry: RegistryServer, shared_path: Path
) -> None:
    host, other = new_host(shared_path / "host", registry), new_host(shared_path / "other", registry)
    push(registry, "one")
    assert "were copied" not in synced(host)
    before = host.sif("sync/grows:1")
    push(registry, "two")
    copied = re.search(r"(\d+) bytes were copied from ", synced(host))
    assert copied is not None
    assert int(copied[1]) > 0.8 * before.stat().st_size
    synced(other)
    assert host.sif("sync/grows:1").read_bytes() == other.sif("sync/grows:1").read_bytes()
    assert said_by(host.sif("sync/grows:1"), host).endswith("\ntwo\n")


def test_damage_of_the_earlier_sif_does_not_get_into_the_next(registry: RegistryServer, shared_path: Path) -> None:
    host, other = new_host(shared_path / "host", registry), new_host(shared_path / "other", registry)
    push(registry, "one")
    synced(host)
    before = host.sif("sync/grows:1")
    content = bytearray(before.read_bytes())
    middle = DATA_OFFSET + (len(content) - DATA_OFFSET) // 2
    content[middle : middle + 5000] = bytes(5000)
    before.chmod(0o644)
    before.write_bytes(content)
    push(registry, "two")
    log = synced(host)
    assert "nothing is copied from" in log or "the SIF is made again after try 1 of 3" in log
    synced(other)
    assert host.sif("sync/grows:1").read_bytes() == other.sif("sync/grows:1").read_bytes()


def test_an_entry_that_had_no_sif_has_nothing_to_copy(registry: RegistryServer, shared_path: Path) -> None:
    host = new_host(shared_path / "host", registry)
    push(registry, "one")
    host.images({"image": "sync/grows:1", "formats": ["sandbox"]})
    host.sync()
    push(registry, "two")
    assert "were copied" not in synced(host)
