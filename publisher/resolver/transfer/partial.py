"""The partial file of a download, and the hash of its content."""

from __future__ import annotations

import errno
import os

from publisher.resolver.transfer.hashing import FileHasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO

    from publisher.contract.records import Sif

_MAGIC_AT, _MAGIC = 32, b"SIF_MAGIC\0"  # sylabs/sif: launch script, then the magic
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class PartialFile:
    """A partial file, created if absent, with what an earlier attempt left in it. Every method may raise OSError.

    Args:
        path: path of the file.
        sif: the SIF that it shall become.

    Attributes:
        size: current size in bytes.
    """

    def __init__(self, path: str, sif: Sif) -> None:
        self._path = path
        self._sif = sif
        self._file, self._hash = self._open(_FLAGS | os.O_CREAT)

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
        self._hash.set_size(self.size)

    def finish(self) -> bool:
        """Return whether the file is complete and correct, and flush it to disk then. Complete but wrong content is discarded."""
        if self.size < self._sif.size:
            return False
        if self.size > self._sif.size or self._hash.hexdigest() != self._sif.sha256 or not self._has_magic():
            self.discard()
            return False
        os.fsync(self._file.fileno())
        return True

    def discard(self) -> None:
        """Discard the content."""
        self._file.seek(0)
        self._hash.restart(self._file.truncate)
        self.size = 0

    def adopt(self, path: str) -> None:
        """Replace the file with another one of the same file system."""
        os.replace(path, self._path)
        self.close()
        self._file, self._hash = self._open(_FLAGS)

    def check_free_space(self) -> None:
        """Raise OSError if the rest does not fit: a disk that is filled to the last byte harms every job on the host."""
        status = os.fstatvfs(self._file.fileno())
        if status.f_bavail * status.f_frsize < self._sif.size - self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self, flags: int) -> tuple[FileIO, FileHasher]:
        file = os.fdopen(os.open(self._path, flags, 0o644), "r+b", buffering=0)
        self.size = file.seek(0, os.SEEK_END)
        return file, FileHasher(file.fileno(), self.size)

    def _has_magic(self) -> bool:
        return os.pread(self._file.fileno(), len(_MAGIC), _MAGIC_AT) == _MAGIC
