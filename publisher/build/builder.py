"""The interface of builders: builds run here (:mod:`publisher.build.local`) or elsewhere (:mod:`publisher.builders`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from publisher.contract.reference import Reference
    from publisher.oci import Image
    from publisher.state.built import BuiltImage


class EarlierSif(NamedTuple):
    """The published SIF of an earlier version of an image, from which equal contents are copied.

    Attributes:
        sif: where it is.
        file_index: where its file index is.
    """

    sif: Path
    file_index: Path


@dataclass(frozen=True)
class BuildRequest:
    """A request to build one image.

    Attributes:
        name: the CVMFS name that the image is built for; used in messages only.
        image: the image.
        layers: its downloaded layers, from the bottom up; of a finished SIF, the SIF alone.
        indexes: the header indexes of the layers, in the same order; none of a SIF.
        reference: registry and repository that the layers come from; None if that is not known.
        private: the image may be one that cannot be pulled anonymously.
        sif: whether a SIF is wanted. Without one, a builder may return a build that a sandbox alone can be made from.
        copies: the directory of uncompressed copies of the layers, of which any may be missing; None if there is none.
        earlier: what the image's name means now, if that is a SIF on this host; it saves time and does not change the build.
    """

    name: str
    image: Image
    layers: tuple[Path, ...]
    indexes: tuple[Path, ...]
    reference: Reference | None = None
    private: bool = False
    sif: bool = True
    copies: Path | None = None
    earlier: EarlierSif | None = None


@dataclass(frozen=True)
class UncheckedSif:
    """A SIF that a build under way has made and still reads back and runs: it may be refused, or made once more.

    Attributes:
        path: where it is.
        unpacked_size: bytes of all regular files, at most.
        identity: device, inode and time of the last change of its content: another file at the path has another one.
    """

    path: Path
    unpacked_size: int
    identity: tuple[int, int, int]

    @classmethod
    def at(cls, path: Path, unpacked_size: int) -> UncheckedSif:
        """Return the SIF that is at a path now; raise OSError if there is none."""
        return cls(path, unpacked_size, _identity(path))

    def is_at(self, path: Path) -> bool:
        """Return whether this file, unchanged, is what is at a path now."""
        try:
            return _identity(path) == self.identity
        except FileNotFoundError:
            return False


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


class Builder(ABC):
    """A builder of SIFs. The same config gives the same bytes, whatever manifest names it, wherever and whenever it is built.

    Attributes:
        parallel: number of builds that may be under way at a time; as many threads call :meth:`build` at once.
        wants_layers: whether a request has the layers of its image on this host; otherwise ``layers`` and ``indexes`` are empty.
    """

    parallel: int = 1
    wants_layers: bool = True

    @abstractmethod
    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        """Build one image, or return its finished build if there is one.

        Args:
            request: what to build.
            progress: called as ``progress(step, done, total)``, in bytes, from any thread.

        Raises:
            LayerError: a layer is not a valid tar archive, or is malicious.
            BuildError: apptainer or mksquashfs failed, or the SIF is not valid.
            TestRunError: the SIF does not start.
            BrokenHostError: a disk or another resource of this host failed.
            SpaceError: no space left.
        """

    def unchecked(self, request: BuildRequest) -> UncheckedSif | None:
        """Return the SIF of a build that is at the step :data:`publisher.system.progress.READ_BACK`; from any thread.

        None if there is none, if the builder cannot tell, or if the SIF was made elsewhere.
        """
        del request
        return None

    def stop(self) -> None:  # noqa: B027 - nothing to end where a build runs in the calling thread
        """End the builds that are under way: their calls of :meth:`build` raise. The caller stops the run."""

    @abstractmethod
    def discard(self, request: BuildRequest) -> None:
        """Delete the finished build of a request, after it was published."""

    @abstractmethod
    def sweep(self, wanted: Collection[str], unknown: Collection[str] = ()) -> None:
        """Delete what killed runs left behind: all builds except those of the ``wanted`` configs (digests).

        Args:
            wanted: the configs of all images that are to be built.
            unknown: names of images whose configs are not known now; what is under way for them elsewhere stays.
        """

    def close(self) -> None:  # noqa: B027 - nothing to end where nothing outlives a run
        """End what finished builds still need elsewhere, once the run has published them."""

    def take_notes(self) -> list[str]:
        """Return a line for each thing that the operator should know of builds, once."""
        return []
