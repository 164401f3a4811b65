"""Readback of a finished SIF: every file is read from the disk, and the contents are compared with what was to be written.

mksquashfs is multithreaded around shared caches and has, rarely and under load, a race: one squashfs of 359 MB lacked a block,
and a test run could not see it. So only SIFs that were read back are published. The files are read by their inodes
(:mod:`publisher.sifs.squashfs`), by as many threads as there are cores, in constant memory (docs/decisions/0072-own-readback.md).
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.build.sif import DATA_OFFSET
from publisher.errors import BuildError
from publisher.fileindex.format import read_file_index
from publisher.sifs.squashfs import ERRORS, Squashfs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from publisher.sifs.squashfs import SquashfsFile

_ATTRIBUTES = struct.Struct("<QIIIQ")  # time, mode, uid, gid, size
_BATCH_FILES, _BATCH_SIZE = 512, 8 << 20  # files, and bytes of their contents, that a thread reads at a time
_MAX_THREADS = 4


class ReadbackError(BuildError):
    """A finished SIF does not have the files that were written into it."""


def check(sif: Path, expected: ExpectedFiles, *, deadline: float) -> None:
    """Raise ReadbackError unless a SIF has exactly the files of its file index: contents, sizes, modes, owners, times.

    Of the paths of all kinds, the last names are compared.

    Args:
        sif: the SIF.
        expected: what its file index says.
        deadline: seconds.

    Raises:
        ReadbackError: the files differ, or cannot be read within the deadline.
    """
    cores = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    with sif.open("rb") as file, ThreadPoolExecutor(cores) as threads:
        try:
            squashfs, names = Squashfs(file.fileno(), DATA_OFFSET), _Sum()
            files = _read_all(squashfs, threads, cores, time.monotonic() + deadline)
            for name in squashfs.names():
                names.add(name)
        except ERRORS as error:
            raise ReadbackError(f"the finished SIF cannot be read back: {error}") from error
        if (files, names) != (expected.files, expected.names):
            raise ReadbackError("the finished SIF does not have the files that were written into it")


@dataclass
class _Sum:
    """The number of things, and the sum of their digests, which does not depend on the order.

    The digests are Python's own, with a key that is new in each process: things that differ have another sum but by chance.
    """

    count: int = 0
    total: int = 0

    def add(self, thing: object) -> None:
        self.count += 1
        self.total += hash(thing)

    def merge(self, other: _Sum) -> None:
        self.count += other.count
        self.total += other.total


@dataclass
class ExpectedFiles:
    """What reading back has to find: the files, and the names of all paths."""

    files: _Sum = field(default_factory=_Sum)
    names: _Sum = field(default_factory=_Sum)

    def add_name(self, path: bytes) -> None:
        """Add a path of any kind."""
        self.names.add(path.rpartition(b"/")[2])

    def add_file(self, mtime: int, mode: int, uid: int, gid: int, size: int, sha256: bytes) -> None:  # noqa: PLR0917 - attributes
        """Add the attributes of a regular file, and the sha256 of its content (32 bytes)."""
        self.files.add(_ATTRIBUTES.pack(mtime, mode, uid, gid, size) + sha256)

    @classmethod
    def of(cls, file_index: Path) -> ExpectedFiles:
        """Read a file index.

        Raises:
            ValueError: it is not one.
            OSError: it cannot be read.
        """
        expected = cls()
        with file_index.open("rb") as lines:
            for line in read_file_index(lines):
                expected.add_name(line.path)
                if line.kind == "f":
                    expected.add_file(line.mtime, line.mode, line.uid, line.gid, line.size, bytes.fromhex(line.content.decode()))
        return expected


def _read_all(squashfs: Squashfs, threads: ThreadPoolExecutor, cores: int, ends: float) -> _Sum:
    waiting: deque[Future[_Sum]] = deque()
    files = _Sum()
    for batch in itertools.chain(_batches(squashfs.files()), [None]):
        if time.monotonic() > ends:
            raise ReadbackError("the finished SIF cannot be read back before the deadline of its build")
        if batch is not None:
            waiting.append(threads.submit(_read, squashfs, batch))
        while waiting and (batch is None or len(waiting) > 2 * cores):
            files.merge(waiting.popleft().result())
    return files


def _batches(files: Iterable[SquashfsFile]) -> Iterator[list[SquashfsFile]]:
    batch: list[SquashfsFile] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.size
        if len(batch) == _BATCH_FILES or size > _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    yield batch


def _read(squashfs: Squashfs, batch: Iterable[SquashfsFile]) -> _Sum:
    digest, found = squashfs.reader(), ExpectedFiles()
    for file in batch:
        found.add_file(file.mtime, file.mode, file.uid, file.gid, file.size, digest(file))
    return found.files
