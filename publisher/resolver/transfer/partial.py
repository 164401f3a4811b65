"""The partial file of a download, and the hash of its content."""

from __future__ import annotations

import errno
import os

from publisher.resolver.transfer.hashing import FileHasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from publisher.contract.records import Sif
    from publisher.resolver.transfer.watchdog import TransferDeadline

_MAGIC_AT, _MAGIC = 32, b"SIF_MAGIC\0"  # sylabs/sif: launch script, then the magic
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY = 1 << 18  # bytes that are copied at a time; they stay in the processor's cache


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
        self._buffer = memoryview(bytearray(_COPY))
        self._file, self._hash = self._open(_FLAGS | os.O_CREAT)

    def close(self) -> None:
        """Close the file."""
        self._hash.close()
        self._file.close()

    @property
    def descriptor(self) -> int:
        """Return the descriptor of the file."""
        return self._file.fileno()

    def add(self, chunk: bytes | memoryview) -> None:
        """Append bytes, which a second thread hashes."""
        self._write(memoryview(chunk))
        self._hash.set_size(self.size)

    def append(self, chunk: bytearray | memoryview) -> None:
        """Append bytes and hash them at once: less work in all than reading them again, but it takes as long."""
        view = memoryview(chunk)
        self._write(view)
        self._hash.add(view)

    def copy(self, descriptor: int, start: int, count: int) -> int:
        """Append bytes of another file of this host.

        They are read, hashed and written: copy_file_range(2) would leave them to be read once more for their hash.

        Args:
            descriptor: descriptor of the file.
            start: their first byte in it.
            count: how many.

        Returns:
            How many were appended: less where the file ends or cannot be read.
        """
        copied = 0
        while copied < count:
            try:
                read = os.preadv(descriptor, [self._buffer[: count - copied]], start + copied)
            except OSError:
                break
            if read == 0:
                break
            self.append(self._buffer[:read])
            copied += read
        return copied

    def read(self, start: int, count: int) -> bytes:
        """Return bytes of the file."""
        return os.pread(self._file.fileno(), count, start)

    def finish(self, find_intact: Callable[[PartialFile], int] = lambda _: 0) -> bool:
        """Return whether the file is complete and correct, and flush it to disk then.

        Complete but wrong content is discarded, from the byte on that ``find_intact`` returns for this file.
        """
        if self.size < self._sif.size:
            return False
        if self.size > self._sif.size:
            self.keep(0)
            return False
        if self._hash.hexdigest() != self._sif.sha256 or not self._has_magic():
            self.keep(find_intact(self))
            return False
        os.fsync(self._file.fileno())
        return True

    def discard(self) -> None:
        """Discard the content."""
        self.keep(0)

    def keep(self, count: int) -> None:
        """Discard everything behind the first ``count`` bytes."""
        self._file.seek(count)
        self._hash.restart(self._file.truncate)
        self.size = count
        if count:
            self._hash.set_size(count)

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

    def _write(self, view: memoryview) -> None:
        while view:
            written = self._file.write(view)
            view = view[written:]
            self.size += written

    def _open(self, flags: int) -> tuple[FileIO, FileHasher]:
        file = os.fdopen(os.open(self._path, flags, 0o644), "r+b", buffering=0)
        self.size = file.seek(0, os.SEEK_END)
        return file, FileHasher(file.fileno(), self.size)

    def _has_magic(self) -> bool:
        return os.pread(self._file.fileno(), len(_MAGIC), _MAGIC_AT) == _MAGIC


class Assembly:
    """How a SIF comes together: here as one stream from the network.

    Attributes:
        is_whole: whether all bytes come from the network.
    """

    is_whole = True

    def begin(self, part: PartialFile) -> None:
        """Prepare the file, which may have what an earlier attempt left."""

    def advance(self, part: PartialFile, deadline: TransferDeadline) -> int | None:  # noqa: ARG002 - as in difference
        """Append what needs no network; return the byte before which the next request ends, None for the end of the SIF."""
        return None

    def add(self, part: PartialFile, piece: bytes | memoryview) -> None:
        """Append what a server sent. Raise CorruptError if it is known to be wrong."""
        part.add(piece)

    def find_intact(self, part: PartialFile) -> int:  # noqa: ARG002 - as above
        """Return how many bytes at the beginning of a complete file with wrong content are right, as far as that is known."""
        return 0
