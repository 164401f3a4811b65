"""A download as it grows: its file, and the hash of what is in it."""

from __future__ import annotations

import errno
import os

from publisher.resolver.transfer.hashing import FileHasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO

    from publisher.contract.manifest import Sif

_MAGIC_AT, _MAGIC = 32, b"SIF_MAGIC\0"  # sylabs/sif: launch script, then the magic
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class PartialFile:
    """The file at ``path``, made if need be, with what an earlier try left in it. All of it raises OSError.

    Attributes:
        size: bytes that are there.
    """

    def __init__(self, path: str, sif: Sif) -> None:
        self._path = path
        self._sif = sif
        self._file, self._hash = self._opened(_FLAGS | os.O_CREAT)

    def close(self) -> None:
        """Close the file."""
        self._hash.close()
        self._file.close()

    def add(self, chunk: bytes | memoryview) -> None:
        """Append bytes."""
        view = memoryview(chunk)
        while view:
            written = self._file.write(view)
            view = view[written:]
            self.size += written
        self._hash.grown(self.size)

    def complete(self) -> bool:
        """Whether all is there and right, and then on disk; what is there and wrong is thrown away."""
        if self.size < self._sif.size:
            return False
        if self.size > self._sif.size or self._hash.hexdigest() != self._sif.sha256 or not self._has_magic():
            self.empty()
            return False
        os.fsync(self._file.fileno())
        return True

    def empty(self) -> None:
        """Throw away what is there."""
        self._file.seek(0)
        self._hash.restart(self._file.truncate)
        self.size = 0

    def adopt(self, path: str) -> None:
        """Take another file of the same file system instead."""
        os.replace(path, self._path)
        self.close()
        self._file, self._hash = self._opened(_FLAGS)

    def check_room(self) -> None:
        """Refuse early what will not fit: a disk filled to the last byte harms every job on the host."""
        room = os.fstatvfs(self._file.fileno())
        if room.f_bavail * room.f_frsize < self._sif.size - self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _opened(self, flags: int) -> tuple[FileIO, FileHasher]:
        file = os.fdopen(os.open(self._path, flags, 0o644), "r+b", buffering=0)
        self.size = file.seek(0, os.SEEK_END)
        return file, FileHasher(file.fileno(), self.size)

    def _has_magic(self) -> bool:
        return os.pread(self._file.fileno(), len(_MAGIC), _MAGIC_AT) == _MAGIC
