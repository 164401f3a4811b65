"""``ci/bench units``: in which units images share bytes: content-defined chunks of SIFs, blocks of squashfs, files of layers.

The families are those of ``ci/bench delta``. For SIFs: the bytes that a host with the given one needs of the wanted one, in
ranges merged over 64 KiB; for chunks also if the files lie in other orders. For layers: what the publisher would fetch of the
wanted image's layers if these had tables of contents (zstd:chunked, eStargz), and it had the layers of the given image: each file
is compressed by itself then.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

import zstandard

from ci.benchmarks import families
from publisher.build.sif import DATA_OFFSET
from publisher.contract.chunk_table import ChunkTable, parse_chunk_table
from publisher.resolver.difference import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_ENTRY = 36  # bytes of a chunk in a table
_LEVEL = 3
_SUPERBLOCK = struct.Struct("<5I6H8Q")
_METADATA = 8192  # bytes of a block of tables
_NO_FRAGMENT = 0xFFFFFFFF
_SIZE_BITS = (1 << 24) - 1
_DIRECTORY, _FILE, _LONG_DIRECTORY, _LONG_FILE = 1, 2, 8, 9
_HEADER = 16  # bytes that all inodes begin with
_ORDERS: dict[str, Callable[[families.File], tuple[str, ...]]] = {
    "paths": lambda file: (file.name,),
    "kinds and paths": lambda file: (file.origin.suffix, file.name),
}


def benchmark(size: int, work: Path) -> None:
    """Measure and print.

    Args:
        size: bytes of the files of an image.
        work: directory for all files; deleted first.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for family in families.families(size):
        print(family.name, flush=True)
        given, wanted = (_tables(contents, work / "sif") for contents in (family.given, family.wanted))
        _show("chunks", given[0], wanted[0])
        _show("blocks", given[1], wanted[1])
        _show_files(family)
        for name, order in _ORDERS.items():
            given, wanted = (_tables(sorted(contents, key=order), work / "sif") for contents in (family.given, family.wanted))
            _show(f"chunks, files in the order of {name}", given[0], wanted[0])
    shutil.rmtree(work)


def _tables(contents: list[families.File], sif: Path) -> tuple[ChunkTable, ChunkTable]:
    """Make a SIF; return its chunk table, and that of its blocks."""
    _, _, table = families.make(contents, sif)
    tables = parse_chunk_table(table), _table_of_blocks(sif.read_bytes())
    sif.unlink()
    return tables


def _show(name: str, given: ChunkTable, wanted: ChunkTable) -> None:
    matcher = plan.ChunkMatcher(wanted)
    matcher.add_seed(1, given)
    places = matcher.places()
    needed = sum(length for length, where in zip(wanted.lengths, places, strict=True) if where == plan.FETCH)
    fetched = [part for part in plan.segments(wanted.lengths, places, plan.MIN_GAP) if part.where == plan.FETCH]
    merged = sum(part.stop - part.start for part in fetched)
    print(
        f"  {name}: SIF of {wanted.sif_size / 1e6:.1f} MB, {needed / 1e6:.2f} MB needed, "
        f"{merged / 1e6:.2f} MB in {len(fetched)} ranges, "
        f"{len(wanted)} of them, table {len(wanted) * _ENTRY / wanted.sif_size:.3%}",
        flush=True,
    )


def _show_files(family: families.Family) -> None:
    compress = zstandard.ZstdCompressor(level=_LEVEL).compress
    stored = {hashlib.sha256(file.content()).digest() for file in family.given}
    lengths, places = array("I"), array("q")
    whole = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    size = 0
    for number, file in enumerate(family.wanted):
        content = file.content()
        size += len(whole.compress(content))
        lengths.append(len(compress(content)))
        places.append((2 * number + 1) << 41 if hashlib.sha256(content).digest() in stored else plan.FETCH)
    size += len(whole.flush())
    fetched = [part for part in plan.segments(lengths, places, plan.MIN_GAP) if part.where == plan.FETCH]
    merged = sum(part.stop - part.start for part in fetched)
    print(
        f"  files of layers: {size / 1e6:.1f} MB as one stream, {sum(lengths) / 1e6:.1f} MB file by file; "
        f"{merged / 1e6:.2f} MB in {len(fetched)} ranges would be fetched",
        flush=True,
    )


def _table_of_blocks(sif: bytes) -> ChunkTable:
    """Return a table whose chunks are the compressed blocks and fragments of a SIF's squashfs, and what lies between them."""
    squashfs = memoryview(sif)[DATA_OFFSET:]
    found = sorted({(start + DATA_OFFSET, size) for start, size in _blocks(squashfs)})
    ends = [0]
    for start, size in found:
        ends += [start, start + size]
    cuts = sorted({*ends, len(sif)})
    lengths = array("I", (stop - start for start, stop in pairwise(cuts)))
    digests = b"".join(hashlib.sha256(sif[start:stop]).digest() for start, stop in pairwise(cuts))
    sha256 = hashlib.sha256(sif).hexdigest()
    return ChunkTable(sha256, len(sif), minimum=1, average=1, maximum=max(lengths), lengths=lengths, digests=digests)


def _blocks(squashfs: memoryview) -> Iterator[tuple[int, int]]:
    """Yield first byte and size of each block of data and each block of fragments; only files and directories are understood."""
    superblock = _SUPERBLOCK.unpack_from(squashfs)
    count, block_size, fragments = superblock[1], superblock[3], superblock[4]
    _, _, _, _, inodes, directories, fragment_table, _ = superblock[11:]
    table = b"".join(_metadata(squashfs, inodes, directories))
    at = 0
    for _ in range(count):
        kind = struct.unpack_from("<H", table, at)[0]
        at += _HEADER
        if kind == _DIRECTORY:
            at += 16
        elif kind == _LONG_DIRECTORY:
            entries = struct.unpack_from("<H", table, at + 16)[0]
            at += 24
            for _ in range(entries):
                at += 12 + struct.unpack_from("<I", table, at + 8)[0] + 1
        else:
            if kind == _FILE:
                start, fragment, _, size = struct.unpack_from("<4I", table, at)
                at += 16
            elif kind == _LONG_FILE:
                start, size, _, _, fragment = struct.unpack_from("<3Q2I", table, at)
                at += 40
            else:
                raise ValueError(f"an inode of type {kind}")
            blocks = size // block_size + (fragment == _NO_FRAGMENT and size % block_size > 0)
            for entry in struct.unpack_from(f"<{blocks}I", table, at):
                yield start, entry & _SIZE_BITS
                start += entry & _SIZE_BITS
            at += 4 * blocks
    places = struct.unpack_from(f"<{-(-fragments // 512)}Q", squashfs, fragment_table)
    for number, place in enumerate(places):
        entries = b"".join(_metadata(squashfs, place, place + 1))
        for index in range(min(512, fragments - 512 * number)):
            start, size, _ = struct.unpack_from("<QII", entries, 16 * index)
            yield start, size & _SIZE_BITS


def _metadata(squashfs: memoryview, start: int, stop: int) -> Iterator[bytes]:
    """Yield the content of the blocks of a table that begin from ``start`` on, before ``stop``."""
    decompress = zstandard.ZstdDecompressor()
    while start < stop:
        (header,) = struct.unpack_from("<H", squashfs, start)
        content = squashfs[start + 2 : start + 2 + (header & 0x7FFF)]
        yield bytes(content) if header & 0x8000 else decompress.decompress(content, max_output_size=_METADATA)
        start += 2 + (header & 0x7FFF)
