"""The embedded default: an origin that is a plain directory, served by a web server or exported by a federation's origin.

An upload is written as ``.incoming/<random>``, put on disk, read back, and only then gets its name; link(2) gives it and never
overwrites. An upload holds the flock(2) of its temporary file, so that sweeping spares the living.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import OriginError, SpaceError
from publisher.system import durable, safepath
from publisher.targets.origins.base import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from io import BufferedRandom, BufferedReader

_INCOMING = ".incoming"
_CHUNK = 1 << 20  # bytes copied at a time where the kernel does not copy by itself
_KERNEL_CHUNK = 1 << 30
_FICLONE = 0x40049409  # linux/fs.h, ioctl_ficlone(2)
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class DirectoryOrigin(Origin):
    """An origin whose prefix is the directory ``root``, made by the first upload. The file system must have hard links.

    ``free`` says how many bytes are free on the device of an open file; fstatvfs(3) does when None.
    """

    def __init__(self, root: Path, *, free: Callable[[int], int] | None = None) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - Path.resolve would follow links, Path.absolute keeps ".."
        self._incoming = self.root / _INCOMING
        self._free = free or _free

    def recover(self) -> list[str]:
        """See :meth:`Origin.recover`. Uploads of living processes go on.

        Raises:
            OriginError: a leftover cannot be deleted.
        """
        with self._failures("sweep killed uploads"):
            leftovers = sorted(self._incoming.iterdir()) if self._incoming.is_dir() else []
            swept = [(path.name, _swept(path)) for path in leftovers]
        return [f"swept a killed upload: {_INCOMING}/{name} ({size} bytes)" for name, size in swept if size is not None]

    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        """See :meth:`Origin.put`. A reflink where the file system can, else copied by the kernel, in constant memory.

        Raises:
            OriginError: see :meth:`Origin.put`.
            SpaceError: no room; nothing is copied then.
        """
        with self._failures(f"store {source} as {name!r}"), source.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise OriginError(f"{source} is {found} bytes, not {size}")
            return self._store(name, lambda upload: self._fill(upload, file, size), sha256, size)

    def put_bytes(self, name: str, content: bytes) -> bool:
        """See :meth:`Origin.put_bytes`.

        Raises:
            OriginError: unsafe name, or other bytes under that name.
            SpaceError: no room.
        """
        with self._failures(f"store {name!r}"):
            sha256 = hashlib.sha256(content).hexdigest()
            return self._store(name, lambda upload: _write(content, upload), sha256, len(content))

    def replace(self, name: str, content: bytes) -> None:
        """See :meth:`Origin.replace`.

        Raises:
            OriginError: unsafe name, or something other than a file there.
            SpaceError: no room.
        """
        with self._failures(f"replace {name!r}"):
            parts = self._parts(name)
            destination = safepath.locate(self.root, parts, OriginError)
            if os.path.lexists(destination) and not stat.S_ISREG(destination.lstat().st_mode):
                raise OriginError(f"{name!r} is there and is not a file")
            with self._upload() as (temporary, file):
                _write(content, file)
                _check(file, f"the upload of {name!r}", hashlib.sha256(content).hexdigest(), len(content))
                safepath.make_parents(self.root, parts)
                temporary.replace(destination)
                self._sync_above(parts)

    def read(self, name: str) -> bytes | None:
        """See :meth:`Origin.read`."""
        with self._failures(f"read {name!r}"):
            found = self._object(name)
            return None if found is None else found.read_bytes()

    def size(self, name: str) -> int | None:
        """See :meth:`Origin.size`."""
        with self._failures(f"look at {name!r}"):
            found = self._object(name)
            return None if found is None else found.stat().st_size

    def modified(self, name: str) -> float | None:
        """See :meth:`Origin.modified`."""
        with self._failures(f"look at {name!r}"):
            found = self._object(name)
            return None if found is None else found.stat().st_mtime

    def sha256(self, name: str) -> str | None:
        """See :meth:`Origin.sha256`."""
        with self._failures(f"read {name!r}"):
            found = self._object(name)
            if found is None:
                return None
            with found.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

    def names(self, prefix: str = "") -> Iterator[str]:
        """See :meth:`Origin.names`."""
        below = "/".join(self._parts(prefix.removesuffix("/"))) + "/" if prefix else ""
        return self._walk(below)

    def remove(self, name: str) -> None:
        """See :meth:`Origin.remove`.

        Raises:
            OriginError: unsafe name, or no permission.
        """
        with self._failures(f"remove {name!r}"):
            found = self._object(name)
            if found is not None:
                found.unlink(missing_ok=True)
                files.sync_directory(str(found.parent))

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = safepath.split(name, OriginError)
        if parts[0] == _INCOMING:
            raise OriginError(f"unsafe name {name!r}: {_INCOMING} is the origin's own")
        return parts

    def _object(self, name: str) -> Path | None:
        """The file of an object, None where there is none: what is reached through a link is no object."""
        path = Path(os.path.realpath(self.root)).joinpath(*self._parts(name))
        return path if os.path.realpath(path) == str(path) and path.is_file() else None

    def _store(self, name: str, fill: Callable[[BufferedRandom], None], sha256: str, size: int) -> bool:
        parts = self._parts(name)
        destination = safepath.locate(self.root, parts, OriginError)
        new = not os.path.lexists(destination)
        if new:
            with self._upload() as (temporary, file):
                fill(file)
                _check(file, f"the upload of {name!r}", sha256, size)
                safepath.make_parents(self.root, parts)
                new = _linked(temporary, destination)
        if not new:
            _check_stored(destination, name, sha256, size)
        self._sync_above(parts)  # also of a name that a run gave which was killed before this line
        return new

    def _fill(self, upload: BufferedRandom, source: BufferedReader, size: int) -> None:
        """What shares the source's blocks takes no room; what is copied has it before the first byte."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(upload.fileno(), _FICLONE, source.fileno())
            return
        free = self._free(upload.fileno())
        if free < size:
            raise SpaceError(
                f"no room in the origin {self.root} for a SIF of {size} bytes: {free} bytes are free",
                hint="make room there and run again",
            )
        _copy(source, upload, size)

    def _sync_above(self, parts: tuple[str, ...]) -> None:
        for depth in range(len(parts)):
            files.sync_directory(str(self.root.joinpath(*parts[:depth])))

    @contextlib.contextmanager
    def _upload(self) -> Iterator[tuple[Path, BufferedRandom]]:
        """A new temporary file, locked as long as it is in use, and gone afterwards unless it was renamed."""
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            safepath.open_to_readers(self.root)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            while True:
                path = self._incoming / durable.token()
                file = stack.enter_context(path.open("x+b"))
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink:  # not swept between the two
                    break
            stack.callback(path.unlink, missing_ok=True)
            yield path, file

    def _walk(self, below: str) -> Iterator[str]:
        """Names in the order of ``str``: a directory sorts as its name with the ``/`` that follows it."""
        with self._failures("list the names"):
            keys = self._listed(below)
        for key in keys:
            if key.endswith("/"):
                yield from self._walk(f"{below}{key}")
            else:
                yield f"{below}{key}"

    def _listed(self, below: str) -> list[str]:
        try:
            with os.scandir(self.root / below) as entries:
                keys = [_key(entry) for entry in entries if below or entry.name != _INCOMING]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(key for key in keys if key)

    def _failures(self, doing: str) -> AbstractContextManager[None]:
        return durable.failures(OriginError, f"origin {self.root}: cannot {doing}")


def _key(entry: os.DirEntry[str]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return f"{entry.name}/"
    return entry.name if entry.is_file(follow_symlinks=False) else ""


def _swept(path: Path) -> int | None:
    """Delete the temporary file of a dead upload; its size, or None where the upload lives or has just ended."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return None
    else:
        return status.st_size if status.st_nlink else None
    finally:
        os.close(descriptor)


def _free(descriptor: int) -> int:
    status = os.fstatvfs(descriptor)
    return status.f_bavail * status.f_frsize


def _copy(source: BufferedReader, upload: BufferedRandom, size: int) -> None:
    left = size
    try:
        while left and (copied := os.copy_file_range(source.fileno(), upload.fileno(), min(left, _KERNEL_CHUNK))):
            left -= copied
    except OSError as failure:
        if left != size or failure.errno not in _NO_KERNEL_COPY:
            raise
        shutil.copyfileobj(source, upload, _CHUNK)


def _write(content: bytes, upload: BufferedRandom) -> None:
    upload.write(content)


def _check(upload: BufferedRandom, what: str, sha256: str, size: int) -> None:
    """Put an upload on disk, open it to readers, and compare what is read back from there with what it should be."""
    upload.flush()
    os.fchmod(upload.fileno(), 0o644)
    os.fsync(upload.fileno())
    os.posix_fadvise(upload.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read the disk's bytes, not the memory's
    problem = _difference(upload, sha256, size)
    if problem:
        raise OriginError(f"{what} is not what it should be: {problem}")


def _check_stored(path: Path, name: str, sha256: str, size: int) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OriginError(f"{name!r} is there and is not a file")
    with path.open("rb") as file:
        problem = _difference(file, sha256, size)
    if problem:
        raise OriginError(
            f"other bytes stand under {name!r}: {problem}", hint="it is never overwritten; if it is damaged, remove it"
        )


def _difference(file: BufferedReader | BufferedRandom, sha256: str, size: int) -> str | None:
    found = os.fstat(file.fileno()).st_size
    if found != size:
        return f"{found} bytes, not {size}"
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == sha256 else f"sha256 {digest}, not {sha256}"


def _linked(temporary: Path, destination: Path) -> bool:
    """Give an upload its name; False when another upload was quicker."""
    try:
        destination.hardlink_to(temporary)
    except FileExistsError:
        return False
    return True
