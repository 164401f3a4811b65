"""Readback of a finished SIF: another program reads every file, and the contents are compared with what was written.

mksquashfs is multithreaded around shared caches and has, rarely and under load, a race: one squashfs of 359 MB lacked a block,
and a test run could not see it. So only SIFs that were read back are published. unsquashfs writes the whole image as one stream
(``-pf``, unsquashfs(1)): a line for each path, then the contents of all files in the order of the lines. Nothing is written to
disk, and memory is 28 bytes per file.
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

    from publisher.system.command import UnixAccount

# path R time mode uid gid size offset; blanks in the path are escaped, so only such lines match; ids are signed numbers
_FILE_LINE = re.compile(rb"(?<!\\) R (-?[0-9]+) ([0-7]+) (-?[0-9]+) (-?[0-9]+) ([0-9]+) ([0-9]+)\n", re.ASCII)
_START_OF_DATA = b"# START OF DATA - DO NOT MODIFY\n"
_ATTRIBUTES = struct.Struct("<QIIIQ")  # time, mode, uid, gid, size
_CHUNK = 1 << 20
_QUEUE = 32  # MiB of each of unsquashfs's two block queues; 256 by default
_SUM_MODULUS = 1 << 256


class ReadbackError(BuildError):
    """A finished SIF does not have the files that were written into it."""


def check(sif: Path, file_index: Path, *, deadline: float, account: UnixAccount | None = None) -> None:
    """Raise ReadbackError unless a SIF has exactly the files of its file index: contents, sizes, modes, owners, times.

    Names are not compared.

    Args:
        sif: the SIF.
        file_index: its file index.
        deadline: seconds.
        account: the account that unsquashfs runs as (needs root), None for this process's.

    Raises:
        ReadbackError: the files differ, or cannot be read within the deadline.
    """
    argv = ["unsquashfs", "-no-progress", "-data-queue", str(_QUEUE), "-frag-queue", str(_QUEUE)]
    argv += ["-offset", str(DATA_OFFSET), "-pf", "/dev/stdout"]
    try:
        with (
            sif.open("rb") as file,  # the account needs no way into its directory
            command.tap(
                [*argv, f"/dev/fd/{file.fileno()}"], deadline=deadline, account=account, pass_fds=(file.fileno(),)
            ) as stream,
        ):
            actual = _total(_read_files(stream))
    except CommandError as error:
        raise ReadbackError(f"the finished SIF cannot be read back: {error.reason}", hint=error.hint) from error
    with file_index.open("rb") as file:
        expected = _total(
            (_ATTRIBUTES.pack(line.mtime, line.mode, line.uid, line.gid, line.size), bytes.fromhex(line.content.decode()))
            for line in read_file_index(file)
            if line.kind == "f"
        )
    if actual != expected:
        raise ReadbackError("the finished SIF does not have the files that were written into it")


def _total(files: Iterator[tuple[bytes, bytes]]) -> tuple[int, int]:
    """Return the number of files and the sum of their digests, which do not depend on the order."""
    count = total = 0
    for attributes, content in files:
        count += 1
        total = (total + int.from_bytes(hashlib.sha256(attributes + content).digest(), "big")) % _SUM_MODULUS
    return count, total


def _read_files(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the attributes and the sha256 of every file in unsquashfs's stream."""
    listed = bytearray()
    offset = 0
    while (line := stream.readline()) != _START_OF_DATA:
        if not line:
            raise ReadbackError("the finished SIF cannot be read back: the stream ends before the contents of its files")
        match = _FILE_LINE.search(line)
        if match is not None and int(match[6]) == offset:
            size = int(match[5])
            time, uid, gid = (int(number) & 0xFFFFFFFF for number in match.group(1, 3, 4))
            listed += _ATTRIBUTES.pack(time, int(match[2], 8), uid, gid, size)
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
        raise ReadbackError("the finished SIF cannot be read back: the stream ends within the contents of its files")
    return sha256.digest()
