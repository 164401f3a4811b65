"""The list of the names in one directory, as it is in the table of directories: groups of up to 256 names."""

from __future__ import annotations

import struct

from publisher.sifs.squashfs_layout import LIST, NAME
from publisher.squashfs.metadata import BLOCK

_MAX_GROUP = 256  # names
_MAX_DELTA, _MIN_DELTA = 32767, -32768  # of the number of an inode, to that of the first in its group
INDEX = struct.Struct("<III")
"""In the inode of a large directory: offset in its list, block of the table that has it, length of the next name less one."""


class DirectoryList:
    """The list of one directory; names are added in their order.

    Attributes:
        content: the list.
        index: of a list of several metadata blocks: offset of a group in it, and the first name there.
    """

    def __init__(self) -> None:
        self.content = bytearray()
        self.index: list[tuple[int, bytes]] = []
        self._indexed = 0  # offset of the group that was put into the index last
        self._group: int | None = None  # offset of the current group
        self._count = _MAX_GROUP
        self._block = self._number = 0

    def add(self, reference: int, number: int, name: bytes, kind: int) -> None:
        """Add a name.

        Args:
            reference: place of its inode: block and offset in one number.
            number: number of its inode.
            name: the name.
            kind: kind of its inode, without :data:`publisher.sifs.squashfs_layout.LARGE`.
        """
        block, offset = reference >> 16, reference & 0xFFFF
        delta = number - self._number
        is_far = self._group is not None and len(self.content) + NAME.size + len(name) - self._indexed > BLOCK
        if self._count == _MAX_GROUP or block != self._block or is_far or not _MIN_DELTA <= delta <= _MAX_DELTA:
            if is_far:
                self.index.append((len(self.content), name))
                self._indexed = len(self.content)
            self._end_group()
            self._group, self._count, self._block, self._number, delta = len(self.content), 0, block, number, 0
            self.content += bytes(LIST.size)
        self.content += NAME.pack(offset, delta, kind, len(name) - 1) + name
        self._count += 1

    def finish(self) -> None:
        """Complete the list."""
        self._end_group()

    def _end_group(self) -> None:
        if self._group is not None:
            LIST.pack_into(self.content, self._group, self._count - 1, self._block, self._number)
