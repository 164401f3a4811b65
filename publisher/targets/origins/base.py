"""The OSDF side behind one interface: immutable objects named by their content, and one mutable object, the index.

``directory.py`` is the embedded default, ``pelican.py`` (later) the production form. ``tests/contract/test_origins.py`` is
the contract that every implementation passes unchanged. Names are relative to the prefix, with ``/``; caches in front of an
origin serve old, new or mixed bytes of a name that was overwritten, hence the two kinds of name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Origin(ABC):
    """A place that SIFs and the manifest are fetched from by execution points without CVMFS."""

    @abstractmethod
    def recover(self) -> list[str]:
        """Sweep what killed uploads left behind; a line for each thing done."""

    @abstractmethod
    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        """Store a file under a name that says its content; False when the right bytes were there already.

        Uploaded under a temporary name, read back and checked (size and sha256), then moved; never overwrites. Memory does not
        grow with the size; the source stays.

        Raises:
            OriginError: unsafe name, the source is not what ``sha256`` and ``size`` say, or other bytes under that name.
            SpaceError: no room.
        """

    @abstractmethod
    def put_bytes(self, name: str, content: bytes) -> bool:
        """As :meth:`put`, for small immutable content (shards)."""

    @abstractmethod
    def replace(self, name: str, content: bytes) -> None:
        """Replace the mutable object ``name`` (the manifest's index) as a whole: readers see the old or the new bytes."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The bytes of a small object, None where there is none."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Size in bytes, None where there is no such object."""

    @abstractmethod
    def modified(self, name: str) -> float | None:
        """When an object was stored, seconds since the epoch by the origin's clock; None where there is no such object."""

    @abstractmethod
    def sha256(self, name: str) -> str | None:
        """sha256 (64 hex) of an object's bytes as they are read back now, in constant memory; None where there is none."""

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[str]:
        """All names below the directory ``prefix`` (with or without ``/`` at its end), in the order of ``str``."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Take an object away; nothing happens where there is none."""
