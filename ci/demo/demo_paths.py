"""The paths of the demonstration, and the two configuration files that name them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = "demo.ospool"
"""The name of the repository: users write ``/cvmfs/demo.ospool/demo/multi:1``."""

_PUBLISHER = """\
# The publisher's configuration of ci/quickstart; relative paths are relative to this file.
images: images.yaml
repository: cvmfs
repository_name: {name}
origin: osdf
state: state
key: keys/signing.pem
insecure_registry: {registries}
"""
_RESOLVER = """\
# The configuration of an execution point; relative paths are relative to this file.
[resolver]
repository = cvmfs
repository-name = {name}
origin = osdf
public-key = keys/signing.pem.pub
cache = cache
"""


class DemoPaths:
    """The paths of the demonstration, all below one directory.

    Attributes:
        root: the directory.
        repository: a directory in place of a CVMFS repository.
        origin: a directory in place of an origin of the OSDF.
        state: blobs and unfinished builds of the publisher.
        key: the private key.
        registry: storage of the local registry.
        homes: home directories of the accounts that resolve and run images.
        images: the image list.
        publisher: the publisher's configuration.
        resolver: the resolver's configuration.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = root / "cvmfs"
        self.origin = root / "osdf"
        self.state = root / "state"
        self.key = root / "keys" / "signing.pem"
        self.registry = root / "registry"
        self.homes = root / "homes"
        self.images = root / "images.yaml"
        self.publisher = root / "publisher.yaml"
        self.resolver = root / "resolver.ini"

    def prepare(self) -> None:
        """Create the directories that the programs do not create."""
        self.key.parent.mkdir(parents=True, exist_ok=True)
        self.homes.mkdir(exist_ok=True)

    def configure(self, images: Sequence[tuple[str, Sequence[str]]], registries: Sequence[str]) -> None:
        """Write the image list and both configuration files.

        Args:
            images: references with their platforms; no platforms for the defaults.
            registries: registries that are contacted by http instead of https.
        """
        lines = ["# Written by ci/quickstart.", "version: 1", "groups:", "  - title: Demonstration", "    images:"]
        for reference, platforms in images:
            lines.append(f"      - image: {json.dumps(reference)}")  # a JSON string is a YAML string
            if platforms:
                lines.append(f"        platforms: [{', '.join(platforms)}]")
        self.images.write_text("\n".join(lines) + "\n")
        self.publisher.write_text(_PUBLISHER.format(name=NAME, registries=json.dumps(list(registries))))
        self.resolver.write_text(_RESOLVER.format(name=NAME))


def size(directory: Path) -> int:
    """Return the bytes of all files below a directory; hard links count once, symbolic links are not followed."""
    inodes: dict[tuple[int, int], int] = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        if not path.is_dir() or path.is_symlink():
            inodes[status.st_dev, status.st_ino] = status.st_size
    return sum(inodes.values())


def format_size(count: int) -> str:
    """Return a number of bytes as text."""
    return f"{count / 1e6:,.1f} MB"
