"""Durable writes and safe deletion in directories that hold published data, for repositories and origins alike.

An OSError becomes a typed error, a whole file system is synced at once, and trees from images (directories without write
permission, thousands of levels) are deleted by an ordinary user too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from publisher.errors import PublisherError

_BATCH = 4096  # entries read at a time while a directory is emptied
_FULL = (errno.ENOSPC, errno.EDQUOT)


def token() -> str:
    """Return a random name: 16 hexadecimal digits."""
    return secrets.token_hex(8)


@contextlib.contextmanager
def failures(error: type[PublisherError], doing: str, hint: str | None = None) -> Iterator[None]:
    """Turn an OSError of the block into ``error``, or into SpaceError if the device or the quota is full.

    ``doing`` says what failed (``cannot store a.sif``) and begins the message; ``hint`` is the next step.
    """
    try:
        yield
    except OSError as failure:
        if failure.errno in _FULL:
            raise SpaceError(f"{doing}: {failure.strerror}", hint=hint or "free space there and run again") from failure
        raise error(f"{doing}: {failure}", hint=hint) from failure


@contextlib.contextmanager
def durable(directory: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that makes everything written to the directory's file system durable.

    It calls syncfs(2), once for a tree of any size. That reports write-back errors since the descriptor was opened, so the block
    has to begin before the writing. The function raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync() -> None:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))

    try:
        yield sync
    finally:
        os.close(descriptor)


def delete(path: Path) -> None:
    """Delete a file, a link or a whole tree that nobody uses any more; do nothing if it does not exist.

    Subdirectories are moved up beside ``path`` first (as ``<name>.<random>``), so that neither recursion nor the length of a
    path limits the depth. A deletion that was killed can therefore leave directories beside ``path``. Raises OSError.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        path.unlink()
        return
    pending = [path]
    while pending:
        directory = pending.pop()
        directory.chmod(0o700)
        while entries := _first_entries(directory):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(_move_up(entry, path))
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - a Path per entry costs more than the deletion
        directory.rmdir()


def _first_entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(itertools.islice(entries, _BATCH))


def _move_up(entry: os.DirEntry[str], top: Path) -> Path:
    """Move a directory beside ``top`` and return its new path.

    Renaming a directory needs write permission on the directory itself too, for its ``..`` (rename(2), EACCES).
    """
    target = top.with_name(f"{top.name[:64]}.{token()}")
    Path(entry.path).chmod(0o700)
    return Path(entry.path).rename(target)
