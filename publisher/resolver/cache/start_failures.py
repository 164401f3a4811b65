"""Reports of jobs whose image did not start on this host: several in a row, and the machine takes no such job for a while.

A hook learns of such a failure when HTCondor sends the job back to the same machine (status 45), or when it fails itself because
of the sandbox or the cache. It appends a line ``<seconds since the epoch> <what failed>`` to ``start-failures`` in its user's
cache. The startd's cron, which may run as another user, counts the lines of all caches that are younger than the last probe which
started an image.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = "start-failures"
_LIFETIME = 1800.0  # seconds for which a report counts if no image can be probed
_CLOCK_STEP = 300  # seconds by which a report may seem to come from the future
_MAX_BYTES = 1 << 14  # of a file; it then begins anew
_MAX_REASON = 200


def report(root: str, reason: str, now: float) -> None:
    """Report a failure to the startd's cron; do nothing if the cache in ``root`` cannot be written."""
    line = f"{now:.0f} {' '.join(reason.split())[:_MAX_REASON]}\n".encode("utf-8", "replace")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(os.path.join(root, _NAME), flags, 0o644)
        try:
            if os.fstat(descriptor).st_size > _MAX_BYTES:
                os.ftruncate(descriptor, 0)
            os.write(descriptor, line)
            mode = os.stat(root).st_mode | stat.S_IXGRP | stat.S_IXOTH  # others can read this file, but list nothing
            os.chmod(root, mode)
        finally:
            os.close(descriptor)
    except OSError:
        pass


def recent(caches: Iterable[tuple[int, str]], since: float, now: float) -> list[str]:
    """Return the reasons of the failures since the last successful probe.

    Args:
        caches: user ID of the owner and directory of each cache.
        since: when a probe last started an image, seconds since the epoch.
        now: the time, likewise.
    """
    begin = max(since, now - _LIFETIME)
    reasons = []
    for user, root in caches:
        for line in _read(os.path.join(root, _NAME), user).splitlines():
            when, _, reason = line.partition(" ")
            if when.isascii() and when.isdigit() and begin < int(when) <= now + _CLOCK_STEP:
                reasons.append("".join(letter for letter in reason if letter.isprintable())[:_MAX_REASON])
    return reasons


def _read(path: str, user: int) -> str:
    """Return the content of a user's file; nothing if it is absent or somebody else's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if status.st_uid != user or not stat.S_ISREG(status.st_mode):
            return ""
        return (file.read(2 * _MAX_BYTES) or b"").decode("utf-8", "replace")
