"""Where SIFs are made: one interface, so that a build can run here (:mod:`publisher.builders.local`) or, later, in a pool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from publisher.oci import Image


@dataclass(frozen=True)
class BuildRequest:
    """What to build: the CVMFS name it is for (messages only), the image, and its fetched layers from the bottom up."""

    name: str
    image: Image
    layers: tuple[Path, ...]
    indexes: tuple[Path, ...]


@dataclass(frozen=True)
class BuiltImage:
    """A finished SIF and what the record says of it.

    Attributes:
        sif: path of the SIF.
        sha256: of the SIF, 64 hex.
        size: of the SIF, bytes.
        unpacked_size: bytes of all regular files.
        files: number of entries.
        file_index: path of the compressed file index (``layers/files.py`` names its format).
        test: ``ran``, or ``structure`` with the reason in ``notes`` (no shell; another architecture).
        tools: name -> version of what made it, and the compression: with the same ones, the same manifest gives the same bytes.
        notes: what the tree policy dropped or changed, counted.
    """

    sif: Path
    sha256: str
    size: int
    unpacked_size: int
    files: int
    file_index: Path
    test: str
    tools: dict[str, str]
    notes: dict[str, int | str] = field(default_factory=dict)


class Builder(ABC):
    """Makes a SIF from an image. The same platform manifest gives the same bytes, whoever builds and whenever."""

    @abstractmethod
    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        """Build one image; ``progress(step, done, total)`` in bytes is called from the calling thread.

        Raises:
            LayerError: a layer is not a sound tar archive, or hostile.
            BuildError: apptainer, mksquashfs or the SIF failed.
            TestRunError: the SIF does not start.
            SpaceError: no room left.
        """

    @abstractmethod
    def discard(self, request: BuildRequest) -> None:
        """Let go of what is kept of a finished build: it has been published."""

    @abstractmethod
    def sweep(self, wanted: Collection[str]) -> None:
        """Let go of finished and broken builds of all manifests but those ``wanted`` (digests): killed runs leave them."""
