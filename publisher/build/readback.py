"""What a finished SIF gives back, against what was put in: every file read by another program and its content compared.

mksquashfs is threads around shared caches, and seldom, under load, one of them is overtaken: a squashfs of 359 MB came out with
one block missing, sound in all that a test run looks at. So nothing is published that was not read back. unsquashfs writes the
whole image as one stream (``-pf``, unsquashfs(1)): a line for each path, then the contents of all files in the lines' order.
Nothing is written to disk, and memory is 28 bytes a file.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import IO, TYPE_CHECKING

from publisher.build.sif import DATA_OFFSET
from publisher.errors import BuildError, CommandError
from publisher.fileindex.format import read_file_index
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# path (blanks in it are escaped, so that only real lines match) R time mode uid gid size offset
_FILE = re.compile(rb"(?<!\\) R ([0-9]+) ([0-7]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+)\n", re.ASCII)
_DATA = b"# START OF DATA - DO NOT MODIFY\n"
_ATTRIBUTES = struct.Struct("<QIIIQ")  # time, mode, uid, gid, size
_CHUNK = 1 << 20
_QUEUE = 32  # MiB, each of its two queues of blocks; 256 by default
_SUM = 1 << 256


class ReadbackError(BuildError):
    """A finished SIF is not what was put in."""


def check(sif: Path, file_index: Path, *, deadline: float) -> None:
    """Demand that a SIF has just the files that its file index says: contents, sizes, modes, owners, times.

    Which of them has which name is not looked at here. ``deadline`` is in seconds.

    Raises:
        ReadbackError: it has not, or cannot be read within the deadline.
    """
    argv = ["unsquashfs", "-no-progress", "-data-queue", str(_QUEUE), "-frag-queue", str(_QUEUE)]
    argv += ["-offset", str(DATA_OFFSET), "-pf", "/dev/stdout", str(sif)]
    try:
        with command.tap(argv, deadline=deadline) as stream:
            found = _total(_files_of(stream))
    except CommandError as error:
        raise ReadbackError(f"the finished SIF cannot be read back: {error.reason}", hint=error.hint) from error
    with file_index.open("rb") as file:
        wanted = _total(
            (_ATTRIBUTES.pack(line.mtime, line.mode, line.uid, line.gid, line.size), bytes.fromhex(line.content.decode()))
            for line in read_file_index(file)
            if line.kind == "f"
        )
    if found != wanted:
        raise ReadbackError("the finished SIF does not give back what was put into it")


def _total(files: Iterator[tuple[bytes, bytes]]) -> tuple[int, int]:
    """How many files, and the sum of their digests: in any order the same."""
    count = total = 0
    for attributes, content in files:
        count += 1
        total = (total + int.from_bytes(hashlib.sha256(attributes + content).digest(), "big")) % _SUM
    return count, total


def _files_of(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Attributes and sha256 of every file that the stream has."""
    listed = bytearray()
    offset = 0
    while (line := stream.readline()) != _DATA:
        if not line:
            raise ReadbackError("the finished SIF cannot be read back: it breaks off before its files")
        found = _FILE.search(line)
        if found is not None and int(found[6]) == offset:
            size = int(found[5])
            listed += _ATTRIBUTES.pack(int(found[1]), int(found[2], 8), int(found[3]), int(found[4]), size)
            offset += size
    stream.readline()
    for attributes in _ATTRIBUTES.iter_unpack(listed):
        yield _ATTRIBUTES.pack(*attributes), _digest(stream, attributes[-1])


def _digest(stream: IO[bytes], size: int) -> bytes:
    sha256 = hashlib.sha256()
    while size and (data := stream.read(min(size, _CHUNK))):
        sha256.update(data)
        size -= len(data)
    if size:
        raise ReadbackError("the finished SIF cannot be read back: it breaks off within its files")
    return sha256.digest()
