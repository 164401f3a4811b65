"""A published tree compared with its file index: by content, every path, whatever the tree has become meanwhile.

The tree is walked from its top, so that no link in it leads elsewhere; the index is held in memory (some 500 bytes an entry).
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from publisher.state.paths import CATALOG_MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from publisher.fileindex.format import IndexedFile

_KINDS = {stat.S_IFREG: "f", stat.S_IFLNK: "l", stat.S_IFDIR: "d", stat.S_IFIFO: "p"}
_NAMES = {"f": "file", "l": "symbolic link", "d": "directory", "p": "fifo"}
_PLAIN_MODE, _FULL_MODE = 0o777, 0o7777


def differences(index: Iterable[IndexedFile], root: str) -> Iterator[str]:
    """A line for every path that is not as the index says; none where all is well.

    Owners and setuid bits are compared where root published the tree (its top belongs to 0:0 in every image): an ordinary user
    cannot give them away. Times are compared of files, to the second.

    Raises:
        OSError: the tree cannot be read.
    """
    expected = {_clean(line.path): line for line in index}
    owned = os.lstat(root).st_uid == 0
    seen: set[bytes] = {b""}
    for path, entry in _walk(os.fsencode(root)):
        if path == CATALOG_MARK.encode():
            continue
        seen.add(path)
        line = expected.get(path)
        why = "is not in the file index" if line is None else _difference(line, entry, expected, owned=owned)
        if why:
            yield f"{_shown(path)} {why}"
    for path in sorted(expected.keys() - seen):
        yield f"{_shown(path)} is missing"


def _walk(root: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        with os.scandir(b"%s/%s" % (root, below)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = b"%s/%s" % (below, entry.name) if below else entry.name
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)


def _difference(line: IndexedFile, entry: os.DirEntry[bytes], lines: Mapping[bytes, IndexedFile], *, owned: bool) -> str | None:
    """Why an entry is not what its line says, None where it is. Another name of a file may be a file of its own (CVMFS)."""
    if line.kind == "h":
        line = lines.get(_clean(line.content), line)
    found = entry.stat(follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "?")
    if kind != line.kind:
        return f"is a {_NAMES.get(kind, 'special file')}, not a {_NAMES.get(line.kind, line.kind)}"
    mask = _FULL_MODE if owned else _PLAIN_MODE
    if kind != "l" and (found.st_mode ^ line.mode) & mask:
        return f"has mode {found.st_mode & mask:o}, not {line.mode & mask:o}"
    if owned and (found.st_uid, found.st_gid) != (line.uid, line.gid):
        return f"belongs to {found.st_uid}:{found.st_gid}, not {line.uid}:{line.gid}"
    return _content_difference(line, entry, found)


def _content_difference(line: IndexedFile, entry: os.DirEntry[bytes], found: os.stat_result) -> str | None:
    if line.kind == "l":
        target = os.readlink(entry.path)  # noqa: PTH115 - bytes, which no Path takes
        return None if target == line.content else f"leads to {_shown(target)}, not to {_shown(line.content)}"
    if line.kind != "f":
        return None
    if found.st_size != line.size:
        return f"has {found.st_size} bytes, not {line.size}"
    if int(found.st_mtime) != line.mtime:
        return f"has the time {int(found.st_mtime)}, not {line.mtime}"
    with open(entry.path, "rb", opener=_no_follow) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest.encode() == line.content else "has other content"


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _clean(path: bytes) -> bytes:
    return path.removeprefix(b"./").strip(b"/")


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))
