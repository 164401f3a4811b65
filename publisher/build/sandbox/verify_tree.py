"""Comparison of a tree with its file index: every path, by content, even if the tree has been tampered with.

The tree is walked from its top and links are never followed. The file index is held in memory (about 500 bytes per entry).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from publisher.state.paths import CATALOG_MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from publisher.fileindex.format import IndexedFile

_KINDS = {stat.S_IFREG: "f", stat.S_IFLNK: "l", stat.S_IFDIR: "d", stat.S_IFIFO: "p"}
_NAMES = {"f": "file", "h": "file", "l": "symbolic link", "d": "directory", "p": "fifo"}
_PLAIN_MODE, _FULL_MODE = 0o777, 0o7777


def differences(index: Iterable[IndexedFile], root: str, only: Collection[bytes] | None = None) -> Iterator[str]:
    """Yield a line for every path that differs from the file index.

    Owners and setuid bits are compared only if root published the tree (its top directory then belongs to root): an ordinary
    user cannot set them. Modification times are compared for files only, in whole seconds.

    Args:
        index: the lines of the file index.
        root: the top directory of the tree.
        only: the paths to compare, without a walk; a hard link of which the target is not among them counts as any file. None
            for all.

    Raises:
        OSError: the tree cannot be read.
    """
    lines = ((_normalize(line.path), line) for line in index)
    expected = {path: line for path, line in lines if only is None or path in only}
    compare_owners = os.lstat(root).st_uid == 0
    seen: set[bytes] = {b""}
    for path, place, status in walk(os.fsencode(root)) if only is None else _look(os.fsencode(root), expected):
        if path == CATALOG_MARK.encode():
            continue
        seen.add(path)
        line = expected.get(path)
        if line is None:
            problem: str | None = "is not in the file index"
        else:
            problem = _difference(line, place, status, expected, compare_owners=compare_owners)
        if problem is not None:
            yield f"{_printable(path)} {problem}"
    for path in sorted(expected.keys() - seen):
        yield f"{_printable(path)} is missing"


def _look(root: bytes, paths: Iterable[bytes]) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Yield those of some paths that exist, as :func:`walk` does."""
    for path in paths:
        place = b"%s/%s" % (root, path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield path, place, os.lstat(place)


def walk(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Yield every path of a tree relative to ``root``, where it is, and its status."""
    pending = [b""]
    while pending:
        directory = pending.pop()
        with os.scandir(b"%s/%s" % (root, directory)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = b"%s/%s" % (directory, entry.name) if directory else entry.name
                yield path, entry.path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def _difference(
    line: IndexedFile, place: bytes, status: os.stat_result, lines: Mapping[bytes, IndexedFile], *, compare_owners: bool
) -> str | None:
    """Return how a path differs from its line in the file index, None if it does not.

    A hard link may be a file of its own with the same content: CVMFS does not keep hard links between directories.
    """
    if line.kind == "h":
        line = lines.get(_normalize(line.content), line)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "?")
    if line.kind == "h" and kind == "f":
        return None
    if kind != line.kind:
        return f"is a {_NAMES.get(kind, 'special file')}, not a {_NAMES.get(line.kind, line.kind)}"
    mask = _FULL_MODE if compare_owners else _PLAIN_MODE
    if kind != "l" and (status.st_mode ^ line.mode) & mask:
        return f"has mode {status.st_mode & mask:o}, not {line.mode & mask:o}"
    if compare_owners and (status.st_uid, status.st_gid) != (line.uid, line.gid):
        return f"belongs to {status.st_uid}:{status.st_gid}, not {line.uid}:{line.gid}"
    return _content_difference(line, place, status)


def _content_difference(line: IndexedFile, place: bytes, status: os.stat_result) -> str | None:
    """Return how a file's content, size or time, or a symbolic link's target, differs; None if it does not."""
    if line.kind == "l":
        target = os.readlink(place)  # noqa: PTH115 - bytes, which Path does not take
        return None if target == line.content else f"points to {_printable(target)}, not to {_printable(line.content)}"
    if line.kind != "f":
        return None
    if status.st_size != line.size:
        return f"has {status.st_size} bytes, not {line.size}"
    if int(status.st_mtime) != line.mtime:
        return f"has modification time {int(status.st_mtime)}, not {line.mtime}"
    with open(place, "rb", opener=_no_follow) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest.encode() == line.content else "has different content"


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _normalize(path: bytes) -> bytes:
    return path.removeprefix(b"./").strip(b"/")


def _printable(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))
