"""The header index of one layer, made while the blob arrives and kept beside it, so that a build inflates each layer once.

A file per blob: a fixed header (magic, diff_id, entries, bytes), then blocks of up to 4,096 entries, each ``kind+name``
and ``link`` separated by NUL bytes, followed by the entries' numbers (:data:`NUMBERS`). It is this program's own cache: a
file of another version is made anew.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from publisher.errors import LayerError
from publisher.layers.decompress import decompressed
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.layers.scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Read = Callable[[int], bytes]

_MAGIC = b"OSPIDX03"
_HEADER = struct.Struct("<8s32sQQ")
_BLOCK_HEADER = struct.Struct("<II")
_ENTRIES = 4096
_NAME_MAX = 255  # bytes of a part of a path: limits.h
NUMBERS = struct.Struct("<QqQIII")
"""size (bytes), mtime (seconds), offset in the stream (bytes), mode, uid, gid."""


@dataclass(frozen=True)
class IndexSummary:
    """What an index says of its layer: digest of the uncompressed stream (``sha256:…``), entries, bytes of the stream."""

    diff_id: str
    entries: int
    unpacked: int


def write_index(read: Read, path: Path, limits: LayerLimits = DEFAULT_LIMITS) -> IndexSummary:
    """Read a compressed layer to its end and write its index (temporary name, then rename).

    Raises:
        LayerError: not a sound tar archive, or beyond a limit.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as out, decompressed(read) as inflated:
            stream = _Hashed(inflated, limits.unpacked_size)
            out.write(bytes(_HEADER.size))
            scanner = Scanner(stream.read)
            _write_entries(scanner, out, limits)
            scanner.finish()
            out.seek(0)
            out.write(_HEADER.pack(_MAGIC, stream.sha256.digest(), scanner.count, stream.total))
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return IndexSummary("sha256:" + stream.sha256.hexdigest(), scanner.count, stream.total)


def read_summary(path: Path) -> IndexSummary | None:
    """The summary of a finished index, None where there is none or it is of another version."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        return None
    if len(header) < _HEADER.size or header[:8] != _MAGIC:
        return None
    _, digest, entries, unpacked = _HEADER.unpack(header)
    return IndexSummary("sha256:" + digest.hex(), entries, unpacked)


def entries(path: Path) -> Iterator[tuple[bytes, bytes, bytes]]:
    """``(kind, name, link)`` of every entry, in the layer's order."""
    for names, _ in _blocks(path):
        parts = iter(names.split(b"\0"))
        for tagged in parts:
            yield tagged[:1], tagged[1:], next(parts)


def numbers(path: Path) -> Iterator[tuple[int, int, int, int, int, int]]:
    """:data:`NUMBERS` of every entry, in the layer's order."""
    for _, packed in _blocks(path):
        yield from NUMBERS.iter_unpack(packed)


def _blocks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with path.open("rb") as file:
        file.seek(_HEADER.size)
        while head := file.read(_BLOCK_HEADER.size):
            count, length = _BLOCK_HEADER.unpack(head)
            yield file.read(length), file.read(count * NUMBERS.size)


def _write_entries(scanner: Scanner, out: IO[bytes], limits: LayerLimits) -> None:
    names: list[bytes] = []
    packed: list[bytes] = []
    while (member := scanner.next()) is not None:
        offset = scanner.offset
        scanner.drop()
        _check_length(member.name, limits)
        if member.size > limits.unpacked_size:
            raise LayerError(f"the layer's file {member.name!r} has {member.size} bytes, more than the limit for an image")
        if scanner.count > limits.entries:
            raise LayerError(f"the layer has more than {limits.entries} entries")
        names += (member.kind + member.name, member.link)
        mtime = min(max(member.mtime, -(1 << 62)), 1 << 62)
        ids = (member.uid & 0xFFFFFFFF, member.gid & 0xFFFFFFFF)
        packed.append(NUMBERS.pack(member.size, mtime, offset, member.mode, *ids))
        if len(packed) == _ENTRIES:
            _write_block(out, names, packed)
    if packed:
        _write_block(out, names, packed)


def _check_length(name: bytes, limits: LayerLimits) -> None:
    if len(name) > limits.path_length:
        raise LayerError(f"the layer has a path of {len(name)} bytes, more than {limits.path_length} are allowed")
    if len(name) > _NAME_MAX and (longest := max(map(len, name.split(b"/")))) > _NAME_MAX:
        raise LayerError(f"the layer has a name of {longest} bytes, more than any file system takes")


def _write_block(out: IO[bytes], names: list[bytes], packed: list[bytes]) -> None:
    joined = b"\0".join(names)
    out.write(_BLOCK_HEADER.pack(len(packed), len(joined)))
    out.write(joined)
    out.writelines(packed)
    names.clear()
    packed.clear()


class _Hashed:
    """Counts and hashes what is read, and ends a bomb at its limit."""

    def __init__(self, read: Read, limit: int) -> None:
        self._read = read
        self._limit = limit
        self.sha256 = hashlib.sha256()
        self.total = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.sha256.update(data)
        self.total += len(data)
        if self.total > self._limit:
            raise LayerError(f"the layer unpacks to more than {self._limit} bytes, the limit for an image")
        return data
