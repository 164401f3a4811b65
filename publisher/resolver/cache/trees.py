"""Directory trees in the cache: how one is measured, hashed and removed. All functions raise OSError."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 20
_BLOCK = 512  # bytes, the unit of st_blocks
_ALL = 0o700


def size_on_disk(path: str) -> int:
    """Return the bytes that a file, or a directory with all that is in it, takes on its file system; 0 if it is absent."""
    try:
        total = os.lstat(path).st_blocks
    except FileNotFoundError:
        return 0
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks
            except FileNotFoundError:  # noqa: PERF203 - a tree may be removed meanwhile
                continue
    return total * _BLOCK


def digest(path: str, check: Callable[[], None] = lambda: None) -> str:
    """Return a sha256 over names, kinds, modes, link targets and contents of everything in a directory.

    Args:
        path: of the directory.
        check: called for each chunk that was read; may raise to end this.
    """
    total = hashlib.sha256()
    for name in sorted(_names(path)):
        full = os.path.join(os.fsencode(path), name)
        status = os.lstat(full)
        total.update(b"%d %o %d " % (len(name), status.st_mode, status.st_size * stat.S_ISREG(status.st_mode)) + name)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(full)
            total.update(b"%d " % len(target) + target)
        elif stat.S_ISREG(status.st_mode) and os.access(full, os.R_OK):
            with open(full, "rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    total.update(chunk)
                    check()
    return total.hexdigest()


def remove(path: str) -> None:
    """Remove a file, or a directory with all that is in it, read-only directories too; do nothing if it is absent."""
    if not os.path.isdir(path) or os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    _make_writable(path)
    for directory, names, _ in os.walk(path):
        for name in names:
            _make_writable(os.path.join(directory, name))
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        shutil.rmtree(path)


def _make_writable(path: str) -> None:
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & _ALL != _ALL:
        os.chmod(path, status.st_mode | _ALL)


def _names(path: str) -> Iterator[bytes]:
    """Yield the relative path of everything in a directory."""
    top = os.fsencode(path)

    def fail(error: OSError) -> None:
        raise error

    for directory, names, files in os.walk(top, onerror=fail):
        for name in (*names, *files):
            yield os.path.relpath(os.path.join(directory, name), top)
