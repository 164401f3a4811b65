"""The contents of the files of a squashfs: blocks of 128 KiB, and the ends of files together in fragment blocks.

Blocks are compressed in threads, outside of Python's lock, and written in the order in which they were added. What is left of a
file after its whole blocks goes into a fragment block that is being filled, one for small files and one for others; if it does
not fit, that one is complete and the next one begins. A block or an end of zeros alone is a hole. What an earlier squashfs has is
copied from there.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from publisher.sifs.squashfs_layout import BLOCK, STORED_DATA
from publisher.squashfs.known_contents import copied_size, part_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from publisher.sifs.squashfs import SquashfsFile
    from publisher.squashfs.known_contents import KnownContents
    from publisher.squashfs.output import SquashfsOutput

    Compress = Callable[[bytes], bytes | None]

NO_FRAGMENT = 0xFFFFFFFF
_BATCH = 1 << 20  # bytes that a thread compresses at a time
_COPY = 4096  # what a content that is copied counts in a batch
_PER_THREAD = 2  # batches
_MAX_THREADS = 8  # they compress 2 GB a second, as much as the one thread that adds contents can read; and take 4 MiB each


class FileData:
    """Where the content of a file is.

    Attributes:
        size: bytes of the content.
        start: offset of the first block; 0 if there is none.
        blocks: lengths of the blocks on the disk, with a bit for those that are not compressed; 0 is a hole.
        fragment: number of the fragment block that has the end of the content, :data:`NO_FRAGMENT` if none has.
        offset: where the end begins there.
        holes: bytes of zeros that are not stored.
    """

    __slots__ = ("blocks", "fragment", "holes", "offset", "size", "start")

    def __init__(self, size: int) -> None:
        self.size = size
        self.start = 0
        self.blocks: list[int] | tuple[()] = ()
        self.fragment = NO_FRAGMENT
        self.offset = 0
        self.holes = 0

    def add_block(self, length: int, start: int) -> None:
        """Add a block by its length on the disk; ``start`` is its offset."""
        if not self.blocks:
            self.start, self.blocks = start, []
        if not length:
            self.holes += min(BLOCK, self.size - BLOCK * len(self.blocks))
        self.blocks += [length]


@dataclass
class _Filling:
    """A fragment block that is being filled: with small files, or with the ends of others.

    Attributes:
        number: its number, given when the first content comes.
        ends: its contents, or the files of the earlier squashfs that have them.
        parts: what they are known by there.
        size: bytes of them.
    """

    number: int = 0
    ends: list[bytes | SquashfsFile] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class _Block(NamedTuple):
    """A block to compress: of a file, or a fragment block of several."""

    file: FileData | None
    fragment: int
    parts: list[bytes | memoryview]


class _Copy(NamedTuple):
    """Blocks to copy, by their offset in the earlier squashfs and their lengths."""

    file: FileData | None
    fragment: int
    start: int
    blocks: tuple[int, ...]


class DataArea:
    """A writer of contents; the caller closes it, which ends its threads.

    Args:
        output: where the blocks go.
        new_compressor: returns a function that returns a block compressed, None if it would not become smaller.
        check: called about once for each MiB; what it raises ends the work.
        known: contents that need not be compressed; None for none.

    Attributes:
        fragments: offset, and length as in :attr:`FileData.blocks`, of the fragment blocks that were written.
    """

    def __init__(
        self,
        output: SquashfsOutput,
        new_compressor: Callable[[], Compress],
        check: Callable[[], None],
        known: KnownContents | None = None,
    ) -> None:
        threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
        self._output = output
        self._new_compressor = new_compressor
        self._check = check
        self._known = known
        self._limit = _PER_THREAD * threads
        self._threads = ThreadPoolExecutor(threads)
        self._local = threading.local()
        self._small, self._ends = _Filling(), _Filling()
        self._batch: list[_Block | _Copy] = []
        self._batch_size = 0
        self._waiting: deque[tuple[list[_Block | _Copy], Future[list[tuple[bytes, int]]]]] = deque()
        self.fragments: list[tuple[int, int]] = []

    def close(self) -> None:
        """End the threads; what they still compress is not written."""
        self._threads.shutdown(cancel_futures=True)

    def add(self, size: int, content: Callable[[int, int], bytes], digest: bytes = b"") -> FileData:
        """Add a file.

        Args:
            size: bytes of its content.
            content: returns the content from a position on, and of a size: ``content(position, size)``, one after the other.
            digest: sha256 of its content (32 bytes), which is enough if the content is known; then nothing of it is read.

        Raises:
            OSError: the file cannot be written.
        """
        file = FileData(size)
        known = None if self._known is None else self._known.files.get(digest)
        if known is not None and known.size == size:
            self._add_known(file, known, digest)
            return file
        whole = size & ~(BLOCK - 1)
        for position in range(0, whole, BLOCK):
            self._add_block(_Block(file, 0, [content(position, BLOCK)]), BLOCK)
        if size > whole:
            end = content(whole, size - whole)
            if _is_hole(end):
                self._add_block(_Block(file, 0, [end]), len(end))
            else:
                self._add_end(file, end, len(end), digest)
        return file

    def finish(self) -> None:
        """Write everything that was added. Raises OSError."""
        for filling in (self._small, self._ends):
            if filling.ends:
                self._add_filled(filling)
        self._submit()
        while self._waiting:
            self._write_next()
        self._output.flush()

    def _add_known(self, file: FileData, known: SquashfsFile, digest: bytes) -> None:
        if known.blocks:
            self._add_block(_Copy(file, 0, known.start, known.blocks), _COPY)
        if known.fragment is not None:
            self._add_end(file, known, file.size - BLOCK * len(known.blocks), digest)

    def _add_end(self, file: FileData, end: bytes | SquashfsFile, size: int, digest: bytes) -> None:
        has_blocks = file.size >= BLOCK
        filling = self._ends if has_blocks else self._small
        if filling.size + size > BLOCK:
            self._add_filled(filling)
        if not filling.ends:
            filling.number = len(self.fragments)
            self.fragments.append((0, 0))
        file.fragment, file.offset = filling.number, filling.size
        filling.ends.append(end)
        filling.size += size
        if self._known is not None:
            filling.parts.append(part_of(digest, has_blocks))

    def _add_filled(self, filling: _Filling) -> None:
        place = None if self._known is None else self._known.fragment(filling.parts)
        if place is not None:
            self._add_block(_Copy(None, filling.number, place[0], (place[1],)), _COPY)
        else:
            parts = [end if isinstance(end, bytes) else self._known.end(end) for end in filling.ends]  # type: ignore[union-attr]  # it has them
            self._add_block(_Block(None, filling.number, parts), filling.size)
        filling.ends, filling.parts, filling.size = [], [], 0

    def _add_block(self, block: _Block | _Copy, size: int) -> None:
        self._batch.append(block)
        self._batch_size += size
        if self._batch_size >= _BATCH:
            self._submit()

    def _submit(self) -> None:
        if self._batch:
            self._waiting.append((self._batch, self._threads.submit(self._compress, self._batch)))
            self._batch, self._batch_size = [], 0
            self._check()
        while len(self._waiting) > self._limit:
            self._write_next()

    def _compress(self, batch: list[_Block | _Copy]) -> list[tuple[bytes, int]]:
        """Return what of each block goes on the disk, and its length with the bit; of what is copied, something else."""
        try:
            compress: Compress = self._local.compress
        except AttributeError:
            compress = self._local.compress = self._new_compressor()
        results = []
        for block in batch:
            if isinstance(block, _Copy):
                results.append((b"", 0))
                continue
            content = b"".join(block.parts)
            if block.file is not None and _is_hole(content):
                results.append((b"", 0))
                continue
            data = compress(content)
            results.append((content, len(content) | STORED_DATA) if data is None else (data, len(data)))
        return results

    def _write_next(self) -> None:
        """Write the blocks of the batch that was submitted first."""
        batch, future = self._waiting.popleft()
        output = self._output
        for block, (data, length) in zip(batch, future.result(), strict=True):
            lengths = block.blocks if isinstance(block, _Copy) else (length,)
            if block.file is None:
                self.fragments[block.fragment] = output.end, lengths[0]
            else:
                for one in lengths:
                    block.file.add_block(one, output.end)
            if isinstance(block, _Copy):
                self._known.copy_to(output, block.start, copied_size(lengths))  # type: ignore[union-attr]  # it was found there
            elif length:
                output.put(data)
        output.flush()


def _is_hole(content: bytes) -> bool:
    return not content[0] and content.count(0) == len(content)
