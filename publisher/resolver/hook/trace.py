"""The trace: a JSON line for each decision, for who wants to know what a site's jobs got, from where, and how long it took.

    {"time": 1750000000.1, "job": "7.0", "owner": "user", "image": "/cvmfs/…/htc/rocky:9", "code": 0, "why": "…", "seconds": 0.03,
     "name": "htc/rocky:9", "digest": "sha256:…", "form": "sif", "path": "/…", "sif_source": "https://…", "bytes": 913000000, …}

Each line is one write(2) at the file's end, so that lines of jobs that start together never mix. A file that has grown beyond its
size is renamed to ``<name>.1``, in the place of an older one; while somebody reads it under a lock it goes on growing.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Line = Mapping[str, object]

_LONGEST = 4000  # bytes; a longer line loses what makes it long, so that a pipe or a disk block takes it at once


def append(path: str, line: Line, most: int) -> None:
    """Add a line.

    Args:
        path: the trace's file; it and its directory are made.
        line: what it says.
        most: bytes beyond which the file is put aside before.

    Raises:
        OSError: it cannot be written.
    """
    content = _encoded(line)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        if os.fstat(descriptor).st_size + len(content) > most:
            _put_aside(path, descriptor)
            os.close(descriptor)
            descriptor = os.open(path, flags, 0o644)
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def _encoded(line: Line) -> bytes:
    content = json.dumps(line).encode()
    if len(content) < _LONGEST:
        return content + b"\n"
    short = {name: value[:200] if isinstance(value, str) else value for name, value in line.items()}
    return json.dumps(short).encode() + b"\n"


def _put_aside(path: str, descriptor: int) -> None:
    """Rename the file that is open as ``descriptor``, unless another process has: each holds its lock while it looks.

    Who does not get the lock at once leaves it to the next one: anybody may read the file, and lock it for as long as he likes.
    """
    import fcntl  # noqa: PLC0415 - this happens once in tens of thousands of jobs

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            os.rename(path, f"{path}.1")
    except (BlockingIOError, FileNotFoundError):
        pass  # locked; or renamed, and nobody has written since
