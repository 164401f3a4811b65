"""The interface of what gets the bytes of a SIF while they are read for another purpose."""

from __future__ import annotations

from typing import Protocol


class ByteReader(Protocol):
    """Gets all bytes of an object, in order."""

    def restart(self) -> None:
        """Forget all bytes: the object begins again."""

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
