"""Files that a site gives to every job: a directory that is copied into the job's scratch directory, under its own name.

The OSPool's jobs find ``condor_chirp`` in ``.gwms.d/bin`` of their scratch directory, which a container shows as well.
"""

from __future__ import annotations

import os

_CHUNK = 1 << 20


def copy(directory: str, scratch: str) -> None:
    """Copy a directory with everything in it into a scratch directory; files that are there already are replaced.

    Raises:
        OSError: something cannot be read or written; the rest is not copied.
    """

    def fail(error: OSError) -> None:
        raise error

    target = os.path.join(scratch, os.path.basename(directory.rstrip("/")))
    for place, names, files in os.walk(directory, onerror=fail):
        there = os.path.normpath(os.path.join(target, os.path.relpath(place, directory)))
        os.makedirs(there, exist_ok=True)
        for name in (*names, *files):
            source, copied = os.path.join(place, name), os.path.join(there, name)
            if os.path.islink(source):
                _remove(copied)
                os.symlink(os.readlink(source), copied)
            elif os.path.isfile(source):
                _remove(copied)
                _copy_file(source, copied)


def _remove(path: str) -> None:
    try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
        os.unlink(path)
    except FileNotFoundError:
        pass


def _copy_file(source: str, target: str) -> None:
    """Copy a file with its permissions."""
    with open(source, "rb", buffering=0) as old:
        mode = os.fstat(old.fileno()).st_mode & 0o777
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb", buffering=0) as new:
            while chunk := old.read(_CHUNK):
                new.write(chunk)
