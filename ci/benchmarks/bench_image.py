"""The image of the build benchmark, made from Debian's packages like an image of somebody who runs simulations.

It has a small base, compilers, header libraries, a scientific Python with its documentation, and a last layer that removes and
replaces files. It stays in the storage of the benchmark's registry, so that only the first run makes it.
"""

from __future__ import annotations

import http.client
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ci.demo.layer import Layer
from tests.support.registries.registry import OCI, ask, push_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ci.demo.debian import Packages

BASE = ("bash", "coreutils", "dash", "findutils", "grep", "sed")


@dataclass(frozen=True)
class Size:
    """The size of an image.

    Attributes:
        repository: the image's repository in the registry; the tag is 1.
        layers: packages of each layer, from the bottom up; a layer has only the packages that lower layers do not have.
    """

    repository: str
    layers: tuple[tuple[str, ...], ...]


SIZES = {
    "large": Size(
        "bench/large",
        (
            BASE,
            ("g++", "gcc", "gfortran", "git", "make", "perl"),
            ("libboost-dev", "libeigen3-dev"),
            ("python3-matplotlib", "python3-pandas", "python3-scipy"),
        ),
    ),
    "small": Size("bench/small", (BASE, ("python3-minimal",))),
}


def ensure(size: Size, packages: Packages, architecture: str, address: str) -> None:
    """Make the image and push it to the registry at ``address``, if it is not there yet.

    Raises:
        UsageError: packages cannot be downloaded.
    """
    response = ask(address, "HEAD", f"/v2/{size.repository}/manifests/1", headers={"Accept": OCI["manifest"]})
    if response.status != http.client.OK:
        layers = [*unpacked_layers(size.layers, packages, architecture), _changes()]
        push_image(address, size.repository, "1", layers, {"Cmd": ["sh"]}, platform=f"linux/{architecture}")


def unpacked_layers(names: Sequence[Sequence[str]], packages: Packages, architecture: str) -> list[bytes]:
    """Return a layer for each group of packages, from the bottom up, without the packages that lower layers have.

    Raises:
        UsageError: packages cannot be downloaded.
    """
    present: set[str] = set()
    layers: list[bytes] = []
    for group in names:
        new = [path for path in packages.fetch(group, architecture) if path.name not in present]
        present.update(path.name for path in new)
        layers.append(_unpacked(new, first=not layers))
    return layers


def _unpacked(packages: list[Path], *, first: bool) -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        out.packages(packages, documentation=True)
        if first:
            out.symlink("usr/bin/sh", "dash")
        out.directory("var")
        out.file(f"var/layer-of-{packages[-1].stem}", "here\n")
    return layer.getvalue()


def _changes() -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        for name in ("etc", "usr", "usr/share", "usr/share/doc"):
            out.directory(name)
        out.whiteout("usr/share/doc/sed")
        out.opaque("usr/share/doc/bash")
        out.file("usr/share/doc/bash/README", "left out\n")
        out.file("etc/motd", "An image to measure with.\n")
    return layer.getvalue()
