"""The incoming area of a directory origin: uploads as temporary files, until they are verified and get their names.

A process locks the temporary file of its upload with flock(2) while it is in use, so that sweeping spares uploads in progress.
Other hosts that share the directory may not see that lock: the file's name says which host made it, and those of another host are
swept when they are a day old.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from publisher.errors import OriginError
from publisher.system import safepath
from publisher.targets.pelican.owner import this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedRandom, BufferedReader
    from pathlib import Path

    from publisher.targets.pelican.owner import UploadOwner

INCOMING = ".incoming"
_OLD = 86400.0  # seconds; longer than any upload takes
_CHUNK_SIZE = 1 << 20  # bytes copied at a time if the kernel cannot copy
_KERNEL_CHUNK_SIZE = 1 << 30
_FICLONE = 0x40049409  # linux/fs.h, ioctl_ficlone(2)
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class IncomingArea:
    """The incoming area of the origin at ``root``, created by the first upload."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / INCOMING

    @contextlib.contextmanager
    def upload(self) -> Iterator[tuple[Path, BufferedRandom]]:
        """Create a temporary file, locked for the block and deleted after it unless it was renamed. Raises OSError."""
        if not self._root.is_dir():
            self._root.mkdir(parents=True, exist_ok=True)
            safepath.open_to_readers(self._root)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            while True:
                path = self._directory / this_process().new_upload_name()
                file = stack.enter_context(path.open("x+b"))
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink:  # not swept between the two calls
                    break
            stack.callback(path.unlink, missing_ok=True)
            yield path, file

    def sweep(self) -> list[tuple[str, int]]:
        """Delete the temporary files of dead uploads; return their names and sizes. Raises OSError."""
        owner = this_process()
        leftovers = sorted(self._directory.iterdir()) if self._directory.is_dir() else []
        return [(path.name, size) for path in leftovers if (size := _sweep(path, owner)) is not None]


def _sweep(path: Path, owner: UploadOwner) -> int | None:
    """Delete the temporary file of a dead upload; return its size, or None if the upload is in progress or has just ended."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if owner.is_of_another_host(path.name) and status.st_mtime > time.time() - _OLD:
            return None
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return None
    else:
        return status.st_size if status.st_nlink else None
    finally:
        os.close(descriptor)


def share_blocks(source: BufferedReader, upload: BufferedRandom) -> bool:
    """Make an upload a reflink of its source; return False if the file system cannot."""
    try:
        fcntl.ioctl(upload.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def copy(source: BufferedReader, upload: BufferedRandom, size: int) -> None:
    """Copy ``size`` bytes from a source to an upload, in the kernel if it can. Raises OSError."""
    left = size
    try:
        while left and (copied := os.copy_file_range(source.fileno(), upload.fileno(), min(left, _KERNEL_CHUNK_SIZE))):
            left -= copied
    except OSError as error:
        if left != size or error.errno not in _NO_KERNEL_COPY:
            raise
        shutil.copyfileobj(source, upload, _CHUNK_SIZE)


def verify_upload(upload: BufferedRandom, name: str, sha256: str, size: int) -> None:
    """Write an upload to disk, make it readable by everybody, and verify what is read back from the disk.

    Raises:
        OriginError: the upload does not have the expected sha256 and size; ``name`` is the object's name in the message.
        OSError: it cannot be written or read.
    """
    upload.flush()
    os.fchmod(upload.fileno(), 0o644)
    os.fsync(upload.fileno())
    os.posix_fadvise(upload.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read the disk's bytes, not the page cache's
    problem = difference(upload, sha256, size)
    if problem:
        raise OriginError(f"the upload of {name!r} is not what it should be: {problem}")


def difference(file: BufferedReader | BufferedRandom, sha256: str, size: int) -> str | None:
    """Say how an open file differs from the expected sha256 and size, None if it does not. Raises OSError."""
    actual_size = os.fstat(file.fileno()).st_size
    if actual_size != size:
        return f"{actual_size} bytes, not {size}"
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == sha256 else f"sha256 {digest}, not {sha256}"


def link_new(upload: Path, destination: Path) -> bool:
    """Give an upload its name; return False if another upload has taken the name meanwhile. Raises OSError."""
    try:
        destination.hardlink_to(upload)
    except FileExistsError:
        return False
    return True
