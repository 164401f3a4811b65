"""What a directory on a disk needs before it can be trusted with published data, for repositories and origins alike.

Full disks and refusals become typed errors, what was written is made durable as a whole, and trees of strangers (directories
without write permission, thousands of levels) are deleted by an ordinary user too.
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

_BATCH = 4096  # entries held at a time while a directory is emptied
_FULL = (errno.ENOSPC, errno.EDQUOT)


def token() -> str:
    """A name that nothing else has: 16 hexadecimal digits."""
    return secrets.token_hex(8)


@contextlib.contextmanager
def failures(error: type[PublisherError], doing: str, hint: str | None = None) -> Iterator[None]:
    """Turn an OSError of the block into ``error``, or into SpaceError where the device or the quota is full."""
    try:
        yield
    except OSError as failure:
        if failure.errno in _FULL:
            raise SpaceError(f"{doing}: {failure.strerror}", hint=hint or "make room there and run again") from failure
        raise error(f"{doing}: {failure}", hint=hint) from failure


@contextlib.contextmanager
def durable(directory: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that puts everything written to the directory's file system on disk.

    syncfs(2): one call for a tree of any size. It reports write-back errors since the descriptor was opened, so the block
    begins before the writing does. The function raises OSError.
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
    """Delete a file, a link or a whole tree that nobody else uses any more; nothing happens where there is none.

    Subdirectories are moved up beside ``path`` first (as ``<name>.<random>``), so that neither recursion nor the length of a
    path limits the depth; what a killed deletion leaves behind is therefore beside ``path`` too. Raises OSError.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        path.unlink()
        return
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        directory.chmod(0o700)
        while entries := _some(directory):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(_moved_up(entry, path))
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - a Path per entry costs more than the deletion
        directory.rmdir()


def _some(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(itertools.islice(entries, _BATCH))


def _moved_up(entry: os.DirEntry[str], top: Path) -> Path:
    """Renaming a directory takes write permission on itself as well, for its ``..`` (rename(2), EACCES)."""
    above = top.with_name(f"{top.name[:64]}.{token()}")
    Path(entry.path).chmod(0o700)
    return Path(entry.path).rename(above)
