"""A sandbox made from a similar published one: the repository clones that, and the differences of the file indexes are applied.

Files are compared by content, attributes and times, not only by size and time. What differs is removed from the clone, and its
new form is unpacked beside the clone and moved in; the result is the same as unpacking the whole image. The clone is
an untrusted tree on this host, so no step follows a symbolic link in it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from publisher.build.sandbox import unpack
from publisher.errors import RepositoryError
from publisher.fileindex.difference import difference, without_common
from publisher.fileindex.external_sort import by_path
from publisher.fileindex.format import parse_line
from publisher.system.durable import delete, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from publisher.fileindex.difference import FileChange, Ordered
    from publisher.fileindex.format import IndexedFile

    Extract = Callable[[Path, Collection[bytes]], None]
    Lines = Callable[[], Iterable[bytes]]

_MAX_CHANGES = 100_000
"""Number of paths that may differ: they are kept in memory, and a tree that differs more is as fast to unpack."""
_MAX_DEPTH = 200  # directories above a path; a descriptor is open for each
_HARD_LINK, _DIRECTORY = b"h ", b"d "
_UNLISTABLE = (b"#", b" ", b"\t")
"""First bytes of paths that unsquashfs does not accept in a list: it treats them as comments, or strips them."""


@dataclass(frozen=True)
class ClonePatch:
    """The changes that turn a clone of the older tree into the newer tree.

    Attributes:
        removed: paths to remove; everything below a directory precedes it.
        added: paths to unpack from the newer image; a new directory with everything in it.
        directories: index lines of the directories that are new, changed, or have something changed in them.
        unchanged: number of paths that stay as they are.
    """

    removed: tuple[bytes, ...]
    added: tuple[bytes, ...]
    directories: tuple[IndexedFile, ...]
    unchanged: int


def make_patch(
    before: Lines, after: Lines, share: float = 0.5, *, most: int = _MAX_CHANGES, ordered: Ordered = by_path
) -> ClonePatch | None:
    """Return the patch from one tree to another, None where too little is unchanged, or a path cannot be patched.

    Extended attributes are unpacked with files; a directory that has any, and that would have to be changed, cannot be patched.

    Memory does not grow with the size of the indexes, and only lines that differ are parsed.

    Args:
        before: returns the lines of the older tree's file index, as they are written; called once.
        after: returns the lines of the newer tree's file index, as they are written; called two or three times.
        share: share of the newer tree's paths that must be unchanged.
        most: number of paths that may differ.
        ordered: sorts lines by path, as :func:`publisher.fileindex.external_sort.by_path` does.

    Raises:
        OSError: a temporary file for sorting cannot be written.
    """
    total = 0
    has_hard_links = False

    def counted() -> Iterator[bytes]:
        nonlocal total, has_hard_links
        for line in after():
            total += 1
            has_hard_links = has_hard_links or line.startswith(_HARD_LINK)
            yield line

    old, new = (map(_parsed, lines) for lines in without_common(before(), counted()))
    changed_directories, removed, added = set[bytes](), set[bytes](), set[bytes]()
    for count, change in enumerate(difference(old, new, times=True, ordered=ordered), 1):
        if count > most or (_is_of_directories(change) and "xattrs" in change.attributes):
            return None
        if _is_of_directories(change):
            changed_directories.add(change.path)
            continue
        if change.before is not None:
            removed.add(change.path)
        if change.after is not None:
            added.add(change.path)
    if total - len(changed_directories | removed | added) < share * total:
        return None
    links = {line.path for line in _of_kind(_HARD_LINK, after) if line.content in added} if has_hard_links else set()
    removed |= links - added  # hard links to a changed file
    added |= links
    touched = changed_directories | {os.path.dirname(path) for path in removed | added}  # noqa: PTH120 - bytes
    in_question = touched | added
    directories = tuple(line for line in _of_kind(_DIRECTORY, after) if line.path and line.path in in_question)
    if not all(map(is_listable, removed | added | touched)) or any(line.xattrs for line in directories if line.path not in added):
        return None
    return ClonePatch(tuple(sorted(removed, reverse=True)), tuple(sorted(added)), directories, total - len(added))


def apply_patch(tree: Path, patch: ClonePatch, extract: Extract) -> None:
    """Turn a clone of the older tree into the newer tree.

    Args:
        tree: the clone. The added paths are unpacked beside it first, on the same file system.
        patch: the changes.
        extract: unpacks some paths of the newer image, as :func:`publisher.build.sandbox.unpack.extract_paths` does.

    Raises:
        RepositoryError: the clone differs from the older file index, or the image from the newer one.
        SpaceError: no space left.
    """
    added, root = tree.with_name(f"{tree.name}.fresh"), tree.with_name(f"{tree.name}.root")
    with failures(RepositoryError, f"the clone {tree.name} cannot be changed"):
        try:
            extract(added, patch.added)
            extract(root, ())
            with _closing(os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)) as top:
                for path in patch.removed:
                    _remove(top, path)
                _move_in(added, top)
                for path in patch.added:
                    _require(top, path)
                for line in patch.directories:
                    _set_attributes(top, line)
                unpack.copy_root_attributes(tree, root.lstat())
        finally:
            delete(added)
            delete(root)


def add_files(tree: Path, paths: Collection[bytes], extract: Extract) -> None:
    """Add files to a tree that lacks them, in directories that it has; the directories keep their times.

    Args:
        tree: the tree. The files are unpacked beside it first, on the same file system.
        paths: the files.
        extract: as for :func:`apply_patch`.

    Raises:
        RepositoryError: the tree lacks a directory, or the image a file.
        SpaceError: no space left.
    """
    added = tree.with_name(f"{tree.name}.fresh")
    with failures(RepositoryError, f"files cannot be added to {tree.name}"):
        try:
            extract(added, paths)
            with _closing(os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)) as top:
                directories = {path.rpartition(b"/")[0] for path in paths}
                times = {path: _times(top, path) for path in directories}
                _move_in(added, top)
                for path in paths:
                    _require(top, path)
                for path, time in times.items():
                    with _at(top, path) as directory:
                        os.utime(directory, ns=(time, time))
        finally:
            delete(added)


def _times(top: int, path: bytes) -> int:
    with _at(top, path) as directory:
        return os.fstat(directory).st_mtime_ns


def _of_kind(kind: bytes, lines: Lines) -> Iterator[IndexedFile]:
    return (_parsed(line) for line in lines() if line.startswith(kind))


def _parsed(raw: bytes) -> IndexedFile:
    """Return a line with a uniform path and target of a hard link, which layers may write in several ways."""
    line = parse_line(raw)
    if line.kind == "h" or line.path[:1] == b"." or line.path[-1:] == b"/":
        return replace(line, path=_normal(line.path), content=_normal(line.content) if line.kind == "h" else line.content)
    return line


def _normal(path: bytes) -> bytes:
    return path.removeprefix(b"./").strip(b"/")


def _is_of_directories(change: FileChange) -> bool:
    return change.before is not None and change.after is not None and change.before.kind == change.after.kind == "d"


def is_listable(path: bytes) -> bool:
    """Return whether a path can be in a list of paths for unsquashfs."""
    return b"\n" not in path and not path.startswith(_UNLISTABLE) and path.count(b"/") < _MAX_DEPTH


# --- operations below a directory that do not follow symbolic links


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _parent(top: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a descriptor of the directory that a path is in, and the name in it.

    Raises:
        OSError: a directory above the path is missing, a symbolic link, or not a directory.
    """
    *parents, name = path.split(b"/")
    with contextlib.ExitStack() as stack:
        for parent in parents:
            top = stack.enter_context(_closing(_open_directory(top, parent)))
        yield top, name


def _open_directory(directory: int, name: bytes | str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _remove(top: int, path: bytes) -> None:
    with _parent(top, path) as (directory, name):
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _move_in(source_tree: Path, top: int) -> None:
    """Move everything in one tree into another; directories that are in both are merged."""
    remaining = [b""]
    root = os.open(source_tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    with _closing(root):
        while remaining:
            path = remaining.pop()
            with _at(root, path) as source, _at(top, path) as target, os.scandir(source) as entries:
                for entry in list(entries):
                    name = os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False) and _is_directory(target, name):
                        remaining.append(os.path.join(path, name))  # noqa: PTH118 - bytes
                    else:
                        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


@contextlib.contextmanager
def _at(top: int, path: bytes) -> Iterator[int]:
    """Yield a descriptor of the directory at a path, ``top`` itself for an empty path."""
    if path == b"":
        yield top
        return
    with _parent(top, path) as (directory, name), _closing(_open_directory(directory, name)) as descriptor:
        yield descriptor


def _is_directory(directory: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode)
    except FileNotFoundError:
        return False


def _require(top: int, path: bytes) -> None:
    """Raise OSError if a path is missing, because unsquashfs does not report paths that it cannot find."""
    with _parent(top, path) as (directory, name):
        os.lstat(name, dir_fd=directory)


def _set_attributes(top: int, line: IndexedFile) -> None:
    """Set owner, mode and time of a directory; an ordinary user sets no owner and no special bits, as when it unpacks."""
    with _at(top, line.path) as directory:
        if os.geteuid() == 0:
            os.fchown(directory, line.uid, line.gid)
        os.fchmod(directory, line.mode if os.geteuid() == 0 else line.mode & 0o777)
        os.utime(directory, (line.mtime, line.mtime))
