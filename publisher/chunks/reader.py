"""The interface of what gets the bytes of a SIF while they are read for another purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import IO


class ByteReader(Protocol):
    """Gets all bytes of an object, in order."""

    def restart(self) -> None:
        """Forget all bytes: the object begins again."""

    def update(self, data: bytes) -> None:
        """Take the next bytes."""


class FileCopy:
    """Writes the bytes of an object to an empty file; see :class:`ByteReader`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def restart(self) -> None:
        """Empty the file again."""
        self._file.seek(0)
        self._file.truncate()

    def update(self, data: bytes) -> None:
        """Append the next bytes."""
        self._file.write(data)
