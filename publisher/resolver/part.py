"""A download as it grows: its file, and the hash of what is in it, so that nothing is read twice."""

from __future__ import annotations

import errno
import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.manifest import Sif

_CHUNK = 1 << 20
_MAGIC_AT, _MAGIC = 32, b"SIF_MAGIC\0"  # sylabs/sif: launch script, then the magic
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Part:
    """The file at ``path``, made if need be, with what an earlier try left in it. All of it raises OSError.

    Attributes:
        size: bytes that are there.
    """

    def __init__(self, path: str, sif: Sif) -> None:
        self._path = path
        self._sif = sif
        self._open(_FLAGS | os.O_CREAT)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, chunk: bytes | memoryview) -> None:
        """Append bytes."""
        view = memoryview(chunk)
        while view:
            written = self._file.write(view)
            self._count(view[:written])
            view = view[written:]

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
        self._file.truncate()
        self._begin()

    def adopt(self, path: str) -> None:
        """Take another file of the same file system instead."""
        os.replace(path, self._path)
        self._file.close()
        self._open(_FLAGS)

    def check_room(self) -> None:
        """Refuse early what will not fit: a disk filled to the last byte harms every job on the host."""
        room = os.fstatvfs(self._file.fileno())
        if room.f_bavail * room.f_frsize < self._sif.size - self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self, flags: int) -> None:
        self._file = os.fdopen(os.open(self._path, flags, 0o644), "r+b", buffering=0)
        self._begin()
        while self.size <= self._sif.size and (chunk := self._file.read(_CHUNK)):
            self._count(chunk)

    def _begin(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()

    def _count(self, chunk: bytes | memoryview) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)

    def _has_magic(self) -> bool:
        return os.pread(self._file.fileno(), len(_MAGIC), _MAGIC_AT) == _MAGIC
