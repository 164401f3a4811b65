"""The interface of an origin (OSDF): immutable objects named by their content, and one mutable object, the manifest's index.

``directory.py`` implements it for a plain directory (the embedded default), ``pelican.py`` for an origin of a federation
(production). Every implementation passes the tests in ``tests/contract/test_origins.py`` unchanged. Names are relative to the
prefix and use ``/``. Caches in front of an origin serve old, new or mixed bytes of a name that was overwritten, so objects are
never overwritten, except for the index.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.chunks.reader import ByteReader


class Origin(ABC):
    """An origin that execution points without CVMFS fetch SIFs and the manifest from."""

    @abstractmethod
    def recover(self) -> list[str]:
        """Delete what killed uploads left behind; return a line for each action."""

    @abstractmethod
    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        """Store a file under a name that identifies its content; return False if it was already there.

        The file is uploaded under a temporary name, read back, verified (size and sha256) and then moved; nothing is
        overwritten. Memory use does not depend on the size; the source stays.

        Raises:
            OriginError: the name is unsafe, the source does not have ``sha256`` and ``size``, or the name has other content.
            SpaceError: the disk is full.
        """

    @abstractmethod
    def put_bytes(self, name: str, content: bytes) -> bool:
        """Store small immutable content (a shard), as :meth:`put` does."""

    @abstractmethod
    def replace(self, name: str, content: bytes) -> None:
        """Replace the mutable object ``name`` (the manifest's index) as a whole: readers see the old or the new content."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return the content of a small object, None if there is none."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes, None if there is none."""

    @abstractmethod
    def modified(self, name: str) -> float | None:
        """Return when an object was stored, in seconds since the epoch by the origin's clock; None if there is none."""

    @abstractmethod
    def sha256(self, name: str, reader: ByteReader | None = None) -> str | None:
        """Return the sha256 (64 hex) of an object, read back now in constant memory; None if there is none.

        Args:
            name: the object.
            reader: gets all bytes of the object too, so that it is read only once.
        """

    def local_path(self, name: str) -> Path | None:
        """Return where an object is in a file system of this host; None if there is none, or if it is elsewhere."""
        del name
        return None

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield all names below the directory ``prefix`` (a trailing ``/`` is optional), in the order of ``str``."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an object; do nothing if there is none."""
