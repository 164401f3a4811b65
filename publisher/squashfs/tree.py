"""The tree of a squashfs, in memory, until its inodes are written: some 450 bytes for each path, and its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.sifs.squashfs_layout import DIRECTORY, FIFO, FILE, LINK

if TYPE_CHECKING:
    from publisher.squashfs.data_area import FileData

    Xattrs = tuple[tuple[bytes, bytes], ...]

_KINDS = {b"0": FILE, b"2": LINK, b"5": DIRECTORY, b"6": FIFO}


class Node:
    """What an inode says.

    Attributes:
        kind: as in an inode.
        mode: permission bits.
        uid: owner.
        gid: group.
        mtime: seconds since the epoch.
        target: of a symbolic link.
        data: where a file's content is.
        xattrs: names and values of its extended attributes, in order.
        names: number of its names, of a directory that of the directories in it.
        children: what is in a directory, by name, in any order.
        number: number of the inode, 0 until it is known.
        reference: place of the inode, None until it is written: block and offset in one number.
    """

    __slots__ = (
        "children", "data", "gid", "kind", "mode", "mtime", "names", "number", "reference", "target", "uid", "xattrs"
    )  # fmt: skip

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.mode = self.uid = self.gid = self.mtime = 0
        self.target = b""
        self.data: FileData | None = None
        self.xattrs: Xattrs = ()
        self.names = 0
        self.children: dict[bytes, Node] | None = {} if kind == DIRECTORY else None
        self.number = 0
        self.reference: int | None = None

    def sorted_children(self) -> list[tuple[bytes, Node]]:
        """Return names and nodes of what is in a directory, in the order of the names."""
        return sorted((self.children or {}).items())


class Tree:
    """The paths of an image, added in any order but for hard links, which follow what they link to.

    Args:
        mode: permission bits of the root directory, whose owner is 0:0.
        mtime: its time, seconds since the epoch.
    """

    def __init__(self, mode: int, mtime: int) -> None:
        self.root = Node(DIRECTORY)
        self.root.mode, self.root.mtime = mode, mtime
        self._last = (
            b"",
            self.root,
        )  # path and node of the directory that was met last: entries come one directory after another

    def add(self, kind: bytes, path: bytes, mode: int, uid: int, gid: int, mtime: int) -> Node:  # noqa: PLR0917 - as of a node
        """Add a path that is no hard link, and return its node; ``kind`` is a tar type flag."""
        if kind == b"5":
            node = self._directory(path)
        else:
            node = Node(_KINDS[kind])
            self._place(path, node)
        node.mode, node.uid, node.gid, node.mtime = mode, uid, gid, mtime
        return node

    def link(self, path: bytes, target: bytes) -> None:
        """Add a hard link to a file."""
        parent, _, name = target.rpartition(b"/")
        self._place(path, self._children(parent)[name])

    def _place(self, path: bytes, node: Node) -> None:
        parent, _, name = path.rpartition(b"/")
        self._children(parent)[name] = node
        node.names += 1

    def _children(self, path: bytes) -> dict[bytes, Node]:
        children = self._directory(path).children
        if children is None:
            raise AssertionError("a path leads through what is no directory")
        return children

    def _directory(self, path: bytes) -> Node:
        """Return a directory's node; its attributes are not known yet if it is new."""
        if path == self._last[0]:
            return self._last[1]
        node = self.root
        for name in path.split(b"/") if path else ():
            if node.children is None:
                raise AssertionError("a path leads through what is no directory")
            below = node.children.get(name)
            if below is None:
                below = node.children[name] = Node(DIRECTORY)
                node.names += 1
            node = below
        self._last = (path, node)
        return node
