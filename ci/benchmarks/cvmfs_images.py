"""The images of ``ci/bench cvmfs``: about 60,000 files, 200 MB compressed, and a second version with 30 other files.

Each contestant gets images of its own, of which no file is the same as another's, so that nobody profits from what is stored
already. They stay in the storage of the benchmark's registry: only the first run makes them, which takes some minutes.
"""

from __future__ import annotations

import io
import os
import random
import tarfile
from typing import TYPE_CHECKING

from ci.benchmarks.bench_image import BASE, unpacked_layers
from ci.demo import debian
from publisher.resolver.config.machine import go_name
from tests.support.images.layers import file, tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import OCI, ask, push_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHANGED = 30  # files
_FOUND = 200
_FILES = 60_000
_IN_DIRECTORY = 20  # files
_DENSE, _THIN = 3300, 2700  # bytes of each small file that cannot be compressed, and that can
_NEW = 3300  # bytes of a changed file
_PACKAGES = (
    BASE,
    ("git", "golang-1.19-src", "make", "perl"),
    ("libboost-dev", "libeigen3-dev"),
    ("python3-astropy", "python3-pandas", "python3-sympy"),
    ("linux-headers-amd64",),
)


def ensure(kind: str, address: str, who: str) -> str:
    """Push both versions of a contestant's image, tagged ``v1`` and ``v2``, if they are not there; return their repository.

    Args:
        kind: a key of :data:`KINDS`.
        address: host and port of the registry.
        who: the contestant.

    Raises:
        UsageError: packages cannot be downloaded.
    """
    repository = f"{kind}/{who}"
    headers = {"Accept": OCI["manifest"]}
    if ask(address, "HEAD", f"/v2/{repository}/manifests/v2", headers=headers).status != _FOUND:
        layers = KINDS[kind](who)
        names = _changed_names(layers)
        for version, changed in (("v1", ()), ("v2", names)):
            top = tar([file("etc/motd", who.encode()), *(file(name, random.Random(name).randbytes(_NEW)) for name in changed)])
            push_image(address, repository, version, [*layers, top], {"Cmd": ["sh"]})
    return repository


def changed_files(top: bytes) -> dict[str, bytes]:
    """Return name -> content of the files that the second version changes, from its uncompressed top layer."""
    with tarfile.open(fileobj=io.BytesIO(top)) as archive:
        members = [member for member in archive if member.name != "etc/motd"]
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]  # they are files


def _debian(who: str) -> list[bytes]:
    """Return layers of Debian's packages: a base, tools and sources, header libraries, a scientific Python, kernel headers."""
    packages = debian.Packages(debian.cache_directories(os.environ))
    return [_marked(layer, who.encode()) for layer in unpacked_layers(_PACKAGES, packages, go_name(os.uname().machine))]


def _small_files(who: str) -> list[bytes]:
    """Return a small base, and a layer of files that have 6 kB each: no image has so many, each of which costs a while."""
    dice, thin = random.Random(who), bytes(_THIN)
    files = (file(f"opt/software/d{n // _IN_DIRECTORY}/f{n}", dice.randbytes(_DENSE) + thin) for n in range(_FILES))
    return [tar(runnable()), tar(files)]


KINDS: dict[str, Callable[[str], list[bytes]]] = {"debian": _debian, "small-files": _small_files}
"""Name -> makes the layers of a contestant's image, from the bottom up, uncompressed."""


def _marked(layer: bytes, mark: bytes) -> bytes:
    """Return a layer with a mark at the end of each file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(layer)) as source, tarfile.open(fileobj=out, mode="w|") as target:
        for member in source:
            if not member.isreg():
                target.addfile(member)
                continue
            content = source.extractfile(member).read() + mark  # type: ignore[union-attr]  # it is a file
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _changed_names(layers: Sequence[bytes]) -> list[str]:
    """Return names of files of the largest layer, spread over it."""
    with tarfile.open(fileobj=io.BytesIO(max(layers, key=len))) as archive:
        names = [member.name for member in archive if member.isreg()]
    return names[:: len(names) // CHANGED][:CHANGED]
