"""The tree of a squashfs: its directories, walked from the root, with the inode behind each name.

The tables of inodes and of directories are kept in memory as they are: about 60 bytes for each path.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from publisher.sifs import squashfs_layout as layout
from publisher.sifs.squashfs import SquashfsFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.sifs.squashfs import Squashfs

_KINDS = {layout.DIRECTORY: b"5", layout.FILE: b"0", layout.LINK: b"2", layout.FIFO: b"6"}  # of an inode -> tar type flag
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
        kind = _KINDS.get(number - layout.LARGE if number > layout.LARGE else number)
        if kind is None:
            raise ValueError(f"it has an inode of kind {number}")
        return kind

    def _common(self, place: int) -> tuple[int, tuple[int, int, int, int]]:
        """Return the number of an inode's kind; and its mode, uid, gid and time."""
        number, mode, uid, gid, mtime, _ = layout.INODE.unpack_from(self._inodes.content, place)
        return number, (mode, *self._squashfs.owner(uid, gid), mtime)

    def _directory(self, path: bytes, place: int) -> tuple[TreeEntry, list[tuple[bytes, int]]]:
        if self._kind(place) != b"5":
            raise ValueError("its root is not a directory")
        number, common = self._common(place)
        numbers = layout.DIRECTORIES[number].unpack_from(self._inodes.content, place + layout.INODE.size)
        if number == layout.DIRECTORY:
            block, _, size, offset, _ = numbers
        else:
            _, size, block, _, _, offset, _ = numbers
        size -= _END_OF_LIST
        return TreeEntry(path, b"5", *common), self._children(self._lists.place((block, offset)), size) if size > 0 else []

    def _children(self, place: int, size: int) -> list[tuple[bytes, int]]:
        """Return the names in a directory, and the places of their inodes."""
        lists, end = self._lists.content, place + size
        children = []
        while place < end:
            count, block, _ = layout.LIST.unpack_from(lists, place)
            place += layout.LIST.size
            for _ in range(count + 1):
                offset, _, _, length = layout.NAME.unpack_from(lists, place)
                place += layout.NAME.size + length + 1
                name = lists[place - length - 1 : place]
                if name in {b".", b".."} or b"/" in name or b"\0" in name:
                    raise ValueError(f"it has a file with the name {name!r}")
                children.append((name, self._inodes.place((block, offset))))
        return children

    def _other(self, path: bytes, place: int) -> TreeEntry:
        kind = self._kind(place)
        number, common = self._common(place)
        start = place + layout.INODE.size
        if kind == b"2":
            length = layout.LINKS.unpack_from(self._inodes.content, start)[1]
            start += layout.LINKS.size
            return TreeEntry(path, kind, *common, self._inodes.content[start : start + length])
        if kind != b"0":
            return TreeEntry(path, kind, *common)
        inode = layout.file_inode(layout.FILES[number].unpack_from(self._inodes.content, start), self._squashfs.block_size)
        first = self._first_names.setdefault(place, path) if inode.links > 1 else path
        if first != path:
            return TreeEntry(path, b"1", *common, first)
        mode, uid, gid, mtime = common
        start += layout.FILES[number].size
        blocks = struct.unpack_from(f"<{inode.blocks}I", self._inodes.content, start) if inode.blocks else ()
        file = SquashfsFile.of(mtime, mode, (uid, gid), inode, blocks)
        return TreeEntry(path, kind, *common, file=file, has_links=inode.links > 1)
