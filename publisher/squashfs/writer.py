"""A squashfs from the entries of an image, without a tar stream: the bytes are those of mksquashfs 4.5.1."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Self

from publisher.sifs.squashfs_layout import BLOCK
from publisher.squashfs.data_area import DataArea
from publisher.squashfs.inode_tables import InodeTables
from publisher.squashfs.metadata import BLOCK as METADATA_BLOCK
from publisher.squashfs.metadata import placed_table
from publisher.squashfs.output import SquashfsOutput
from publisher.squashfs.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.squashfs.known_contents import KnownContents
    from publisher.squashfs.libzstd import Libzstd

    Xattrs = tuple[tuple[bytes, bytes], ...]

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_OPTIONS = struct.Struct("<HI")  # the compression's: their length with the bit of metadata that is not compressed, and the level
_ZSTD = 6
_ENDS_IN_FRAGMENTS, _HAS_OPTIONS = 1 << 5, 1 << 10
_USUAL_LEVEL = 15  # mksquashfs's, which it does not write down
_FRAGMENT = struct.Struct("<QII")
_NONE = 0xFFFFFFFFFFFFFFFF  # in place of a table
_PADDING = 4096


class SquashfsWriter:
    """A writer of one squashfs, compressed with zstd. A context manager: leaving the block ends its threads.

    Args:
        descriptor: the open file that becomes the squashfs.
        origin: offset of the squashfs in the file.
        zstd: compresses.
        level: level of the compression.
        mode: permission bits of the root directory, whose owner is 0:0.
        newest: time of the root directory and of the squashfs, seconds since the epoch; no entry has a later one.
        check: called about once for each MiB of contents; what it raises ends the work.
        known: contents that are copied; they have to be compressed by the same library at the same level. None for none.
    """

    def __init__(
        self,
        descriptor: int,
        origin: int,
        zstd: Libzstd,
        level: int,
        *,
        mode: int,
        newest: int,
        check: Callable[[], None],
        known: KnownContents | None = None,
    ) -> None:
        self._level = level
        self._newest = newest
        start = _SUPERBLOCK.size + (_OPTIONS.size if level != _USUAL_LEVEL else 0)
        self._output = SquashfsOutput(descriptor, origin, start)
        self._data = DataArea(self._output, lambda: zstd.compressor(level, BLOCK), check, known)
        self._compress = zstd.compressor(level, METADATA_BLOCK)
        self._tree = Tree(mode, newest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def add(  # noqa: PLR0917 - the columns of an entry
        self, kind: bytes, path: bytes, mode: int, uid: int, gid: int, mtime: int, target: bytes = b"", xattrs: Xattrs = ()
    ) -> None:
        """Add a path that is no regular file.

        Args:
            kind: tar type flag: directory, symbolic link, fifo, or hard link to a file that was added.
            path: path from the root.
            mode: permission bits.
            uid: owner.
            gid: group.
            mtime: seconds since the epoch.
            target: of a link; that of a hard link is a path from the root.
            xattrs: names and values of extended attributes.
        """
        if kind == b"1":
            self._tree.link(path, target)
            return
        node = self._tree.add(kind, path, mode, uid, gid, mtime)
        node.target = target
        node.xattrs = xattrs

    def add_file(  # noqa: PLR0917 - the columns of an entry
        self,
        path: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        size: int,
        content: Callable[[int, int], bytes],
        xattrs: Xattrs = (),
        digest: bytes = b"",
    ) -> None:
        """Add a regular file.

        Args:
            path: path from the root.
            mode: permission bits.
            uid: owner.
            gid: group.
            mtime: seconds since the epoch.
            size: bytes of the content.
            content: returns a part of the content, from a position on and of a size: called for one part after the other.
            xattrs: names and values of extended attributes.
            digest: sha256 of the content (32 bytes); if it is known, nothing of the content is asked for.

        Raises:
            OSError: the squashfs cannot be written.
        """
        node = self._tree.add(b"0", path, mode, uid, gid, mtime)
        node.data = self._data.add(size, content, digest)
        node.xattrs = xattrs

    def finish(self) -> None:
        """Write what is left of the contents, and all tables. Raises OSError."""
        self._data.finish()
        tables = InodeTables(self._compress)
        root = tables.write(self._tree.root)
        output = self._output

        def put(data: bytes) -> int:
            output.put(data)
            return output.end - len(data)

        def put_table(entries: bytes) -> int:
            data, place = placed_table(entries, output.end, self._compress)
            put(data)
            return place

        inodes = put(tables.inodes.finish())
        directories = put(tables.directories.finish())
        fragments = put_table(b"".join(_FRAGMENT.pack(start, length, 0) for start, length in self._data.fragments))
        ids = put_table(struct.pack(f"<{len(tables.ids)}I", *tables.ids))
        xattr_table, xattrs = tables.xattrs.finish(output.end)
        put(xattr_table)
        used = output.end
        put(bytes(-used % _PADDING))
        output.flush()
        numbers = (tables.count, self._newest, BLOCK, len(self._data.fragments), _ZSTD, BLOCK.bit_length() - 1)
        places = (root, used, ids, _NONE if xattrs is None else xattrs, inodes, directories, fragments, _NONE)
        self._write_head(numbers, len(tables.ids), places)

    def _write_head(self, numbers: tuple[int, ...], ids: int, places: tuple[int, ...]) -> None:
        """Write the superblock, and the options of the compression."""
        has_options = self._level != _USUAL_LEVEL
        flags = _ENDS_IN_FRAGMENTS | (_HAS_OPTIONS if has_options else 0)
        head = _SUPERBLOCK.pack(b"hsqs", *numbers, flags, ids, 4, 0, *places)
        if has_options:
            head += _OPTIONS.pack(0x8000 | 4, self._level)
        self._output.write([head], 0)
