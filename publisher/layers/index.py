"""The header index of one layer, written while the blob is downloaded and kept beside it, so that a build inflates a layer once.

One file per blob: a fixed header (magic, diff_id, entries, bytes), then blocks of up to 4,096 entries or about 1 MiB of names. A
block has ``kind+name`` and ``link`` of each entry, separated by NUL bytes, then the numbers of each (:data:`ATTRIBUTES`), the
sha256 of each one's content, and the attributes that few entries have (:data:`_MORE`). So the file index of an image can be made
from the indexes alone. The index is this program's own cache: a file of another version is written anew.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple

from publisher.contract.units import format_size
from publisher.errors import LayerError, shown
from publisher.fileindex.format import digest_of_xattrs
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.layers.scan import Scanner
from publisher.layers.stream.decompress import decompressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.layers.member import Member

    Read = Callable[[int], bytes]

_MAGIC = b"OSPIDX06"
_HEADER = struct.Struct("<8s32sQQ")
_BLOCK_HEADER = struct.Struct("<III")  # entries, bytes of names, entries with more than the usual
_BLOCK_ENTRIES = 4096
_BLOCK_BYTES = 1 << 20  # of names, at about
_NAME_MAX = 255  # bytes of one component of a path: limits.h
ATTRIBUTES = struct.Struct("<QqQIII?")
"""What an entry has of a fixed size: size (bytes), mtime (seconds), offset in the stream (bytes), mode, uid, gid, and whether its
header blocks can be written unchanged (``Member.reusable``)."""
_SHA256_SIZE = 32
_NO_CONTENT = bytes(_SHA256_SIZE)
_EMPTY_SHA256 = hashlib.sha256().digest()
_MORE = struct.Struct("<I?64s")  # ordinal in the block, whether it has access control lists, digest of its extended attributes


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


def write_index(
    read: Read, path: Path, limits: LayerLimits = DEFAULT_LIMITS, copy: Callable[[bytes], object] | None = None
) -> IndexSummary:
    """Read a compressed layer to its end and write its index under a temporary name, then rename it.

    Args:
        read: returns up to n bytes of the blob, ``b""`` at its end.
        path: the index; its directory is created if it is missing.
        limits: limits of the image.
        copy: receives the bytes of the tar stream, None if nobody wants them.

    Raises:
        LayerError: the layer is not a valid tar archive, or exceeds a limit.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as out, decompressed(read) as inflated:
            os.fchmod(out.fileno(), 0o644)
            stream = _HashedStream(inflated, limits.unpacked_size, copy)
            out.write(bytes(_HEADER.size))
            scanner = Scanner(stream.read, lambda _: None)
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
    for block in _blocks(path):
        parts = iter(block.names.split(b"\0"))
        for tagged in parts:
            yield tagged[:1], tagged[1:], next(parts)


def read_attributes(path: Path) -> Iterator[tuple[int, int, int, int, int, int, bool]]:
    """Yield :data:`ATTRIBUTES` of every entry, in the layer's order."""
    for block in _blocks(path):
        yield from ATTRIBUTES.iter_unpack(block.attributes)


def read_contents(path: Path) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield what the content of every entry is, in the layer's order.

    It is the sha256 of a file (32 bytes, zeros for all other kinds), the digest of the extended attributes to keep as
    :func:`publisher.fileindex.format.digest_of_xattrs` gives it (empty if there are none), and whether the entry has access
    control lists.
    """
    for block in _blocks(path):
        more = {ordinal: (xattrs.rstrip(b"\0"), acl) for ordinal, acl, xattrs in _MORE.iter_unpack(block.more)}
        for ordinal, start in enumerate(range(0, len(block.digests), _SHA256_SIZE)):
            yield block.digests[start : start + _SHA256_SIZE], *more.get(ordinal, (b"", False))


class _Block(NamedTuple):
    names: bytes
    attributes: bytes
    digests: bytes
    more: bytes


def _blocks(path: Path) -> Iterator[_Block]:
    with path.open("rb") as file:
        file.seek(_HEADER.size)
        while head := file.read(_BLOCK_HEADER.size):
            count, length, more = _BLOCK_HEADER.unpack(head)
            sizes = (length, count * ATTRIBUTES.size, count * _SHA256_SIZE, more * _MORE.size)
            yield _Block(*map(file.read, sizes))


def _write_entries(scanner: Scanner, out: IO[bytes], limits: LayerLimits) -> None:
    block = _BlockWriter(out)
    sparse = 0  # bytes of sparse files so far: their holes are hashed, but are not in the stream, which has a limit of its own
    while (member := scanner.next_member()) is not None:
        offset = scanner.offset
        _check_length(member.name, limits)
        if member.sparse is not None:
            sparse += member.size
            if sparse > limits.unpacked_size:
                total = "" if sparse == member.size else "with the sparse files before it "
                size = format_size(member.size)
                raise LayerError(f"the layer's file {shown(member.name)} has {size}, {total}more than the limit for an image")
        if scanner.count > limits.entries:
            raise LayerError(f"the layer has more than {limits.entries} entries")
        block.add(member, offset, _digest(scanner, member))
    block.flush()


def _digest(scanner: Scanner, member: Member) -> bytes:
    """Return the sha256 of a file's content, zeros for all other kinds; the scanner then is behind the member."""
    if member.kind != b"0":
        scanner.drop()
        return _NO_CONTENT
    return scanner.keep(member, None, digest=True) or _EMPTY_SHA256


def _check_length(name: bytes, limits: LayerLimits) -> None:
    if len(name) > limits.path_length:
        raise LayerError(f"the layer has a path of {len(name)} bytes, more than {limits.path_length} are allowed")
    if len(name) > _NAME_MAX and (longest := max(map(len, name.split(b"/")))) > _NAME_MAX:
        raise LayerError(f"the layer has a file name of {longest} bytes; file systems accept at most {_NAME_MAX}")


class _BlockWriter:
    """A writer of entries in blocks: a reader need not keep more than one of them in memory."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._clear()

    def _clear(self) -> None:
        self._names: list[bytes] = []
        self._numbers: list[bytes] = []
        self._digests: list[bytes] = []
        self._more: list[bytes] = []
        self._size = 0

    def add(self, member: Member, offset: int, digest: bytes) -> None:
        """Add an entry, with the offset of its first header block and the sha256 of its content."""
        if member.xattrs or member.acl:
            xattrs = digest_of_xattrs(member.xattrs) if member.xattrs else b""
            self._more.append(_MORE.pack(len(self._numbers), member.acl, xattrs))
        self._names += (member.kind + member.name, member.link)
        self._numbers.append(
            ATTRIBUTES.pack(member.size, member.mtime, offset, member.mode, member.uid, member.gid, member.reusable)
        )
        self._digests.append(digest)
        self._size += len(member.name) + len(member.link)
        if len(self._numbers) == _BLOCK_ENTRIES or self._size > _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._numbers:
            names = b"\0".join(self._names)
            self._out.write(_BLOCK_HEADER.pack(len(self._numbers), len(names), len(self._more)))
            self._out.write(names)
            self._out.writelines((*self._numbers, *self._digests, *self._more))
            self._clear()


class _HashedStream:
    """A stream that counts and hashes what is read, and stops a decompression bomb at the limit."""

    def __init__(self, read: Read, limit: int, copy: Callable[[bytes], object] | None) -> None:
        self._read = read
        self._limit = limit
        self._copy = copy
        self.sha256 = hashlib.sha256()
        self.total = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.sha256.update(data)
        self.total += len(data)
        if self.total > self._limit:
            raise LayerError(f"the layer unpacks to more than {format_size(self._limit)}, the limit for an image")
        if self._copy is not None:
            self._copy(data)
        return data
