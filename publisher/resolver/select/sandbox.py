"""Opening a sandbox under a deadline. Its directory is listed, and small files of it are read.

A broken CVMFS often lists directories, whose catalogs are cached, while every read of a file fails. So files are read that belong
to this image alone. That they were read is remembered for seconds: the jobs of a burst do not all read them.
"""

from __future__ import annotations

import os
import time

from publisher.resolver.errors import is_broken
from publisher.resolver.system import watched_call

READ_LIFETIME = 10
"""Seconds for which a sandbox whose files were read is only opened."""
_TIMEOUT = 5.0  # seconds; CVMFS may have to fetch a catalog first
_FILES = (".singularity.d/labels.json", ".singularity.d/runscript", ".singularity.d/env/10-docker2singularity.sh")
_MAX_BYTES = 4096  # of each file


def open_directory(path: str, cache: str | None = None) -> str:
    """Open a sandbox, read small files in it, and return its path with all links resolved.

    Args:
        path: of the sandbox; all names that it has lead to the same last two components.
        cache: directory of the cache, to remember for seconds that the files were read; None to read them each time.

    Raises:
        FetchError: it cannot be opened.
        ReadError: it cannot be opened or read, because the file system is broken.
        DeadlineError: it cannot be opened or read in time.
    """
    note = cache and os.path.join(cache, "failures", f"read-{''.join(path.rsplit('/', 2)[-2:])}")
    was_read = note is not None and _is_recent(note)

    def open_and_read() -> bytes:
        directory = os.path.realpath(path)
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        with os.scandir(directory) as entries:
            next(entries, None)
        if not was_read:
            _read_files(directory)
        return os.fsencode(directory)

    directory = os.fsdecode(watched_call.start_read(open_and_read, path).result(time.monotonic() + _TIMEOUT))
    if note is not None and not was_read:
        _touch(note)
    return directory


def _read_files(directory: str) -> None:
    """Read the beginning of each small file; one that is absent or private is left out. Raise OSError if a read fails."""
    for name in _FILES:
        try:
            descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.read(descriptor, _MAX_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:  # noqa: PERF203 - each file has its own errors
            if is_broken(error):
                raise


def _is_recent(path: str) -> bool:
    try:
        return 0 <= time.time() - os.stat(path).st_mtime < READ_LIFETIME
    except OSError:
        return False


def _touch(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.utime(descriptor)
        os.close(descriptor)
    except OSError:  # the next job reads the files as well, and creates the directory when something fails
        pass
