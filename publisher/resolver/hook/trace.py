"""The trace: one JSON line for each decision, which shows what the jobs of a site got, from where, and how long it took.

    {"time": 1750000000.1, "host": "ep1.example.org", "job": "7.0", "owner": "user", "image": "/cvmfs/…/htc/rocky:9", "code": 0,
     "why": "…", "seconds": 0.03, "name": "htc/rocky:9", "digest": "sha256:…", "form": "sif", "path": "/…",
     "sif_source": "https://…", "wanted": 913000000, "bytes": 9130000, "copied": 903870000, …}

Each line is appended by one write(2), so that lines of concurrent jobs never mix. A file that exceeds its maximum size is rotated
to ``<name>.1``, which replaces an older one; while somebody holds a lock on the file it keeps growing.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Line = Mapping[str, object]

_MAX_LINE_BYTES = 4000  # a longer line is shortened, so that it is written to the file at once


def append(path: str, line: Line, max_bytes: int) -> None:
    """Append a line.

    Args:
        path: the trace file; it and its directory are created if absent.
        line: the fields of the line.
        max_bytes: size beyond which the file is rotated first.

    Raises:
        OSError: the file cannot be written.
    """
    content = _encode(line)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        if os.fstat(descriptor).st_size + len(content) > max_bytes:
            _rotate(path, descriptor)
            os.close(descriptor)
            descriptor = os.open(path, flags, 0o644)
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def _encode(line: Line) -> bytes:
    content = json.dumps(line).encode()
    if len(content) < _MAX_LINE_BYTES:
        return content + b"\n"
    short = {name: value[:200] if isinstance(value, str) else value for name, value in line.items()}
    return json.dumps(short).encode() + b"\n"


def _rotate(path: str, descriptor: int) -> None:
    """Rename the file that is open as ``descriptor``, unless another process has done so; the lock prevents a race.

    Without the lock it is left to the next process: anybody may read the file and lock it for as long as they like.
    """
    import fcntl  # noqa: PLC0415 - this happens once in tens of thousands of jobs

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            os.rename(path, f"{path}.1")
    except (BlockingIOError, FileNotFoundError):
        pass  # locked; or rotated, and no process has written since
