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
from typing import TYPE_CHECKING

from publisher.contract.errors import os_reason
from publisher.errors import BrokenHostError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.errors import CommandError, PublisherError

_BATCH = 4096  # entries read at a time while a directory is emptied
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN_DISK = (errno.EIO, errno.EROFS, errno.ESTALE, errno.EREMOTEIO, errno.EUCLEAN)
_BROKEN = (
    *(*_BROKEN_DISK, errno.ENXIO, errno.ENODEV, errno.ENOTCONN),
    *(errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
"""Errors of a disk, a file system, its server, or another resource of this host; any program can meet them."""
HOST_ADVICE = "look at the disks and file systems of this host (dmesg, df, mount), then run again; finished work is kept"
"""The next step after such an error."""


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
        broken = host_failure(failure)
        advice = None if broken is None else broken.hint
        raise error(f"{doing}: {os_reason(failure, doing)}", hint=hint or advice) from failure


def host_failure(error: OSError) -> PublisherError | None:
    """Return the expected failure that an OSError stands for, where the host is to blame; None if it may be a bug."""
    if error.errno in _FULL:
        return SpaceError(f"a device is full: {os_reason(error)}", hint="free space there and run again")
    if error.errno in _BROKEN:
        return BrokenHostError(f"this host failed: {os_reason(error)}", hint=HOST_ADVICE)
    return None


def program_failure(error: CommandError, what: str) -> PublisherError | None:
    """Return the failure of this host that a program reports on its standard error; None if it reports none.

    Args:
        error: the program's failure.
        what: what there was no space for, for the message.
    """
    said = error.stderr.lower()
    if any(os.strerror(code).lower() in said for code in _FULL):
        return SpaceError(f"no space left for {what}", hint="free space in --state, or set another --state")
    if any(os.strerror(code).lower() in said for code in _BROKEN_DISK):
        return BrokenHostError(f"this host failed: {error.reason}", hint=HOST_ADVICE)
    return None


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
    path limits the depth. A deletion that was killed can therefore leave directories beside ``path``. No link is followed, even
    if the owner of the tree puts one in place of a directory meanwhile. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        try:
            above = stack.enter_context(_opened(path.parent, flags=os.O_PATH))
            is_directory = stat.S_ISDIR(os.lstat(path.name, dir_fd=above).st_mode)
        except FileNotFoundError:
            return
        if not is_directory:
            os.unlink(path.name, dir_fd=above)
            return
        pending = [path.name]
        while pending:
            name = pending.pop()
            with _opened_for_change(name, above) as directory:
                while entries := _first_entries(directory):
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(_move_up(entry.name, directory, path.name, above))
                        else:
                            os.unlink(entry.name, dir_fd=directory)
            os.rmdir(name, dir_fd=above)


@contextlib.contextmanager
def _opened(path: Path | str, directory: int | None = None, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened_for_change(name: str, directory: int) -> Iterator[int]:
    """Open a directory whatever its mode, give it mode 0700, and yield its descriptor."""
    with _opened(name, directory, os.O_PATH | os.O_NOFOLLOW) as found:
        os.chmod(f"/proc/self/fd/{found}", 0o700)  # noqa: PTH101 - fchmod(2) does not take a descriptor of O_PATH
        with _opened(f"/proc/self/fd/{found}") as descriptor:
            yield descriptor


def _first_entries(directory: int) -> list[os.DirEntry[str]]:
    os.lseek(directory, 0, os.SEEK_SET)
    with os.scandir(directory) as entries:
        return list(itertools.islice(entries, _BATCH))


def _move_up(name: str, directory: int, top: str, above: int) -> str:
    """Move a directory beside the tree ``top`` in ``above`` and return its new name.

    Renaming a directory needs write permission on the directory itself too, for its ``..`` (rename(2), EACCES).
    """
    target = f"{top[:64]}.{token()}"
    with _opened_for_change(name, directory):
        os.rename(name, target, src_dir_fd=directory, dst_dir_fd=above)
    return target
