"""The partial file of a download, and the hash of its content."""

from __future__ import annotations

import errno
import mmap
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
_DIRECT = 1 << 30  # bytes of a SIF from which on copies bypass the page cache: a smaller one may stay there for its job
_DIRECT_COPY = 1 << 20  # bytes that are copied at a time then
_BLOCK = 4096  # bytes; what is written past the page cache begins and ends at a multiple of it


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
        self._direct: int | None = None
        self._file, self._hash = self._open(_FLAGS | os.O_CREAT)
        if sif.size >= _DIRECT:
            self._open_directly()

    def close(self) -> None:
        """Close the file."""
        self._close_directly()
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

        They are read, hashed and written: copy_file_range(2) would leave them to be read once more for their hash. Into a large
        file they are written past the page cache where the file system allows it: the kernel's work for pages that do not stay
        in memory is more than that of hashing them.

        Args:
            descriptor: descriptor of the file.
            start: their first byte in it.
            count: how many.

        Returns:
            How many were appended: less where the file ends or cannot be read.
        """
        copied = 0
        while copied < count:
            limit = min(self._copy_limit(), count - copied)
            try:
                read = os.preadv(descriptor, [self._buffer[:limit]], start + copied)
            except OSError:
                break
            if read == 0:
                break
            piece = self._buffer[:read]
            self._write(self._write_blocks(piece))
            self._hash.add(piece)
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
        self._hash.restart(lambda: self._file.truncate(count))
        self.size = count
        if count:
            self._hash.set_size(count)

    def adopt(self, path: str) -> None:
        """Replace the file with another one of the same file system."""
        os.replace(path, self._path)
        self.close()
        self._file, self._hash = self._open(_FLAGS)  # complete, so nothing is copied into it

    def check_free_space(self) -> None:
        """Raise OSError if the rest does not fit: a disk that is filled to the last byte harms every job on the host."""
        status = os.fstatvfs(self._file.fileno())
        if status.f_bavail * status.f_frsize < self._sif.size - self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write(self, view: memoryview) -> None:
        while view:
            written = os.pwrite(self._file.fileno(), view, self.size)
            view = view[written:]
            self.size += written

    def _copy_limit(self) -> int:
        """Return how many bytes may be copied at a time: up to the next block first, if blocks bypass the page cache."""
        return len(self._buffer) if self._direct is None else -self.size % _BLOCK or len(self._buffer)

    def _write_blocks(self, view: memoryview) -> memoryview:
        """Write the blocks at the beginning of the buffer past the page cache if that is possible; return what is left."""
        count = len(view) // _BLOCK * _BLOCK
        if self._direct is None or self.size % _BLOCK or not count:
            return view
        try:
            written = os.pwrite(self._direct, view[:count], self.size)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._close_directly()  # larger blocks, or a file system that says so only now
            return view
        self.size += written
        return view[written:]

    def _open_directly(self) -> None:
        """Open the file a second time, for writing past the page cache; many file systems, but not all, can do that."""
        try:
            self._direct = os.open(self._path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        self._buffer = memoryview(mmap.mmap(-1, _DIRECT_COPY))  # begins at a page

    def _close_directly(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

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
