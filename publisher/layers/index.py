"""The header index of one layer, written while the blob is downloaded and kept beside it, so that a build inflates a layer once.

One file per blob: a fixed header (magic, diff_id, entries, bytes), then blocks of up to 4,096 entries or about 1 MiB of names. A
block has ``kind+name`` and ``link`` of each entry, separated by NUL bytes, then the numbers of each (:data:`ATTRIBUTES`). The
index is this program's own cache: a file of another version is written anew.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.errors import LayerError, shown
from publisher.layers.decompress import decompressed
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.layers.scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Read = Callable[[int], bytes]

_MAGIC = b"OSPIDX04"
_HEADER = struct.Struct("<8s32sQQ")
_BLOCK_HEADER = struct.Struct("<II")
_BLOCK_ENTRIES = 4096
_BLOCK_BYTES = 1 << 20  # of names, at about
_NAME_MAX = 255  # bytes of one component of a path: limits.h
ATTRIBUTES = struct.Struct("<QqQIII")
"""The numbers of an entry: size (bytes), mtime (seconds), offset in the stream (bytes), mode, uid, gid."""


@dataclass(frozen=True)
class IndexSummary:
    """The summary of a layer's index.

    Attributes:
        diff_id: digest of the uncompressed tar stream, ``sha256:…``.
        entries: number of entries.
        unpacked: bytes of the uncompressed tar stream.
    """

    diff_id: str
    entries: int
    unpacked: int


def write_index(read: Read, path: Path, limits: LayerLimits = DEFAULT_LIMITS) -> IndexSummary:
    """Read a compressed layer to its end and write its index under a temporary name, then rename it.

    Args:
        read: returns up to n bytes of the blob, ``b""`` at its end.
        path: the index; its directory is created if it is missing.
        limits: limits of the image.

    Raises:
        LayerError: the layer is not a valid tar archive, or exceeds a limit.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as out, decompressed(read) as inflated:
            os.fchmod(out.fileno(), 0o644)
            stream = _HashedStream(inflated, limits.unpacked_size)
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
    """Return the summary of an index, None where the file is missing or of another version."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        return None
    if len(header) < _HEADER.size or header[:8] != _MAGIC:
        return None
    _, digest, entries, unpacked = _HEADER.unpack(header)
    return IndexSummary("sha256:" + digest.hex(), entries, unpacked)


def read_entries(path: Path) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield ``(kind, name, link)`` of every entry, in the layer's order."""
    for names, _ in _blocks(path):
        parts = iter(names.split(b"\0"))
        for tagged in parts:
            yield tagged[:1], tagged[1:], next(parts)


def read_attributes(path: Path) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield :data:`ATTRIBUTES` of every entry, in the layer's order."""
    for _, packed in _blocks(path):
        yield from ATTRIBUTES.iter_unpack(packed)


def _blocks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with path.open("rb") as file:
        file.seek(_HEADER.size)
        while head := file.read(_BLOCK_HEADER.size):
            count, length = _BLOCK_HEADER.unpack(head)
            yield file.read(length), file.read(count * ATTRIBUTES.size)


def _write_entries(scanner: Scanner, out: IO[bytes], limits: LayerLimits) -> None:
    names: list[bytes] = []
    packed: list[bytes] = []
    size = 0
    while (member := scanner.next_member()) is not None:
        offset = scanner.offset
        scanner.drop()
        _check_length(member.name, limits)
        if member.size > limits.unpacked_size:
            raise LayerError(
                f"the layer's file {shown(member.name)} has {format_size(member.size)}, more than the limit for an image"
            )
        if scanner.count > limits.entries:
            raise LayerError(f"the layer has more than {limits.entries} entries")
        names += (member.kind + member.name, member.link)
        size += len(member.name) + len(member.link)
        packed.append(ATTRIBUTES.pack(member.size, member.mtime, offset, member.mode, member.uid, member.gid))
        if len(packed) == _BLOCK_ENTRIES or size > _BLOCK_BYTES:
            _write_block(out, names, packed)
            size = 0
    if packed:
        _write_block(out, names, packed)


def _check_length(name: bytes, limits: LayerLimits) -> None:
    if len(name) > limits.path_length:
        raise LayerError(f"the layer has a path of {len(name)} bytes, more than {limits.path_length} are allowed")
    if len(name) > _NAME_MAX and (longest := max(map(len, name.split(b"/")))) > _NAME_MAX:
        raise LayerError(f"the layer has a file name of {longest} bytes; file systems accept at most {_NAME_MAX}")


def _write_block(out: IO[bytes], names: list[bytes], packed: list[bytes]) -> None:
    joined = b"\0".join(names)
    out.write(_BLOCK_HEADER.pack(len(packed), len(joined)))
    out.write(joined)
    out.writelines(packed)
    names.clear()
    packed.clear()


class _HashedStream:
    """A stream that counts and hashes what is read, and stops a decompression bomb at the limit."""

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
            raise LayerError(f"the layer unpacks to more than {format_size(self._limit)}, the limit for an image")
        return data
