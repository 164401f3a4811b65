"""A small image that prints a text, and its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.images.layers import directory, file, hardlink, tar
from tests.support.images.runnable import runnable
from tests.support.publisher.host import ORDINARY, Host, run_as
from tests.support.registries.registry import RegistryServer, push_image

if TYPE_CHECKING:
    from pathlib import Path

ENTRYPOINT = {
    "Env": ["PATH=/bin", "GREETING=good day"],
    "Entrypoint": ["/bin/sh", "-c", 'echo "$GREETING, $0 $*"; cat /etc/motd'],
    "Cmd": ["everybody"],
    "Labels": {"org.example.purpose": "test"},
}


def push(registry: RegistryServer, name: str, text: str = "content", platform: str = "linux/amd64") -> str:
    """Push a small image that prints ``text``; return its digest."""
    repository, _, tag = name.partition(":")
    top = tar([directory("etc"), file("etc/motd", f"{text}\n".encode()), hardlink("etc/again", "etc/motd")])
    return push_image(registry.address, repository, tag, [tar(runnable()), top], ENTRYPOINT, platform=platform)


def said_by(image: Path, host: Host, *arguments: str) -> str:
    done = run_as(["apptainer", "--silent", "run", "--containall", str(image), *arguments], ORDINARY, host.where)
    assert done.returncode == 0, done.stderr
    return done.stdout
