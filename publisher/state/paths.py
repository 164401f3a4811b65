"""The paths of all data in the repository and in the origin (docs/design.md, "Names and layout").

Paths are relative to the root of the repository, or to the prefix of the origin, with ``/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract.records import split_platform
from publisher.images.variant import ImageVariant
from publisher.oci import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_ARCHITECTURE = "amd64"
"""The architecture that the plain names link to; the links of others are below ``.arch/``."""
IMAGES = ".images"
REPOSITORY_MANIFEST = ".publisher"
SCANS = f"{REPOSITORY_MANIFEST}/scans"
ORIGIN_MANIFEST = "manifest"
ORIGIN_PAGE = "page"
"""The directory of the status page in the origin."""
SIF_PREFIX = "sif"
CATALOG_MARK = ".cvmfscatalog"
"""An empty file of this name makes CVMFS store a directory's entries in a catalog of their own."""


def platform_key(platform: Platform) -> str:
    """Return the key of a Linux platform in the manifest: ``amd64``, ``arm64`` (v8 is its only variant), ``arm/v7``.

    That of a variant has its conditions as well: ``amd64,x86-64-v3``.
    """
    has_variant = platform.variant and (platform.architecture, platform.variant) != ("arm64", "v8")
    key = f"{platform.architecture}/{platform.variant}" if has_variant else platform.architecture
    return f"{key},{platform.conditions}".rstrip(",") if isinstance(platform, ImageVariant) else key


def key_platform(key: str) -> Platform:
    """Return the platform of a key in the manifest, without conditions."""
    return Platform("linux", *split_platform(key)[0].split("/"))


def sandbox_path(digest: str) -> str:
    """Return the path of the sandbox of a content's digest (``sha256:…``, :attr:`publisher.contract.records.Version.content`)."""
    content = digest.removeprefix("sha256:")
    return f"{IMAGES}/{content[:2]}/{content[2:]}"


def image_directories() -> list[str]:
    """Return the 256 directories that contain sandboxes. A sandbox can only be cloned into one that is published already."""
    return [f"{IMAGES}/{number:02x}" for number in range(256)]


def file_index_path(digest: str) -> str:
    """Return the path in the repository of the file index of a content's digest."""
    content = digest.removeprefix("sha256:")
    return f"{REPOSITORY_MANIFEST}/files/{content[:2]}/{content[2:]}.zst"


def scan_path(digest: str) -> str:
    """Return the path in the repository of the last scan's result for an image manifest's digest."""
    content = digest.removeprefix("sha256:")
    return f"{SCANS}/{content[:2]}/{content[2:]}.json"


def revision_path(serial: int) -> str:
    """Return the path in the repository of a former index, by its serial (:mod:`publisher.publish.manifest.history`)."""
    return f"{REPOSITORY_MANIFEST}/revisions/{serial}.json"


def link_paths(name: str, platforms: Sequence[str]) -> dict[str, str]:
    """Return the paths of an image's links -> the platform that each link leads to.

    The plain name leads to :data:`DEFAULT_ARCHITECTURE`, or to the first platform in alphabetical order if the image lacks that
    one. It never leads to a variant with conditions, which only some hosts meet: an image that has only such variants has no
    plain name. The links of all other platforms are below ``.arch/``.

    Args:
        name: the CVMFS name.
        platforms: manifest keys of the platforms that have a sandbox.
    """
    links = {f".arch/{platform}/{name}": platform for platform in platforms if platform != DEFAULT_ARCHITECTURE}
    unconditional = [platform for platform in platforms if not split_platform(platform)[1]]
    plain = DEFAULT_ARCHITECTURE if DEFAULT_ARCHITECTURE in platforms else min(unconditional, default=None)
    return links if plain is None else {name: plain, **links}


def link_target(path: str, sandbox: str) -> str:
    """Return the relative target of a link at ``path`` that leads to ``sandbox``."""
    return "../" * path.count("/") + sandbox


def is_own_link(path: str, target: str) -> bool:
    """Return whether a link is one that this program makes: relative, and to a sandbox by digest."""
    sandbox = target.rpartition("../")[2]
    parts = sandbox.split("/")
    return len(parts) == 3 and parts[0] == IMAGES and target == link_target(path, sandbox)  # noqa: PLR2004 - as sandbox_path


def sif_path(sha256: str) -> str:
    """Return the path of a SIF in the origin, from its sha256."""
    return f"{SIF_PREFIX}/{sha256[:2]}/{sha256}.sif"


def is_sif(name: str) -> bool:
    """Return whether the name of an object is that of a SIF, and not that of a chunk table or of anything else."""
    return name.startswith(f"{SIF_PREFIX}/") and name.endswith(".sif")
