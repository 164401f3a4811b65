"""The tables of inodes and directories of a squashfs, in the order in which mksquashfs 4.5.1 writes them.

Inodes are numbered from above: each name of a directory, in the order of bytes, and what is below it before the next name. They
are written from below: what is in a directory, then the directory itself, whose list of names refers to their places.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from publisher.sifs import squashfs_layout as layout
from publisher.squashfs.directory_list import INDEX, DirectoryList
from publisher.squashfs.metadata import BLOCK, MetadataWriter
from publisher.squashfs.xattr_table import NO_XATTRS, XattrTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.squashfs.data_area import FileData
    from publisher.squashfs.tree import Node

_LARGE_DIRECTORY = 257  # names; or as many bytes of them as a metadata block has
_LARGE_FILE = 1 << 32  # bytes, also as an offset
_SMALL_FILE = struct.Struct("<HHHHIIIIII")
_FIFO = struct.Struct("<I")
_XATTR = struct.Struct("<I")


class InodeTables:
    """The tables of a tree.

    Args:
        compress: returns a metadata block compressed, None if it would not become smaller.

    Attributes:
        inodes: the table of inodes.
        directories: the table of directories.
        xattrs: the table of extended attributes.
        count: number of the inodes.
    """

    def __init__(self, compress: Callable[[bytes], bytes | None]) -> None:
        self.inodes = MetadataWriter(compress)
        self.directories = MetadataWriter(compress)
        self.xattrs = XattrTable(compress)
        self._ids: dict[int, int] = {}
        self.count = 0

    @property
    def ids(self) -> list[int]:
        """Return the owners and groups, in the order of their indexes."""
        return list(self._ids)

    def write(self, root: Node) -> int:
        """Write the inodes and lists of a tree, whose files were written; return the place of the root's inode."""
        self.count = _number(root)
        waiting = [(b"", root, iter(root.sorted_children()), DirectoryList())]
        while True:
            name, directory, children, names = waiting[-1]
            for below, node in children:
                if node.kind == layout.DIRECTORY:
                    waiting.append((below, node, iter(node.sorted_children()), DirectoryList()))
                    break
                if node.reference is None:
                    node.reference = self._append(self._inode(node))
                names.add(node.reference, node.number, below, node.kind)
            else:
                waiting.pop()
                # The parent of the root is a number behind all others.
                parent = waiting[-1][1].number if waiting else root.number + 1
                reference = self._write_directory(directory, names, parent)
                if not waiting:
                    return reference
                waiting[-1][3].add(reference, directory.number, name, layout.DIRECTORY)

    def _inode(self, node: Node) -> bytes:
        """Return the inode of a node that is no directory."""
        if node.kind == layout.FILE:
            return self._file(node, node.data)
        large, xattrs = self._xattrs(node)
        if node.kind == layout.LINK:
            return self._head(node, large) + layout.LINKS.pack(node.names, len(node.target)) + node.target + xattrs
        return self._head(node, large) + _FIFO.pack(node.names) + xattrs

    def _file(self, node: Node, data: FileData | None) -> bytes:
        if data is None:
            raise AssertionError("a file without a content")
        xattr = self.xattrs.add(node.xattrs) if node.xattrs else NO_XATTRS
        blocks = struct.pack(f"<{len(data.blocks)}I", *data.blocks) if data.blocks else b""
        is_large = data.size >= _LARGE_FILE or data.start >= _LARGE_FILE
        if node.names == 1 and not data.holes and not node.xattrs and not is_large:
            uid, gid = self._index(node.uid), self._index(node.gid)
            head = (layout.FILE, node.mode, uid, gid, node.mtime, node.number)
            return _SMALL_FILE.pack(*head, data.start, data.fragment, data.offset, data.size) + blocks
        holes = min(data.holes, data.size - 1) if data.holes else 0
        numbers = (data.start, data.size, holes, node.names, data.fragment, data.offset, xattr)
        return self._head(node, layout.LARGE) + layout.FILES[layout.FILE + layout.LARGE].pack(*numbers) + blocks

    def _write_directory(self, node: Node, names: DirectoryList, parent: int) -> int:
        """Write the list and the inode of a directory; return the place of the inode."""
        names.finish()
        block, offset = self.directories.place
        self.directories.append(names.content)
        index = self._pack_list(names, block, offset)
        large, xattrs = self._xattrs(node)
        size, links = len(names.content) + 3, node.names + 2
        if not large and not _is_large(node):
            numbers = (block, links, size, offset, parent)
            inode = self._head(node, 0) + layout.DIRECTORIES[layout.DIRECTORY].pack(*numbers)
        else:
            many = (links, size, block, parent, len(names.index), offset)
            head = layout.DIRECTORIES[layout.DIRECTORY + layout.LARGE].pack(*many, NO_XATTRS)
            inode = self._head(node, layout.LARGE) + head[: -_XATTR.size] + (xattrs or _XATTR.pack(NO_XATTRS)) + index
        return self._append(inode)

    def _pack_list(self, names: DirectoryList, block: int, offset: int) -> bytes:
        """Compress the blocks of the table that a list has filled; return its index, which names them."""
        index, waiting = bytearray(), iter([*names.index, None])
        entry, limit = next(waiting), BLOCK - offset
        while True:
            while entry is not None and entry[0] < limit:
                index += INDEX.pack(entry[0], block, len(entry[1]) - 1) + entry[1]
                entry = next(waiting)
            limit += BLOCK
            if self.directories.place[1] < BLOCK:
                return bytes(index)
            self.directories.pack_one()
            block = self.directories.place[0]

    def _xattrs(self, node: Node) -> tuple[int, bytes]:
        """Return what is added to the kind of a node with extended attributes, and to its inode."""
        return (layout.LARGE, _XATTR.pack(self.xattrs.add(node.xattrs))) if node.xattrs else (0, b"")

    def _head(self, node: Node, large: int) -> bytes:
        uid, gid = self._index(node.uid), self._index(node.gid)
        return layout.INODE.pack(node.kind + large, node.mode, uid, gid, node.mtime, node.number)

    def _index(self, owner: int) -> int:
        return self._ids.setdefault(owner, len(self._ids))

    def _append(self, inode: bytes) -> int:
        """Append an inode to its table; return its place."""
        self.inodes.pack()
        block, offset = self.inodes.place
        self.inodes.append(inode)
        return block << 16 | offset


def _is_large(node: Node) -> bool:
    names = node.children or {}
    if len(names) >= _LARGE_DIRECTORY:
        return True
    return sum(map(len, names)) + layout.NAME.size * len(names) >= BLOCK


def _number(root: Node) -> int:
    """Number the inodes; return how many there are."""
    number = 0
    waiting = [iter(root.sorted_children())]
    while waiting:
        for _, node in waiting[-1]:
            if not node.number:
                number += 1
                node.number = number
            if node.kind == layout.DIRECTORY:
                waiting.append(iter(node.sorted_children()))
                break
        else:
            waiting.pop()
    root.number = number + 1
    return root.number
