"""The caches of all users of a host, where each has one of his own (``{uid}`` in the setting), for root to look after.

Users can put anything into theirs, links too. So root does not go in: a child does, which has become the user.
"""

from __future__ import annotations

import json
import os
import stat
import time

from publisher.resolver.errors import FetchError
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from publisher.resolver.system.notes import Warnings

UID = "{uid}"
_NOBODY = 65534  # the group: no file in a cache needs one
_TIME = 600.0  # seconds for each cache


def caches(pattern: str) -> list[tuple[int, str]]:
    """Number and cache of each user who has one, of his own, at ``pattern``, whose ``{uid}`` is the number. Raises OSError."""
    before, _, after = pattern.partition(UID)
    directory, begin = os.path.split(before)
    end, slash, inside = after.partition("/")
    found = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        number = name[len(begin) : len(name) - len(end)]
        if name == f"{begin}{number}{end}" and number.isascii() and number.isdigit():
            path = os.path.join(directory, name + (slash + inside).replace(UID, number))
            if _is_his(path, int(number)):
                found.append((int(number), path))
    return found


def each(pattern: str, work: Callable[[str], Any], notes: Warnings) -> list[tuple[int, Any]]:
    """What ``work`` says, for JSON, of each of the caches, as its user; those longest out of use come first.

    Args:
        pattern: see :func:`caches`.
        work: is given a cache's path.
        notes: gets what failed; the others do not suffer.

    Raises:
        OSError: as :func:`caches`.
    """
    said = []
    for user, path in sorted(caches(pattern), key=lambda found: _last_use(found[1])):
        attempt = ForkedCall(lambda user=user, path=path: _as(user, work, path))  # type: ignore[misc]  # it infers no lambda's defaults
        try:
            said.append((user, json.loads(attempt.result(time.monotonic() + _TIME))))
        except FetchError as error:
            notes.warn(f"{path}: {error}")
    return said


def _as(user: int, work: Callable[[str], Any], path: str) -> bytes:
    if user != os.geteuid():
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(user, user, user)
    return json.dumps(work(path)).encode()


def _is_his(path: str, user: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_uid == user and stat.S_ISDIR(status.st_mode)


def _last_use(path: str) -> float:
    """When something was last counted there (``tally.py``), as far as one can tell from outside."""
    try:
        return max((entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(os.path.join(path, "tally"))), default=0.0)
    except OSError:
        return 0.0
