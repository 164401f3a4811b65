r"""The files of a SIF that others made: listed within limits, then read once, for its file index. unsquashfs is the reader.

A name or the target of a link may have a line feed in it, and unsquashfs writes both as they are. So the files are listed twice,
in two forms, and no line that follows a line feed is valid in both: ``-lln`` has numbers after the first blank, ``-pf`` a letter
and escapes the blanks in names. Nothing is written to disk but the listing and the file index.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.errors import CommandError, shown
from publisher.fileindex.format import FileIndexWriter
from publisher.layers import tree_policy
from publisher.sifs.structure import SifError
from publisher.system import command

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from publisher.layers.limits import LayerLimits
    from publisher.sifs.structure import SifStructure
    from publisher.system.command import UnixAccount

_QUEUE = 32  # MiB of each of unsquashfs's two block queues; 256 by default
_LISTED = re.compile(
    rb"([-dlpscb])[-rwxsStT]{9} \d+/\d+ +(?:(\d+)|\d+, +\d+) \d{4}-\d\d-\d\d \d\d:\d\d squashfs-root(?:/(.*))?\n", re.ASCII
)
_PSEUDO = re.compile(rb"((?:[^\\ ]|\\.)+) ([DRSLI]) (.*)\n", re.ASCII | re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_START_OF_DATA = b"# START OF DATA - DO NOT MODIFY\n"
_ARROW = b" -> "
_LONGEST_LINE = 1 << 16
_CHUNK = 1 << 20
_MAX_LINKS = 16  # symbolic links on the way from /bin/sh to a program
_FLAGS = {b"D": b"5", b"S": b"2", b"I": b"6", b"R": b"0"}  # kinds of -pf -> tar type flags


@dataclass
class SifFiles:
    """The files of a SIF.

    Attributes:
        files: number of entries of its tree.
        unpacked_size: bytes of all regular files.
        has_shell: whether it has ``/bin/sh``.
        notes: what is worth a note in its record, counted.
    """

    files: int
    unpacked_size: int
    has_shell: bool
    notes: dict[str, int | str] = field(default_factory=dict)


@dataclass
class _Listing:
    """What the first listing says.

    Attributes:
        entries: number of names.
        size: bytes of all files, of those with several names once for each.
        names: bytes of all names, and of the targets of links.
    """

    entries: int = 0
    size: int = 0
    names: int = 0


class SifReader:
    """Reads the files of one SIF.

    Args:
        sif: the open SIF.
        structure: its structure.
        limits: the limits of one image.
        deadline: seconds for each of the two readings.
        account: the account that unsquashfs runs as (needs root), None for this process's.
    """

    def __init__(
        self, sif: IO[bytes], structure: SifStructure, limits: LayerLimits, *, deadline: float, account: UnixAccount | None
    ) -> None:
        self._sif = sif
        self._structure = structure
        self._limits = limits
        self._deadline = deadline
        self._account = account

    def write_index(self, path: Path) -> SifFiles:
        """Write the file index of the SIF to a new file, and return what was found.

        Raises:
            SifError: it cannot be read, exceeds a limit, or has something that cannot be published.
            OSError: the file cannot be written.
        """
        if self._structure.entries > self._limits.entries:
            raise SifError(f"the SIF has {self._structure.entries} entries; at most {self._limits.entries} are allowed")
        try:
            with self._unsquashfs("-lln") as stream:
                listing = self._list(stream)
            with (
                self._unsquashfs("-pf", "/dev/stdout") as stream,
                path.open("wb") as out,
                tempfile.TemporaryFile(dir=path.parent) as lines,
            ):
                return _Indexing(stream, lines, listing).write(out, knows_xattrs=not self._structure.has_xattrs)
        except CommandError as error:
            raise SifError(f"the files of the SIF cannot be read: {error.reason}", hint=error.hint) from error

    def _unsquashfs(self, *options: str) -> AbstractContextManager[IO[bytes]]:
        argv = ["unsquashfs", "-no-progress", "-data-queue", str(_QUEUE), "-frag-queue", str(_QUEUE)]
        argv += ["-offset", str(self._structure.offset), *options, f"/dev/fd/{self._sif.fileno()}"]
        return command.tap(argv, deadline=self._deadline, account=self._account, pass_fds=(self._sif.fileno(),))

    def _list(self, stream: IO[bytes]) -> _Listing:
        """Return the first listing, within the limits."""
        listing, limits = _Listing(), self._limits
        while line := stream.readline(_LONGEST_LINE):
            match = _LISTED.fullmatch(line)
            if match is None:
                raise _unlisted(line)
            kind, size, rest = match[1], int(match[2] or 0), match[3] or b""
            name = rest.partition(_ARROW)[0] if kind == b"l" else rest
            _check_name(kind, name)
            listing.entries += 1
            listing.size += size if kind == b"-" else 0
            listing.names += len(rest) - rest.rfind(b"/")
            if len(name) > limits.path_length or name.count(b"/") >= limits.depth:
                raise SifError(f"the SIF has a path that is too long or too deep: {shown(name)}")
            if listing.entries > limits.entries or listing.names > limits.names_size:
                raise SifError(f"the SIF has more than {limits.entries} entries, or names of more than {limits.names_size} bytes")
            if listing.size > limits.unpacked_size:
                raise SifError(f"the files of the SIF have more than the {format_size(limits.unpacked_size)} that are allowed")
        return listing


def _check_name(kind: bytes, name: bytes) -> None:
    """Raise SifError for what no sandbox may have."""
    last = name.rpartition(b"/")[2]
    if kind in b"cbs":
        what = "a socket" if kind == b"s" else "a device node"
        raise SifError(f"the SIF has {what}, which cannot be published: {shown(name)}", hint="build it without")
    if any(part in {b".", b".."} for part in name.split(b"/")):
        raise SifError(f"the SIF has a name that leads out of its tree: {shown(name)}")
    reserved = tree_policy.reserved(last)
    if reserved is not None:
        raise SifError(f"the SIF has {reserved}: {shown(name)}", hint="build it without")


class _Indexing:
    """The second reading, which has the contents.

    Args:
        stream: what unsquashfs writes.
        lines: a file for the listing at the beginning of the stream.
        listing: the first listing.
    """

    def __init__(self, stream: IO[bytes], lines: IO[bytes], listing: _Listing) -> None:
        self._stream = stream
        self._lines = lines
        self._listing = listing
        self._links: dict[bytes, bytes] = {}
        self._linked: dict[bytes, tuple[int, int, int, int] | None] = {}
        self._programs: set[bytes] = set()

    def write(self, out: IO[bytes], *, knows_xattrs: bool) -> SifFiles:
        """Write the file index to ``out``.

        Raises:
            SifError: the listing contradicts the first one, or is not valid.
        """
        count = self._copy_lines()
        index, expanded = FileIndexWriter(out, xattrs=knows_xattrs), 0
        self._lines.seek(0)
        for line in self._lines:
            path, kind, rest = _parsed(line)
            expanded += kind == b"S" and b"$(" in rest
            if path != b"/":
                self._add(index, path, kind, rest)
        index.close()
        if count != self._listing.entries or index.unpacked_size > self._listing.size:
            raise SifError("the SIF is damaged: two listings of its files differ")
        notes: dict[str, int | str] = {tree_policy.EXPANDED_LINKS: expanded} if expanded else {}
        return SifFiles(index.files, index.unpacked_size, self._has_shell(), notes)

    def _copy_lines(self) -> int:
        """Copy the listing to its file, note links and hard links, and return the number of lines."""
        count = 0
        while (line := self._stream.readline(_LONGEST_LINE)) != _START_OF_DATA:
            if not line:
                raise SifError("the files of the SIF cannot be read: the stream ends before their contents")
            if line == b"#\n":
                continue
            path, kind, rest = _parsed(line)
            if kind == b"L":
                self._linked[_unescaped(rest)] = None
            if kind == b"S":
                self._links[path] = _attributes(rest)[4]
            self._lines.write(line)
            count += 1
        self._stream.readline()
        return count

    def _add(self, index: FileIndexWriter, path: bytes, kind: bytes, rest: bytes) -> None:
        """Add a line of the listing, with the content of a file, which is next in the stream."""
        is_program = b"bin" in path.split(b"/")[:-1]  # where shells are, and what links named like one lead to
        if kind == b"L":
            first = _unescaped(rest)
            mode, uid, gid, time = self._linked[first] or (0, 0, 0, 0)
            if is_program and first not in self._links:
                self._programs.add(path)
            index.add(b"1", path, mode, uid, gid, 0, time, first)
            return
        time, mode, uid, gid, more = _attributes(rest)
        if path in self._linked:
            self._linked[path] = (mode, uid, gid, time)
        size, content = 0, b""
        if kind == b"S":
            content = more
        elif kind == b"R":
            size = int(more.partition(b" ")[0])
            content = self._digest(size)
            if is_program:
                self._programs.add(path)
        index.add(_FLAGS[kind], path, mode, uid, gid, size, time, content)

    def _digest(self, size: int) -> bytes:
        sha256 = hashlib.sha256()
        while size and (data := self._stream.read(min(size, _CHUNK))):
            sha256.update(data)
            size -= len(data)
        if size:
            raise SifError("the files of the SIF cannot be read: the stream ends within their contents")
        return sha256.digest()

    def _has_shell(self) -> bool:
        """Return whether ``/bin/sh`` leads to a file in a directory named ``bin``."""
        done: list[bytes] = []
        rest, links = [b"bin", b"sh"], 0
        while rest:
            part = rest.pop(0)
            if part in {b"", b"."}:
                continue
            if part == b"..":
                del done[-1:]
                continue
            target = self._links.get(b"/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                return False
            done = [] if target.startswith(b"/") else done
            rest = [*target.split(b"/"), *rest]
        return b"/".join(done) in self._programs


def _parsed(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Return path, kind and the rest of a line of ``-pf``. Raises SifError."""
    match = _PSEUDO.fullmatch(line)
    if match is None:
        raise _unlisted(line)
    return _unescaped(match[1]), match[2], match[3]


def _attributes(rest: bytes) -> tuple[int, int, int, int, bytes]:
    """Return time, mode, owner, group, and what follows."""
    time, mode, uid, gid, *more = rest.split(b" ", 4)
    return int(time), int(mode, 8), int(uid), int(gid), more[0] if more else b""


def _unlisted(line: bytes) -> SifError:
    return SifError(f"the SIF has a name, or a target of a link, with a line feed, or of more than 64 KiB: {shown(line)}")


def _unescaped(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text)
