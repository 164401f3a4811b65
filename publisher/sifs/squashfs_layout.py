"""The layout of the tables of a squashfs 4.0, after the kernel's ``fs/squashfs/squashfs_fs.h``: inodes and lists of names."""

from __future__ import annotations

import struct
from typing import NamedTuple

BLOCK = 1 << 17
"""Bytes of a block of a file, or of a fragment block, where none are asked for: in all images of this program."""
STORED_DATA = 1 << 24
"""This bit in the length of such a block on the disk: it is not compressed."""
INODE = struct.Struct("<HHHHII")
"""Of every inode: kind, mode, indexes of uid and gid, time, number."""
DIRECTORY, FILE, LINK, FIFO = 1, 2, 3, 6
"""Kinds of inodes."""
LARGE = 7
"""What is added to the kind of an inode that has further numbers."""
FILES = {FILE: struct.Struct("<IIII"), FILE + LARGE: struct.Struct("<QQQIIII")}
DIRECTORIES = {DIRECTORY: struct.Struct("<IIHHI"), DIRECTORY + LARGE: struct.Struct("<IIIIHHI")}
LINKS = struct.Struct("<II")
"""Of a symbolic link: number of its names, and length of the target, which follows."""
LIST, NAME = struct.Struct("<III"), struct.Struct("<HhHH")
"""In a directory: what precedes a group of names (their number less one, the block of their inodes), and each name."""
_NO_FRAGMENT = 0xFFFFFFFF
_MAX_BLOCKS = 1 << 24  # of one file


class FileInode(NamedTuple):
    """What an inode of a file says, but for the lengths of its blocks, which follow it.

    Attributes:
        start: offset of its first block.
        size: bytes of its content.
        links: number of its names.
        fragment: number of the fragment block that has its end, None if none has.
        fragment_offset: where its end begins there.
        blocks: number of its blocks.
    """

    start: int
    size: int
    links: int
    fragment: int | None
    fragment_offset: int
    blocks: int


def file_inode(numbers: tuple[int, ...], block_size: int) -> FileInode:
    """Return what the numbers of an inode of a file say, as one of :data:`FILES` has unpacked them.

    Raises:
        ValueError: the file is too large.
    """
    if len(numbers) == 4:  # noqa: PLR2004 - an inode without further numbers
        (start, fragment, offset, size), links = numbers, 1
    else:
        start, size, _, links, fragment, offset, _ = numbers
    is_whole = fragment == _NO_FRAGMENT
    blocks = -(-size // block_size) if is_whole else size // block_size
    if blocks > _MAX_BLOCKS:
        raise ValueError("a file is too large")
    return FileInode(start, size, links, None if is_whole else fragment, offset, blocks)
