"""The contents of an earlier squashfs, whose blocks are copied into a new one instead of being compressed again.

Equal contents have equal blocks, as long as the compression, its level and the version of its library are the same. A file is
known by the sha256 of its content, from the earlier image's file index. Which file of the squashfs that is follows from the
order: contents lie in the order of the index, small files in their fragment blocks, others by their blocks. The sizes have to
agree.
"""

from __future__ import annotations

import hashlib
from operator import attrgetter
from typing import TYPE_CHECKING

from publisher.fileindex.format import read_raw_lines
from publisher.sifs.squashfs_layout import BLOCK, STORED_DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import IO

    from publisher.sifs.squashfs import Squashfs, SquashfsFile
    from publisher.squashfs.output import SquashfsOutput

_SIZE, _CONTENT = 4, 6  # columns of a line of a file index
_DIGEST = 64  # hexadecimal digits
_SAMPLE = 12  # blocks of each kind that are compressed again
_REMEMBERED = 16  # fragment blocks whose contents are needed soon again


class KnownContents:
    """The contents of an open squashfs.

    Args:
        squashfs: the squashfs.
        file_index: the file index of the image that it was made of.

    Attributes:
        files: sha256 of a content (32 bytes) -> where it is.
        copied: bytes that were copied.

    Raises:
        ValueError: they do not belong together, or the squashfs has files that are not told apart by their order. A damaged
            squashfs raises one of :data:`publisher.sifs.squashfs.ERRORS`.
        OSError: they cannot be read.
    """

    def __init__(self, squashfs: Squashfs, file_index: IO[bytes]) -> None:
        self._squashfs = squashfs
        self.copied = 0
        if squashfs.block_size != BLOCK:
            raise ValueError("its blocks have another size")
        small, large, holes = _sorted(squashfs)
        self.files = dict(holes)
        parts: dict[int, list[bytes]] = {}  # number of a fragment block -> what it has
        for size, digest in _listed(file_index, holes):
            file = (large if size >= squashfs.block_size else small).pop()
            if file.size != size:
                raise ValueError("the sizes of the files differ from those in the file index")
            self.files.setdefault(digest, file)
            if file.fragment is not None:
                parts.setdefault(file.fragment, []).append(part_of(digest, bool(file.blocks)))
        if small or large:
            raise ValueError("there are files that the file index does not have")
        self._fragments = {b"".join(known): number for number, known in parts.items()}
        self._end = squashfs.ends(_REMEMBERED)

    def check_compression(self, compress: Callable[[bytes], bytes | None]) -> None:
        """Compress some of the blocks again.

        Args:
            compress: returns a block compressed, None if it would not become smaller.

        Raises:
            ValueError: ``compress`` makes other bytes.
        """
        blocks = list(map(self._squashfs.fragment, self._fragments.values()))
        blocks += [(file.start, next(filter(None, file.blocks))) for file in self.files.values() if any(file.blocks)]
        for are_stored in (False, True):
            some = [block for block in blocks if bool(block[1] & STORED_DATA) == are_stored]
            for start, length in some[:: len(some) // _SAMPLE + 1]:
                data, content = self._squashfs.block(start, length)
                if (compress(content) or content) != data:
                    raise ValueError("its blocks were compressed otherwise")

    def fragment(self, parts: list[bytes]) -> tuple[int, int] | None:
        """Return where a fragment block is that has exactly these parts, and its length with the bit; None if there is none.

        Args:
            parts: as :func:`part_of` gives them, in their order.
        """
        number = self._fragments.get(b"".join(parts))
        return None if number is None else self._squashfs.fragment(number)

    def end(self, file: SquashfsFile) -> memoryview:
        """Return the end of a file's content, which is in a fragment block."""
        return self._end(file)

    def copy_to(self, output: SquashfsOutput, start: int, size: int) -> None:
        """Append bytes of the squashfs, from an offset on, to another one. Raises OSError."""
        self.copied += size
        output.copy(self._squashfs.descriptor, self._squashfs.offset + start, size)


def part_of(digest: bytes, is_end: bool) -> bytes:
    """Return what identifies a content in a fragment block.

    Args:
        digest: sha256 of the file's content.
        is_end: the file has whole blocks too.
    """
    return (b"\1" if is_end else b"\0") + digest


def copied_size(blocks: Iterable[int]) -> int:
    """Return the bytes that blocks have on the disk."""
    return sum(length & ~STORED_DATA for length in blocks)


def _sorted(squashfs: Squashfs) -> tuple[list[SquashfsFile], list[SquashfsFile], dict[bytes, SquashfsFile]]:
    """Return the small files and the others, each from the last to the first; and by their sha256, small ones of zeros alone."""
    small, large, holes = [], [], {}
    for file in squashfs.files():
        if file.size >= squashfs.block_size:
            if not any(file.blocks):
                raise ValueError("a large file has zeros alone")
            large.append(file)
        elif file.fragment is not None:
            small.append(file)
        elif file.size:
            holes[hashlib.sha256(bytes(file.size)).digest()] = file
    small.sort(key=attrgetter("fragment", "fragment_offset"), reverse=True)
    large.sort(key=attrgetter("start"), reverse=True)
    return small, large, holes


def _listed(file_index: IO[bytes], holes: Collection[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield size and sha256 of the files with a content, but for those of zeros alone."""
    for line in read_raw_lines(file_index):
        if line.startswith(b"f"):
            columns = line.split(b" ", _CONTENT + 1)
            size, digest = int(columns[_SIZE]), bytes.fromhex(columns[_CONTENT][:_DIGEST].decode())
            if size and digest not in holes:
                yield size, digest
