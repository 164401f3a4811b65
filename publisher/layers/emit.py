"""The surviving entries of an image as one tar stream for mksquashfs, in one pass over the layers, with the sha256 of every file.

Entries that need no change are copied byte by byte. What mksquashfs does not accept (tried with 4.5.1) is written anew: renamed
entries, sparse files, negative times, global records. Hard links follow all other entries of their layer, so that a target
always precedes its links. A layer without surviving entries is not read at all.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import LayerError
from publisher.layers.decompress import decompressed
from publisher.layers.flatten_plan import DROP, RENAME
from publisher.layers.header import BLOCK, make_header, padded
from publisher.layers.scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from publisher.fileindex.format import FileIndexWriter
    from publisher.layers.flatten_plan import FlattenPlan
    from publisher.layers.member import Member

    Write = Callable[[memoryview | bytes], object]

_EMPTY_SHA256 = hashlib.sha256().digest()
LOST_ACLS = "entries whose access control list is lost"
_LINKED_FILE = struct.Struct("<IIIIQ")  # node of its first name, mode, uid, gid, time
_LINK_MODE = 0o777  # the mode that Linux shows for every symbolic link


@dataclass(frozen=True)
class ExtraEntry:
    """An entry that this host adds to the layers' entries, with the owner 0:0.

    Attributes:
        name: path from the root.
        kind: tar type flag.
        mode: permission bits.
        content: content of a file.
        link: target of a symbolic link.
    """

    name: bytes
    kind: bytes
    mode: int
    content: bytes = b""
    link: bytes = b""


def published_mode(kind: bytes, mode: int) -> int:
    """Return the permission bits that are published: ``a+rX``, because CVMFS clients and user namespaces enforce them."""
    if kind == b"2":
        return _LINK_MODE
    return mode | (0o555 if kind == b"5" or mode & 0o111 else 0o444)


class Emitter:
    """A writer of the tar stream and its file index.

    Args:
        write: receives the bytes of the stream, in portions of any size.
        files: receives a line for every path.
        newest: the latest modification time to write (:class:`publisher.layers.survey.StreamSurvey`); later times become it.
    """

    def __init__(self, write: Write, files: FileIndexWriter, newest: int) -> None:
        self._write = write
        self._files = files
        self._newest = newest

    def write_layers(self, plan: FlattenPlan, layers: Sequence[Path], progress: Callable[[int], None]) -> None:
        """Write the surviving entries of all layers, from the bottom up, and count lost access control lists in the plan.

        Args:
            plan: the plan.
            layers: the blobs, from the bottom up.
            progress: called with the number of compressed bytes read since the last call, in the calling thread.

        Raises:
            LayerError: a layer differs from its index.
            OSError: ``write`` failed.
        """
        plan.dropped.pop(LOST_ACLS, None)
        for number, (actions, path) in enumerate(zip(plan.actions, layers, strict=True)):
            with path.open("rb", buffering=0) as file:
                if not any(actions):
                    progress(path.stat().st_size)
                    continue
                compressed = _CountedReader(file.read)
                with decompressed(compressed.read) as read:
                    scanner = Scanner(_reporting(read, compressed, progress), self._write)
                    self._write_layer(scanner, actions, plan, number << 32)
                progress(path.stat().st_size - compressed.reported)

    def write_directories(self, names: Iterable[bytes]) -> None:
        """Write directories that have no entry of their own, with the mode 0755."""
        for name in names:
            self.write_entry(ExtraEntry(name, b"5", 0o755))

    def write_entry(self, entry: ExtraEntry) -> None:
        """Write an entry that this host adds, with the newest time of the stream."""
        size = len(entry.content)
        mode = published_mode(entry.kind, entry.mode)
        self._write(make_header(entry.name, entry.kind, mode=mode, size=size, mtime=self._newest, link=entry.link))
        if size:
            self._write(entry.content + bytes(padded(size) - size))
        content = hashlib.sha256(entry.content).digest() if entry.kind == b"0" else b""
        self._files.add(entry.kind, entry.name, mode, 0, 0, size, self._newest, entry.link or content)

    def write_end(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))

    def _write_layer(self, scanner: Scanner, actions: bytearray, plan: FlattenPlan, base: int) -> None:
        linked_files = bytearray()
        end = len(actions.rstrip(b"\0"))  # everything after it is dropped
        for ordinal in range(end):
            member = scanner.next_member()
            if member is None:
                raise LayerError("the layer has fewer entries than when it was downloaded")
            action = actions[ordinal]
            if action == DROP:
                scanner.drop()
                continue
            if member.acl:
                plan.dropped[LOST_ACLS] = plan.dropped.get(LOST_ACLS, 0) + 1
            if action != RENAME:
                self._write_member(scanner, member, renamed=False)
                continue
            first = plan.new_names.first(base | ordinal)
            member.name = plan.new_names.path(first)
            mtime = self._write_member(scanner, member, renamed=True)
            if member.kind == b"0":
                mode = published_mode(b"0", member.mode)
                linked_files += _LINKED_FILE.pack(first, mode, member.uid, member.gid, mtime)
            else:
                scanner.flush()
                self._write_copies(member, mtime, plan.new_names.following(first))
        scanner.flush()
        for first, *attributes in _LINKED_FILE.iter_unpack(linked_files):
            self._write_links(plan.new_names.path(first), plan.new_names.following(first), *attributes)

    def _write_member(self, scanner: Scanner, member: Member, *, renamed: bool) -> int:
        """Write the scanner's current member; return its modification time in the stream."""
        kind = member.kind
        mode = published_mode(kind, member.mode)
        mtime = min(max(member.mtime, 0), self._newest)
        header = member.new_header(member.name, mode, mtime) if renamed else member.replacement_header(mode, mtime)
        content = scanner.keep(member, header, digest=kind == b"0")
        if not content and kind == b"0":
            content = _EMPTY_SHA256
        self._files.add(
            kind, member.name, mode, member.uid, member.gid, member.size, mtime, content or member.link, member.xattrs
        )
        return mtime

    def _write_links(self, target: bytes, names: Iterable[bytes], mode: int, uid: int, gid: int, mtime: int) -> None:  # noqa: PLR0917
        """Write hard links to a file."""
        for name in names:
            self._write(make_header(name, b"1", mode=mode, uid=uid, gid=gid, mtime=mtime, link=target))
            self._files.add(b"1", name, mode, uid, gid, 0, mtime, target)

    def _write_copies(self, member: Member, mtime: int, names: Iterable[bytes]) -> None:
        """Write a symbolic link or a fifo, to which tar can link but squashfs cannot, under further names."""
        mode = published_mode(member.kind, member.mode)
        for name in names:
            self._write(member.new_header(name, mode, mtime))
            self._files.add(member.kind, name, mode, member.uid, member.gid, 0, mtime, member.link, member.xattrs)


class _CountedReader:
    """A ``read`` function that counts its bytes, in whichever thread decompresses them."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.total = 0
        self.reported = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.total += len(data)
        return data


def _reporting(
    read: Callable[[int], bytes], compressed: _CountedReader, progress: Callable[[int], None]
) -> Callable[[int], bytes]:
    """Return ``read`` with calls of ``progress`` in the thread that calls it."""

    def reporting(size: int) -> bytes:
        data = read(size)
        new = compressed.total - compressed.reported
        if new:
            compressed.reported += new
            progress(new)
        return data

    return reporting
