"""A sandbox made of a similar one that is published: cloned by the repository, then changed where the two file indexes differ.

Compared by content, attributes and times, never by size and time alone. What differs is taken away from the clone, and its new
form unpacked from the SIF beside it and moved in, so that the result is what unpacking the whole SIF would give. The clone is a
stranger's tree on this host: no step follows a symbolic link in it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from publisher.build import unpack
from publisher.errors import RepositoryError
from publisher.fileindex.difference import difference
from publisher.fileindex.external_sort import by_path
from publisher.system.durable import delete, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from publisher.fileindex.difference import FileChange, Ordered
    from publisher.fileindex.format import IndexedFile

    Lines = Callable[[], Iterable[IndexedFile]]

_MOST = 100_000
"""Paths that may differ: they are held in memory, and a tree that differs more is as well unpacked."""
_DEEPEST = 200  # directories; a descriptor is held for each
_UNLISTED = (b"#", b" ", b"\t")
"""First bytes of paths that unsquashfs does not take from a list: it sees a comment, or leaves them out."""


@dataclass(frozen=True)
class ClonePatch:
    """What makes the newer tree of a clone of the older.

    Attributes:
        gone: paths to be taken away, those below a directory before it.
        fresh: paths to be taken from the SIF; of a new directory all that is in it.
        directories: lines of the directories that are new or changed, or have something changed in them.
        kept: how many paths stay as they are.
    """

    gone: tuple[bytes, ...]
    fresh: tuple[bytes, ...]
    directories: tuple[IndexedFile, ...]
    kept: int


def similar(
    before: Lines, after: Lines, share: float = 0.5, *, most: int = _MOST, ordered: Ordered = by_path
) -> ClonePatch | None:
    """What makes one tree of the other; None where too little of the newer one stays, or it cannot be done.

    Memory does not grow with the indexes.

    Args:
        before: gives the lines of the older tree's file index; asked once.
        after: gives those of the newer one; asked three times.
        share: of the newer one's paths, that must stay as they are.
        most: paths that may differ.
        ordered: puts lines in the order of their paths: as :func:`publisher.fileindex.external_sort.by_path`.

    Raises:
        OSError: there is no room to sort in.
    """
    total = 0

    def counted() -> Iterator[IndexedFile]:
        nonlocal total
        for line in new():
            total += 1
            yield line

    old, new = _cleaned(before), _cleaned(after)
    both, gone, fresh = set[bytes](), set[bytes](), set[bytes]()
    for count, change in enumerate(difference(old(), counted(), times=True, ordered=ordered), 1):
        if count > most:
            return None
        if _is_of_directories(change):
            both.add(change.path)
            continue
        if change.before is not None:
            gone.add(change.path)
        if change.after is not None:
            fresh.add(change.path)
    if total - len(both | gone | fresh) < share * total:
        return None
    links = {line.path for line in new() if line.kind == "h" and line.content in fresh}  # names of a file that is another now
    gone |= links - fresh
    fresh |= links
    touched = both | {os.path.dirname(path) for path in gone | fresh}  # noqa: PTH120 - bytes
    directories = tuple(line for line in new() if line.kind == "d" and line.path in touched | fresh and line.path)
    if not all(map(_listable, gone | fresh | touched)):
        return None
    kept = total - len(fresh)
    return ClonePatch(tuple(sorted(gone, reverse=True)), tuple(sorted(fresh)), directories, kept)


def change(sif: Path, tree: Path, made_of: ClonePatch, *, deadline: float) -> None:
    """Make the newer tree of a clone of the older one.

    Args:
        sif: the newer image's.
        tree: the clone. What is to be put into it is unpacked beside it first, on the same file system.
        made_of: how they differ.
        deadline: seconds for unpacking.

    Raises:
        RepositoryError: the clone is not what the older file index says, or the SIF not what the newer one says.
        SpaceError: no room left.
    """
    fresh, root = tree.with_name(f"{tree.name}.fresh"), tree.with_name(f"{tree.name}.root")
    with failures(RepositoryError, f"the clone {tree.name} cannot be changed"):
        try:
            unpack.extract(sif, fresh, made_of.fresh, deadline=deadline)
            unpack.extract(sif, root, (), deadline=deadline)
            with _directory(os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)) as top:
                for path in made_of.gone:
                    _take_away(top, path)
                _move_in(fresh, top)
                for path in made_of.fresh:
                    _require(top, path)
                for line in made_of.directories:
                    _set_attributes(top, line)
                unpack.finish_root(tree, root.lstat())
        finally:
            delete(fresh)
            delete(root)


def _cleaned(lines: Lines) -> Lines:
    """Lines whose paths, and whose other names, are written alike: layers write them as they like."""
    return lambda: (
        replace(line, path=_plain(line.path), content=_plain(line.content) if line.kind == "h" else line.content)
        if line.kind == "h" or line.path[:1] == b"." or line.path[-1:] == b"/"
        else line
        for line in lines()
    )


def _plain(path: bytes) -> bytes:
    return path.removeprefix(b"./").strip(b"/")


def _is_of_directories(change: FileChange) -> bool:
    return change.before is not None and change.after is not None and change.before.kind == change.after.kind == "d"


def _listable(path: bytes) -> bool:
    return b"\n" not in path and not path.startswith(_UNLISTED) and path.count(b"/") < _DEEPEST


# --- below a directory, without following links


@contextlib.contextmanager
def _directory(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _parent(top: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The directory that a path is in, and its name there. Raises OSError where a directory above it is none, or a link."""
    *above, name = path.split(b"/")
    with contextlib.ExitStack() as stack:
        for part in above:
            top = stack.enter_context(_directory(_enter(top, part)))
        yield top, name


def _enter(directory: int, name: bytes | str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _take_away(top: int, path: bytes) -> None:
    with _parent(top, path) as (directory, name):
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _move_in(fresh: Path, top: int) -> None:
    """Move all that is in one tree to where it is not in another: directories that are in both are gone through."""
    waiting = [b""]
    root = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    with _directory(root):
        while waiting:
            below = waiting.pop()
            with _at(root, below) as source, _at(top, below) as target, os.scandir(source) as entries:
                for entry in list(entries):
                    name = os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False) and _is_directory(target, name):
                        waiting.append(os.path.join(below, name))  # noqa: PTH118 - bytes
                    else:
                        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


@contextlib.contextmanager
def _at(top: int, path: bytes) -> Iterator[int]:
    if path == b"":
        yield top
        return
    with _parent(top, path) as (directory, name), _directory(_enter(directory, name)) as found:
        yield found


def _is_directory(directory: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode)
    except FileNotFoundError:
        return False


def _require(top: int, path: bytes) -> None:
    """Unsquashfs says nothing where it does not find what it was to extract. Raises OSError."""
    with _parent(top, path) as (directory, name):
        os.lstat(name, dir_fd=directory)


def _set_attributes(top: int, line: IndexedFile) -> None:
    """An ordinary user gives nothing away and sets no special bits, as when it unpacks."""
    with _at(top, line.path) as directory:
        if os.geteuid() == 0:
            os.fchown(directory, line.uid, line.gid)
        os.fchmod(directory, line.mode if os.geteuid() == 0 else line.mode & 0o777)
        os.utime(directory, (line.mtime, line.mtime))
