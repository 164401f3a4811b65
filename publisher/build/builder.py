"""Where SIFs are made: one interface, so that a build can run here (:mod:`publisher.build.local`) or, later, in a pool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from publisher.oci import Image
    from publisher.state.built import BuiltImage


@dataclass(frozen=True)
class BuildRequest:
    """What to build: the CVMFS name it is for (messages only), the image, and its fetched layers from the bottom up."""

    name: str
    image: Image
    layers: tuple[Path, ...]
    indexes: tuple[Path, ...]


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
