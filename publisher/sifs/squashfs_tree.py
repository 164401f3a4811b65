"""The tree of a squashfs: its directories, walked from the root, with the inode behind each name.

The layout is that of :mod:`publisher.sifs.squashfs`. The tables of inodes and of directories are kept in memory as they are:
about 60 bytes for each path.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from publisher.sifs.squashfs import SquashfsFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.sifs.squashfs import Squashfs

_NUMBERS = struct.Struct("<HHHHII")  # of every inode: kind, mode, indexes of uid and gid, time, number
_FILE, _LARGE_FILE = struct.Struct("<IIII"), struct.Struct("<QQQIIII")
_DIRECTORY, _LARGE_DIRECTORY = struct.Struct("<IIHHI"), struct.Struct("<IIIIHHI")
_LINK = struct.Struct("<II")
_HEADER, _NAME = struct.Struct("<III"), struct.Struct("<HhHH")  # in a directory: before its names, and before each name
_KINDS = {1: b"5", 2: b"0", 3: b"2", 6: b"6", 8: b"5", 9: b"0", 10: b"2", 13: b"6"}  # of an inode -> tar type flag
_LARGE = 8  # and above: the inode has further numbers
_NO_FRAGMENT = 0xFFFFFFFF
_END_OF_LIST = 3  # the size of a directory counts "." and ".." as three bytes


class TreeEntry(NamedTuple):
    """A path of the tree.

    Attributes:
        path: path from the root, ``b""`` for the root itself.
        kind: tar type flag: ``0`` file, ``1`` further name of a file, ``2`` symbolic link, ``5`` directory, ``6`` fifo.
        mtime: seconds since the epoch.
        link: target of a symbolic link, or the first name of the file.
        file: where the content of a file is; None for all other kinds.
        has_links: whether the file has further names.
    """

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    link: bytes = b""
    file: SquashfsFile | None = None
    has_links: bool = False


class SquashfsTree:
    """The tree of an open squashfs.

    Args:
        squashfs: the squashfs. All methods may raise :data:`publisher.sifs.squashfs.ERRORS` if it is damaged.
    """

    def __init__(self, squashfs: Squashfs) -> None:
        self._squashfs = squashfs
        self._inodes = squashfs.inode_table()
        self._lists = squashfs.directory_table()
        self._first_names: dict[int, bytes] = {}  # place of the inode of a file with several names -> the first of them

    def entries(self) -> Iterator[TreeEntry]:
        """Yield all paths, a directory before what is in it.

        Raises:
            ValueError: the tree has an inode of another kind, or a name that no path can have.
        """
        waiting, seen = [(b"", self._inodes.place(self._squashfs.root))], set[int]()
        while waiting:
            path, place = waiting.pop()
            if place in seen:
                raise ValueError("it has a directory with two names")
            seen.add(place)
            entry, children = self._directory(path, place)
            yield entry
            for name, inode in children:
                child = path + b"/" + name if path else name
                if self._kind(inode) == b"5":
                    waiting.append((child, inode))
                else:
                    yield self._other(child, inode)

    def _kind(self, place: int) -> bytes:
        number = int.from_bytes(self._inodes.content[place : place + 2], "little")
        kind = _KINDS.get(number)
        if kind is None:
            raise ValueError(f"it has an inode of kind {number}")
        return kind

    def _common(self, place: int) -> tuple[bool, tuple[int, int, int, int]]:
        """Return whether an inode has further numbers; and its mode, uid, gid and time."""
        kind, mode, uid, gid, mtime, _ = _NUMBERS.unpack_from(self._inodes.content, place)
        return kind >= _LARGE, (mode, *self._squashfs.owner(uid, gid), mtime)

    def _directory(self, path: bytes, place: int) -> tuple[TreeEntry, list[tuple[bytes, int]]]:
        if self._kind(place) != b"5":
            raise ValueError("its root is not a directory")
        is_large, common = self._common(place)
        if is_large:
            _, size, block, _, _, offset, _ = _LARGE_DIRECTORY.unpack_from(self._inodes.content, place + _NUMBERS.size)
        else:
            block, _, size, offset, _ = _DIRECTORY.unpack_from(self._inodes.content, place + _NUMBERS.size)
        size -= _END_OF_LIST
        return TreeEntry(path, b"5", *common), self._children(self._lists.place((block, offset)), size) if size > 0 else []

    def _children(self, place: int, size: int) -> list[tuple[bytes, int]]:
        """Return the names in a directory, and the places of their inodes."""
        lists, end = self._lists.content, place + size
        children = []
        while place < end:
            count, block, _ = _HEADER.unpack_from(lists, place)
            place += _HEADER.size
            for _ in range(count + 1):
                offset, _, _, length = _NAME.unpack_from(lists, place)
                place += _NAME.size + length + 1
                name = lists[place - length - 1 : place]
                if name in {b".", b".."} or b"/" in name or b"\0" in name:
                    raise ValueError(f"it has a file with the name {name!r}")
                children.append((name, self._inodes.place((block, offset))))
        return children

    def _other(self, path: bytes, place: int) -> TreeEntry:
        kind = self._kind(place)
        is_large, common = self._common(place)
        start = place + _NUMBERS.size
        if kind == b"2":
            length = _LINK.unpack_from(self._inodes.content, start)[1]
            start += _LINK.size
            return TreeEntry(path, kind, *common, self._inodes.content[start : start + length])
        if kind != b"0":
            return TreeEntry(path, kind, *common)
        has_links = is_large and _LARGE_FILE.unpack_from(self._inodes.content, start)[3] > 1
        if has_links:
            first = self._first_names.setdefault(place, path)
            if first != path:
                return TreeEntry(path, b"1", *common, first)
        return TreeEntry(path, kind, *common, file=self._file(start, common, is_large=is_large), has_links=has_links)

    def _file(self, place: int, common: tuple[int, int, int, int], *, is_large: bool) -> SquashfsFile:
        mode, uid, gid, mtime = common
        if is_large:
            start, size, _, _, fragment, position, _ = _LARGE_FILE.unpack_from(self._inodes.content, place)
            place += _LARGE_FILE.size
        else:
            start, fragment, position, size = _FILE.unpack_from(self._inodes.content, place)
            place += _FILE.size
        is_whole = fragment == _NO_FRAGMENT
        count = -(-size // self._squashfs.block_size) if is_whole else size // self._squashfs.block_size
        blocks = struct.unpack_from(f"<{count}I", self._inodes.content, place) if count else ()
        return SquashfsFile(mtime, mode, uid, gid, size, start, blocks, None if is_whole else fragment, position)
