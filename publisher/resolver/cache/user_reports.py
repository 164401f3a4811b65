"""Files in a user's cache that processes of other users may read: what its jobs report to the startd's cron.

Each addition is a single appending write, so no lock is needed. The cache itself stays closed: others can open these files by
their names, but list nothing.
"""

from __future__ import annotations

import os
import stat


def append(root: str, name: str, line: str, limit: int) -> None:
    """Append a line to a file of the cache in ``root``; do nothing if it cannot be written.

    A file that has more than ``limit`` bytes begins anew.
    """
    path, flags = os.path.join(root, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
        try:
            if os.fstat(descriptor).st_size > limit:
                os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{line}\n".encode("utf-8", "replace"))
            for directory in {root, os.path.dirname(path)}:
                mode = os.stat(directory).st_mode | stat.S_IXGRP | stat.S_IXOTH
                os.chmod(directory, mode)
        finally:
            os.close(descriptor)
    except OSError:
        pass


def read(root: str, name: str, user: int, limit: int) -> str:
    """Return a user's file, its first ``limit`` bytes; nothing if it is absent or somebody else's."""
    try:
        descriptor = os.open(os.path.join(root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if status.st_uid != user or not stat.S_ISREG(status.st_mode):
            return ""
        return (file.read(limit) or b"").decode("utf-8", "replace")
