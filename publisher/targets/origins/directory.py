"""An origin that is a plain directory, served by a web server or exported by a federation's origin: the embedded default.

An upload is written as ``.incoming/<random>``, synced to disk, read back, and only then gets its name by link(2), which never
overwrites.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.contract.units import format_size
from publisher.errors import OriginError, SpaceError
from publisher.system import durable, safepath
from publisher.targets.origins.base import Origin
from publisher.targets.origins.incoming import (
    INCOMING,
    IncomingArea,
    copy,
    difference,
    link_new,
    share_blocks,
    verify_upload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from io import BufferedRandom, BufferedReader

    from publisher.chunks.reader import ByteReader

_log = logging.getLogger(__name__)
_PIECE = 1 << 20  # bytes that are read at a time


class DirectoryOrigin(Origin):
    """An origin whose prefix is the directory ``root``, created by the first upload.

    Args:
        root: the directory; its file system must support hard links.
        free: returns the free bytes on the device of an open file; fstatvfs(3) if None.
    """

    def __init__(self, root: Path, *, free: Callable[[int], int] | None = None) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - Path.resolve would follow links, Path.absolute keeps ".."
        self._incoming = IncomingArea(self.root)
        self._free = free or _free_space

    def recover(self) -> list[str]:
        """See :meth:`Origin.recover`. Uploads of living processes go on.

        Raises:
            OriginError: a leftover cannot be deleted.
        """
        with self._failures("sweep killed uploads"):
            swept = self._incoming.sweep()
        return [f"swept a killed upload: {INCOMING}/{name} ({format_size(size)})" for name, size in swept]

    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        """See :meth:`Origin.put`. The upload is a reflink if the file system can, else a copy, in constant memory.

        Raises:
            OriginError: see :meth:`Origin.put`.
            SpaceError: the disk is full; then nothing was copied.
        """
        with self._failures(f"store {source} as {name!r}"), source.open("rb") as file:
            actual_size = os.fstat(file.fileno()).st_size
            if actual_size != size:
                raise OriginError(f"{source} has {actual_size} bytes, not {size}")
            return self._store(name, lambda upload: self._fill(upload, file, size), sha256, size)

    def put_bytes(self, name: str, content: bytes) -> bool:
        """See :meth:`Origin.put_bytes`.

        Raises:
            OriginError: the name is unsafe, or has other content.
            SpaceError: the disk is full.
        """
        with self._failures(f"store {name!r}"):
            sha256 = hashlib.sha256(content).hexdigest()
            return self._store(name, lambda upload: _write(content, upload), sha256, len(content))

    def replace(self, name: str, content: bytes) -> None:
        """See :meth:`Origin.replace`.

        Raises:
            OriginError: the name is unsafe, or something other than a file has it.
            SpaceError: the disk is full.
        """
        with self._failures(f"replace {name!r}"):
            parts = self._parts(name)
            destination = safepath.locate(self.root, parts, OriginError)
            if os.path.lexists(destination) and not stat.S_ISREG(destination.lstat().st_mode):
                raise OriginError(f"{name!r} exists and is not a file")
            with self._incoming.upload() as (temporary, file):
                _write(content, file)
                verify_upload(file, name, hashlib.sha256(content).hexdigest(), len(content))
                safepath.make_parents(self.root, parts)
                temporary.replace(destination)
                self._sync_parents(parts)
            _log.info("origin %s: replaced %s (%d bytes)", self.root, name, len(content))

    def read(self, name: str) -> bytes | None:
        """See :meth:`Origin.read`."""
        with self._failures(f"read {name!r}"):
            path = self._object(name)
            return None if path is None else path.read_bytes()

    def size(self, name: str) -> int | None:
        """See :meth:`Origin.size`."""
        with self._failures(f"look at {name!r}"):
            path = self._object(name)
            return None if path is None else path.stat().st_size

    def modified(self, name: str) -> float | None:
        """See :meth:`Origin.modified`."""
        with self._failures(f"look at {name!r}"):
            path = self._object(name)
            return None if path is None else path.stat().st_mtime

    def local_path(self, name: str) -> Path | None:
        """See :meth:`Origin.local_path`."""
        with self._failures(f"look at {name!r}"):
            return self._object(name)

    def sha256(self, name: str, reader: ByteReader | None = None) -> str | None:
        """See :meth:`Origin.sha256`."""
        with self._failures(f"read {name!r}"):
            path = self._object(name)
            if path is None:
                return None
            sha256 = hashlib.sha256()
            with path.open("rb") as file:
                while data := file.read(_PIECE):
                    sha256.update(data)
                    if reader is not None:
                        reader.update(data)
            return sha256.hexdigest()

    def names(self, prefix: str = "") -> Iterator[str]:
        """See :meth:`Origin.names`."""
        directory = "/".join(self._parts(prefix.removesuffix("/"))) + "/" if prefix else ""
        return self._walk(directory)

    def remove(self, name: str) -> None:
        """See :meth:`Origin.remove`.

        Raises:
            OriginError: the name is unsafe, or the object may not be removed.
        """
        with self._failures(f"remove {name!r}"):
            path = self._object(name)
            if path is not None:
                path.unlink(missing_ok=True)
                files.sync_directory(str(path.parent))

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = safepath.split(name, OriginError)
        if parts[0] == INCOMING:
            raise OriginError(f"unsafe name {name!r}: {INCOMING} is reserved for the origin itself")
        return parts

    def _object(self, name: str) -> Path | None:
        """Return the file of an object, None if there is none: a file that is reached through a link is not an object."""
        path = Path(os.path.realpath(self.root)).joinpath(*self._parts(name))
        return path if os.path.realpath(path) == str(path) and path.is_file() else None

    def _store(self, name: str, fill: Callable[[BufferedRandom], None], sha256: str, size: int) -> bool:
        parts = self._parts(name)
        destination = safepath.locate(self.root, parts, OriginError)
        is_new = not os.path.lexists(destination)
        if is_new:
            with self._incoming.upload() as (temporary, file):
                fill(file)
                verify_upload(file, name, sha256, size)
                safepath.make_parents(self.root, parts)
                is_new = link_new(temporary, destination)
        if not is_new:
            _require_content(destination, name, sha256, size)
        self._sync_parents(parts)  # also if the object was there: the run that stored it may have been killed before this line
        if is_new:
            _log.info("origin %s: stored %s (%d bytes)", self.root, name, size)
        return is_new

    def _fill(self, upload: BufferedRandom, source: BufferedReader, size: int) -> None:
        """Fill an upload from its source. A reflink takes no space; for a copy, free space is checked before the first byte."""
        if share_blocks(source, upload):
            return
        free = self._free(upload.fileno())
        if free < size:
            raise SpaceError(
                f"the origin {self.root} has no space for a SIF of {format_size(size)}: {format_size(free)} are free",
                hint="free space there and run again",
            )
        copy(source, upload, size)

    def _sync_parents(self, parts: tuple[str, ...]) -> None:
        for depth in range(len(parts)):
            files.sync_directory(str(self.root.joinpath(*parts[:depth])))

    def _walk(self, directory: str) -> Iterator[str]:
        """Yield names in the order of ``str``: a directory sorts as its name with the ``/`` that follows it."""
        with self._failures("list the names"):
            keys = self._list(directory)
        for key in keys:
            if key.endswith("/"):
                yield from self._walk(f"{directory}{key}")
            else:
                yield f"{directory}{key}"

    def _list(self, directory: str) -> list[str]:
        try:
            with os.scandir(self.root / directory) as entries:
                keys = [_sort_key(entry) for entry in entries if directory or entry.name != INCOMING]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(key for key in keys if key)

    def _failures(self, action: str) -> AbstractContextManager[None]:
        return durable.failures(OriginError, f"origin {self.root}: cannot {action}")


def _sort_key(entry: os.DirEntry[str]) -> str:
    """Return the name of a file, the name and ``/`` of a directory, and ``""`` for everything else."""
    if entry.is_dir(follow_symlinks=False):
        return f"{entry.name}/"
    return entry.name if entry.is_file(follow_symlinks=False) else ""


def _free_space(descriptor: int) -> int:
    status = os.fstatvfs(descriptor)
    return status.f_bavail * status.f_frsize


def _write(content: bytes, upload: BufferedRandom) -> None:
    upload.write(content)


def _require_content(path: Path, name: str, sha256: str, size: int) -> None:
    """Raise OriginError unless the object has the expected sha256 and size."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OriginError(f"{name!r} exists and is not a file")
    with path.open("rb") as file:
        problem = difference(file, sha256, size)
    if problem:
        raise OriginError(
            f"{name!r} already exists with other bytes: {problem}", hint="it is never overwritten; if it is damaged, remove it"
        )
