"""Where things stand in the repository and in the origin: names in, paths out (docs/design.md, "Names and layout").

Paths are relative to the root of the repository, or to the prefix of the origin, with ``/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.oci import Platform

DEFAULT_ARCHITECTURE = "amd64"
"""The architecture whose sandboxes have the plain names; others stand below ``.arch/``."""
IMAGES = ".images"
REPOSITORY_MANIFEST = ".publisher"
ORIGIN_MANIFEST = "manifest"
SIF_PREFIX = "sif"
CATALOG_MARK = ".cvmfscatalog"
"""An empty file of this name makes CVMFS keep a directory's entries in a catalog of its own."""


def platform_key(platform: Platform) -> str:
    """How the manifest names a Linux platform: ``amd64``, ``arm64`` (v8 is its only variant), ``arm/v7``."""
    if not platform.variant or (platform.architecture, platform.variant) == ("arm64", "v8"):
        return platform.architecture
    return f"{platform.architecture}/{platform.variant}"


def sandbox_path(manifest: str) -> str:
    """Path of the sandbox of a platform manifest's digest (``sha256:…``)."""
    content = manifest.removeprefix("sha256:")
    return f"{IMAGES}/{content[:2]}/{content[2:]}"


def image_directories() -> list[str]:
    """The 256 directories that sandboxes stand in. Where they are published before, a sandbox can be cloned from another one."""
    return [f"{IMAGES}/{number:02x}" for number in range(256)]


def file_index_path(manifest: str) -> str:
    """Path in the repository of the file index (``layers/files.py``) of a platform manifest's digest."""
    content = manifest.removeprefix("sha256:")
    return f"{REPOSITORY_MANIFEST}/files/{content[:2]}/{content[2:]}.zst"


def revision_path(serial: int) -> str:
    """Path in the repository of an index that another one took the place of (:mod:`publisher.publish.history`)."""
    return f"{REPOSITORY_MANIFEST}/revisions/{serial}.json"


def link_paths(name: str, platforms: Sequence[str]) -> dict[str, str]:
    """Paths of the links that users name -> platform that each shows.

    The plain name shows :data:`DEFAULT_ARCHITECTURE`, or an image's first other platform (in alphabetical order) where it has
    none for that; all others stand below ``.arch/``.

    Args:
        name: the CVMFS name.
        platforms: manifest keys of the platforms that have a sandbox.
    """
    found = {f".arch/{platform}/{name}": platform for platform in platforms if platform != DEFAULT_ARCHITECTURE}
    plain = DEFAULT_ARCHITECTURE if DEFAULT_ARCHITECTURE in platforms else min(platforms, default=None)
    return found if plain is None else {name: plain, **found}


def link_target(path: str, sandbox: str) -> str:
    """The relative target that leads from the link at ``path`` to ``sandbox``."""
    return "../" * path.count("/") + sandbox


def sif_path(sha256: str) -> str:
    """Path of a SIF in the origin."""
    return f"{SIF_PREFIX}/{sha256[:2]}/{sha256}.sif"
