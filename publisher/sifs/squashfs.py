"""The regular files of a squashfs 4.0, read from its inodes in constant memory, by several threads.

The layout (:mod:`publisher.sifs.squashfs_layout`) is a superblock; the data of files in blocks of 128 KiB, the ends of small
files together in fragment blocks; inodes, directories and the table of fragments in metadata blocks of 8 KiB. Extended attributes
are passed over.
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple, Self

import zstandard
from isal import isal_zlib

from publisher.sifs import squashfs_layout as layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from publisher.sifs.squashfs_layout import FileInode

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_MAGIC = b"hsqs"
_GZIP, _ZSTD = 1, 6
_METADATA = 8192  # bytes of a metadata block
_STORED = 0x8000  # this bit in the length of a metadata block: it is not compressed
_LENGTH = struct.Struct("<H")
_INDEX = struct.Struct("<III")  # of a large directory; a name follows
_NO_TABLE = 0xFFFFFFFFFFFFFFFF
_FIXED = {4: 8, 5: 8, 6: 4, 7: 4, 11: 12, 12: 12, 13: 8, 14: 8}  # further bytes of devices, fifos and sockets
_FRAGMENT = struct.Struct("<QII")
_MAX_BLOCK = 1 << 20
_PORTION = 1 << 20  # bytes that are read from the file at a time
_ISAL_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub calls the class an instance
ERRORS = (struct.error, zlib.error, zstandard.ZstdError, _ISAL_ERROR, ValueError, IndexError, MemoryError)
"""What the methods of :class:`Squashfs` raise if it is damaged; MemoryError for a block that claims to be immense."""


class SquashfsFile(NamedTuple):
    """A regular file: its attributes, and where its content is.

    Attributes:
        mtime: seconds since the epoch.
        size: bytes of its content.
        start: offset of its first block in the squashfs.
        blocks: lengths of its blocks on the disk, with a bit for those that are not compressed; 0 is a block of zeros.
        fragment: number of the fragment block that has its end, None if none has.
        fragment_offset: where its end begins there.
    """

    mtime: int
    mode: int
    uid: int
    gid: int
    size: int
    start: int
    blocks: tuple[int, ...]
    fragment: int | None
    fragment_offset: int

    @classmethod
    def of(cls, mtime: int, mode: int, owner: tuple[int, int], inode: FileInode, blocks: tuple[int, ...]) -> Self:
        """Make one from what an inode says, and the lengths of its blocks."""
        return cls(mtime, mode, *owner, inode.size, inode.start, blocks, inode.fragment, inode.fragment_offset)


class MetadataTable:
    """A table of inodes or directories, whole.

    Attributes:
        content: its bytes.
    """

    def __init__(self, blocks: Iterable[tuple[int, bytes]], start: int) -> None:
        self._begins: dict[int, int] = {}  # where a metadata block is on the disk -> where its content begins
        parts, size = [], 0
        for position, block in blocks:
            self._begins[position - start] = size
            parts.append(block)
            size += len(block)
        self.content = b"".join(parts)

    def place(self, reference: tuple[int, int]) -> int:
        """Return where in ``content`` something is, of which the place of its metadata block and an offset in it are known."""
        block, offset = reference
        begin = self._begins.get(block)
        if begin is None:
            raise ValueError("it refers to a metadata block that does not exist")
        return begin + offset


class _Superblock(NamedTuple):
    magic: bytes
    inodes: int
    mtime: int
    block_size: int
    fragments: int
    compression: int
    block_log: int
    flags: int
    ids: int
    major: int
    minor: int
    root: int
    size: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int


class Squashfs:
    """An open squashfs. Threads may share it.

    Args:
        descriptor: the open file.
        offset: where the squashfs begins in it.

    Attributes:
        descriptor: the open file.
        offset: where the squashfs begins in it.
        block_size: bytes of a data block.

    Raises:
        ValueError: it is not a squashfs 4.0 with gzip or zstd. All methods may raise :data:`ERRORS` if it is damaged.
        OSError: it cannot be read.
    """

    def __init__(self, descriptor: int, offset: int) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self._size = os.fstat(descriptor).st_size - offset
        self._super = _Superblock(*_SUPERBLOCK.unpack(self._read(0, _SUPERBLOCK.size)))
        top = self._super
        if top.magic != _MAGIC or (top.major, top.minor) != (4, 0) or top.compression not in {_GZIP, _ZSTD}:
            raise ValueError("it is not a squashfs 4.0 with gzip or zstd")
        if not 0 < top.block_size <= _MAX_BLOCK:
            raise ValueError("its blocks are too large")
        self.block_size = top.block_size
        self._ids = [number for (number,) in struct.iter_unpack("<I", self._table(top.id_table, 4 * top.ids))]
        self._fragments = self._table(top.fragment_table, _FRAGMENT.size * top.fragments)

    @property
    def root(self) -> tuple[int, int]:
        """Return where the inode of the root directory is: place of its metadata block, and offset in it."""
        return self._super.root >> 16, self._super.root & 0xFFFF

    @property
    def inode_count(self) -> int:
        """Return how many inodes it says to have."""
        return self._super.inodes

    @property
    def has_xattrs(self) -> bool:
        """Return whether any path has extended attributes."""
        return self._super.xattr_table != _NO_TABLE

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the uid and gid that an inode's indexes stand for."""
        return self._ids[uid], self._ids[gid]

    def inode_table(self) -> MetadataTable:
        """Return the table of inodes."""
        return self._whole(self._super.inode_table, self._super.directory_table)

    def directory_table(self) -> MetadataTable:
        """Return the table of directories."""
        return self._whole(self._super.directory_table, self._end_of_directories())

    def files(self) -> Iterator[SquashfsFile]:
        """Yield the regular files in the order of their inodes, that of the stream that the squashfs was made from."""
        buffer = _Buffer(self._metadata(self._super.inode_table, self._super.directory_table))
        for _ in range(self._super.inodes):
            kind, mode, uid, gid, mtime, _ = buffer.take(layout.INODE)
            if kind not in layout.FILES:
                _pass_over(kind, buffer)
                continue
            inode = layout.file_inode(buffer.take(layout.FILES[kind]), self.block_size)
            blocks = buffer.take(struct.Struct(f"<{inode.blocks}I")) if inode.blocks else ()
            yield SquashfsFile.of(mtime, mode, self.owner(uid, gid), inode, blocks)
        if not buffer.is_empty:
            raise ValueError("its table of inodes has more than it should have")

    def names(self) -> Iterator[bytes]:
        """Yield the names in all directories, in an order that says nothing."""
        buffer = _Buffer(self._metadata(self._super.directory_table, self._end_of_directories()))
        while not buffer.is_empty:
            for _ in range(buffer.take(layout.LIST)[0] + 1):
                yield buffer.take_bytes(buffer.take(layout.NAME)[3] + 1)

    def reader(self) -> Callable[[SquashfsFile], bytes]:
        """Return a function that returns the sha256 of a file's content, for one thread."""
        content, end = self.contents(1), self.ends(1)  # many files have their ends in one fragment block

        def digest(file: SquashfsFile) -> bytes:
            if not file.blocks and file.fragment is not None:  # most files, some 3 us faster
                whole = end(file)
                if len(whole) != file.size:
                    raise ValueError("a file is shorter than its size")
                return hashlib.sha256(whole).digest()
            sha256 = hashlib.sha256()
            for part in content(file):
                sha256.update(part)
            return sha256.digest()

        return digest

    def contents(self, fragments: int) -> Callable[[SquashfsFile], Iterator[bytes | memoryview]]:
        """Return a function that yields a file's content in parts, for one thread.

        Args:
            fragments: how many fragment blocks to remember: files whose names are neighbours need not have neighbouring contents.
        """
        decompress, end = self._decompressor(), self.ends(fragments)

        def content(file: SquashfsFile) -> Iterator[bytes | memoryview]:
            remaining = file.size
            for block in self._blocks(file, decompress) if file.blocks else ():
                yield block
                remaining -= len(block)
            if file.fragment is not None:
                yield (last := end(file))
                remaining -= len(last)
            if remaining:
                raise ValueError("a file is shorter or longer than its size")

        return content

    def ends(self, fragments: int) -> Callable[[SquashfsFile], memoryview]:
        """Return a function that returns the end of a file, which is in a fragment block, for one thread.

        Args:
            fragments: how many fragment blocks to remember.
        """
        decompress = self._decompressor()

        @functools.lru_cache(fragments)
        def fragment(number: int) -> bytes:
            start, length = self.fragment(number)
            return decompress(self._read(start, length & ~layout.STORED_DATA), length)

        def end(file: SquashfsFile) -> memoryview:
            if file.fragment is None:
                raise ValueError("a file has no end in a fragment block")
            size = file.size - self.block_size * len(file.blocks)
            return memoryview(fragment(file.fragment))[file.fragment_offset : file.fragment_offset + size]

        return end

    def block(self, start: int, length: int) -> tuple[bytes, bytes]:
        """Return a block of a file, or a fragment block: as it is on the disk, and its content.

        Args:
            start: offset in the squashfs.
            length: length on the disk, with the bit of those that are not compressed.
        """
        stored = self._read(start, length & ~layout.STORED_DATA)
        return stored, self._decompressor()(stored, length)

    def fragment(self, number: int) -> tuple[int, int]:
        """Return where a fragment block is, and its length with a bit if it is not compressed."""
        start, length, _ = _FRAGMENT.unpack_from(self._fragments, number * _FRAGMENT.size)
        return start, length

    def _blocks(self, file: SquashfsFile, decompress: Callable[[bytes | memoryview, int], bytes]) -> Iterator[bytes]:
        position, remaining = file.start, file.size
        data, base = b"", position  # a portion of the file's blocks, and where it begins
        ends = position + sum(length & ~layout.STORED_DATA for length in file.blocks)
        for length in file.blocks:
            stored = length & ~layout.STORED_DATA
            if not stored:
                block = bytes(min(self.block_size, remaining))
            else:
                if position + stored > base + len(data):
                    data, base = self._read(position, min(max(_PORTION, stored), ends - position)), position
                block = decompress(memoryview(data)[position - base : position - base + stored], length)
            position += stored
            remaining -= len(block)
            yield block

    def _decompressor(self) -> Callable[[bytes | memoryview, int], bytes]:
        """Return a function that returns the content of a data block, from its bytes on the disk and its length with the bit."""
        inflate: Callable[[bytes | memoryview], bytes]
        if self._super.compression == _ZSTD:
            zstd, size = zstandard.ZstdDecompressor(), self.block_size

            def inflate(data: bytes | memoryview) -> bytes:
                return zstd.decompress(data, max_output_size=size)
        else:
            inflate = isal_zlib.decompress

        def decompress(data: bytes | memoryview, length: int) -> bytes:
            content = bytes(data) if length & layout.STORED_DATA else inflate(data)
            if len(content) > self.block_size:
                raise ValueError("a block is too large")
            return content

        return decompress

    def _whole(self, start: int, end: int) -> MetadataTable:
        return MetadataTable(self._placed_metadata(start, end), start)

    def _end_of_directories(self) -> int:
        top = self._super
        fragments = self._first_block(top.fragment_table) if top.fragments else top.fragment_table
        return min(fragments, self._first_block(top.id_table), self._first_block(top.export_table))

    def _first_block(self, table: int) -> int:
        """Return the offset of the first metadata block of a table, or one behind everything if there is no such table."""
        return table if table == _NO_TABLE else struct.unpack("<Q", self._read(table, 8))[0]

    def _table(self, start: int, size: int) -> bytes:
        """Return a table, which lies in metadata blocks whose offsets are at ``start``."""
        count = -(-size // _METADATA)
        content = b"".join(
            next(self._metadata(first, min(first + _LENGTH.size + _METADATA, self._size)), b"")
            for (first,) in struct.iter_unpack("<Q", self._read(start, 8 * count))
        )
        if len(content) != size:
            raise ValueError("a table has another size than it should have")
        return content

    def _metadata(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the content of the metadata blocks between two offsets."""
        return (content for _, content in self._placed_metadata(start, end))

    def _placed_metadata(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield place and content of the metadata blocks between two offsets."""
        zstd = zstandard.ZstdDecompressor()
        data, base = b"", start
        while start < end:
            if start + _LENGTH.size + _METADATA > base + len(data):
                data, base = self._read(start, min(_PORTION, end - start)), start
            length = _LENGTH.unpack_from(data, start - base)[0]
            first, stored = start - base + _LENGTH.size, length & ~_STORED
            block = data[first : first + stored]
            if len(block) != stored or not stored:
                raise ValueError("a metadata block is cut off")
            if not length & _STORED:
                is_zstd = self._super.compression == _ZSTD
                block = zstd.decompress(block, max_output_size=_METADATA) if is_zstd else isal_zlib.decompress(block)
            yield start, block
            start += _LENGTH.size + stored

    def _read(self, start: int, size: int) -> bytes:
        if size > self._size - start:
            raise ValueError("it is cut off")
        return os.pread(self.descriptor, size, self.offset + start)


class _Buffer:
    """The content of metadata blocks, of which only what is not parsed yet is in memory."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._data = b""
        self._position = 0

    @property
    def is_empty(self) -> bool:
        if self._position == len(self._data):
            self._data, self._position = next(self._blocks, b""), 0
        return not self._data

    def take(self, numbers: struct.Struct) -> tuple[int, ...]:
        self._fill(numbers.size)
        self._position += numbers.size
        return numbers.unpack_from(self._data, self._position - numbers.size)

    def take_bytes(self, size: int) -> bytes:
        self._fill(size)
        self._position += size
        return self._data[self._position - size : self._position]

    def skip(self, size: int) -> None:
        self._fill(size)
        self._position += size

    def _fill(self, size: int) -> None:
        if len(self._data) - self._position >= size:
            return
        parts = [self._data[self._position :]]
        length = len(parts[0])
        while length < size:
            block = next(self._blocks, None)
            if block is None:
                raise ValueError("a table is cut off")
            parts.append(block)
            length += len(block)
        self._data, self._position = b"".join(parts), 0


def _pass_over(kind: int, buffer: _Buffer) -> None:
    """Pass over the rest of an inode that is no regular file. Raises ValueError for a kind that does not exist."""
    if kind in layout.DIRECTORIES:
        numbers = buffer.take(layout.DIRECTORIES[kind])
        for _ in range(numbers[4] if kind > layout.LARGE else 0):
            buffer.skip(buffer.take(_INDEX)[2] + 1)
    elif kind in {layout.LINK, layout.LINK + layout.LARGE}:
        buffer.skip(buffer.take(layout.LINKS)[1] + (4 if kind > layout.LARGE else 0))
    elif kind in _FIXED:
        buffer.skip(_FIXED[kind])
    else:
        raise ValueError(f"it has an inode of an unknown kind: {kind}")
