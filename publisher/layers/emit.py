"""The survivors as one tar stream that mksquashfs takes, in one pass over the layers, with every file's sha256 on the way.

Entries that need no change leave as the bytes they came as. What mksquashfs cannot take (facts tried with 4.5.1) is written
anew: names that moved, sparse files, negative times, global records. Hard links come right after all of their layer's
entries, so that a target always stands before its links. Layers of which nothing survives are not even read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import LayerError
from publisher.layers.decompress import decompressed
from publisher.layers.flatten_plan import DROP, MOVE
from publisher.layers.header import BLOCK, make_header, padded
from publisher.layers.scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from publisher.fileindex.format import FileIndexWriter
    from publisher.layers.flatten_plan import FlattenPlan
    from publisher.layers.member import Member

    Write = Callable[[memoryview | bytes], object]

_EMPTY = hashlib.sha256().digest()
_ACLS = "entries whose access control list is lost"
_LINK_MODE = 0o777  # what Linux shows for every symbolic link


@dataclass(frozen=True)
class ExtraEntry:
    """An entry that comes from this host instead of a layer: kind is a tar type flag, owner 0:0."""

    name: bytes
    kind: bytes
    mode: int
    content: bytes = b""
    link: bytes = b""


def published_mode(kind: bytes, mode: int) -> int:
    """The tree policy for permission bits: ``a+rX``, since CVMFS clients and user namespaces enforce them."""
    if kind == b"2":
        return _LINK_MODE
    return mode | (0o555 if kind == b"5" or mode & 0o111 else 0o444)


class Emitter:
    """Writes the stream.

    Args:
        write: takes the stream's bytes in any portions, at once.
        files: takes a line for every path.
        newest: modification times above it become it; see :class:`publisher.layers.survey.Survey`.
    """

    def __init__(self, write: Write, files: FileIndexWriter, newest: int) -> None:
        self._write = write
        self._files = files
        self._newest = newest

    def layers(self, plan: FlattenPlan, layers: Sequence[Path], progress: Callable[[int], None]) -> None:
        """All layers, from the bottom up; ``progress`` is told the compressed bytes read, the plan what was dropped on the way.

        Raises:
            LayerError: a layer is not what its index said.
            OSError: from ``write``.
        """
        plan.dropped.pop(_ACLS, None)
        for number, (actions, path) in enumerate(zip(plan.actions, layers, strict=True)):
            with path.open("rb", buffering=0) as file:
                if not any(actions):
                    progress(path.stat().st_size)
                    continue
                compressed = _Counted(file.read)
                with decompressed(compressed.read) as read:
                    scanner = Scanner(_reporting(read, compressed, progress), self._write)
                    self._layer(scanner, actions, plan, number << 32)
                progress(path.stat().st_size - compressed.reported)

    def implied(self, names: Iterable[bytes]) -> None:
        """Directories that no entry describes."""
        for name in names:
            self.add(ExtraEntry(name, b"5", 0o755))

    def add(self, entry: ExtraEntry) -> None:
        """An entry that comes from this host, with the stream's newest time."""
        size = len(entry.content)
        mode = published_mode(entry.kind, entry.mode)
        self._write(make_header(entry.name, entry.kind, mode=mode, size=size, mtime=self._newest, link=entry.link))
        if size:
            self._write(entry.content + bytes(padded(size) - size))
        self._files.add(
            entry.kind,
            entry.name,
            mode,
            0,
            0,
            size,
            self._newest,
            entry.link or (hashlib.sha256(entry.content).digest() if entry.kind == b"0" else b""),
        )

    def end(self) -> None:
        """The end of the archive."""
        self._write(bytes(2 * BLOCK))

    def _layer(self, scanner: Scanner, actions: bytearray, plan: FlattenPlan, base: int) -> None:
        links: list[tuple[Member, int, list[bytes]]] = []
        last = len(actions.rstrip(b"\0"))
        for ordinal in range(last):
            member = scanner.next()
            if member is None:
                raise LayerError("the layer has fewer entries than when it was fetched")
            action = actions[ordinal]
            if action == DROP:
                scanner.drop()
                continue
            others: list[bytes] = []
            if action == MOVE:
                member.name, *others = plan.names[base | ordinal]
            if member.acl:
                plan.dropped[_ACLS] = plan.dropped.get(_ACLS, 0) + 1
            mtime = self._keep(scanner, member, renamed=action == MOVE)
            if others:
                links.append((member, mtime, others))
        scanner.flush()
        for member, mtime, others in links:
            self._links(member, mtime, others)

    def _keep(self, scanner: Scanner, member: Member, *, renamed: bool) -> int:
        """Pass a member on; returns the time it got."""
        kind = member.kind
        mode = published_mode(kind, member.mode)
        mtime = min(max(member.mtime, 0), self._newest)
        header = member.renamed(member.name, mode, mtime) if renamed else member.header(mode, mtime)
        content = scanner.keep(member, header, digest=kind == b"0")
        if not content and kind == b"0":
            content = _EMPTY
        self._files.add(kind, member.name, mode, member.uid, member.gid, member.size, mtime, content or member.link)
        return mtime

    def _links(self, member: Member, mtime: int, names: list[bytes]) -> None:
        """The other names of a file; of symbolic links and fifos, which tar links as well, copies."""
        mode = published_mode(member.kind, member.mode)
        for name in names:
            if member.kind == b"0":
                self._write(make_header(name, b"1", mode=mode, uid=member.uid, gid=member.gid, mtime=mtime, link=member.name))
                self._files.add(b"1", name, mode, member.uid, member.gid, 0, mtime, member.name)
            else:
                self._write(member.renamed(name, mode, mtime))
                self._files.add(member.kind, name, mode, member.uid, member.gid, 0, mtime, member.link)


class _Counted:
    """Counts what is read of a blob, in whichever thread inflates it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.total = 0
        self.reported = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.total += len(data)
        return data


def _reporting(read: Callable[[int], bytes], compressed: _Counted, progress: Callable[[int], None]) -> Callable[[int], bytes]:
    """``read``, and progress in the thread that calls it."""

    def reporting(size: int) -> bytes:
        data = read(size)
        new = compressed.total - compressed.reported
        if new:
            compressed.reported += new
            progress(new)
        return data

    return reporting
