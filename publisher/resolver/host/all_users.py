"""The caches of all users of a host, if each user has a cache of their own (``{uid}`` in the setting), for root to administer.

A user may put anything into their cache, symbolic links too. So root does not work in it: a child process that has become that
user does.
"""

from __future__ import annotations

import json
import os
import stat
import time

from publisher.resolver.config import own_directory
from publisher.resolver.errors import FetchError
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.system.notes import Warnings

UID = "{uid}"
_NOBODY = 65534  # group ID: no file in a cache needs a group
_TIMEOUT = 600.0  # seconds for each cache


def caches(settings: ResolverSettings) -> list[tuple[int, str]]:
    """Return the user ID and the cache of each user of this host, as the settings have them: one cache, or one for each user.

    Raises:
        OSError: the directory with the users' directories cannot be read.
    """
    if settings.cache_template is not None and UID in settings.cache_template:
        return find_caches(settings.cache_template)
    return [] if settings.cache is None else [(os.geteuid(), settings.cache)]


def find_caches(pattern: str) -> list[tuple[int, str]]:
    """Return the user ID and the cache of each user who owns the directory at ``pattern`` with their ID in place of ``{uid}``.

    Raises:
        OSError: the directory with the users' directories cannot be read.
    """
    before, _, after = pattern.partition(UID)
    directory, prefix = os.path.split(before)
    suffix, slash, inside = after.partition("/")
    caches = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        number = name[len(prefix) : len(name) - len(suffix)]
        if name == f"{prefix}{number}{suffix}" and number.isascii() and number.isdigit():
            path = os.path.join(directory, name + (slash + inside).replace(UID, number))
            if _belongs_to(path, int(number)):
                caches.append((int(number), path))
            elif not (suffix or slash):  # somebody else took the name
                caches += [(int(number), own) for own in own_directory.owned(path, int(number))]
    return caches


def for_each(pattern: str, work: Callable[[str], Any], notes: Warnings) -> list[tuple[int, Any]]:
    """Run ``work`` for each cache as the user who owns it, the cache that was unused for longest first.

    Args:
        pattern: see :func:`find_caches`.
        work: is called with the path of a cache, and returns a value for JSON.
        notes: receives the failures, which do not affect the other caches.

    Returns:
        The user ID and the returned value of each cache.

    Raises:
        OSError: see :func:`find_caches`.
    """
    results = []
    for user, path in sorted(find_caches(pattern), key=lambda cache: _last_use(cache[1])):
        call = ForkedCall(lambda user=user, path=path: _run_as(user, work, path))  # type: ignore[misc]  # a lambda's defaults
        try:
            results.append((user, json.loads(call.result(time.monotonic() + _TIMEOUT))))
        except FetchError as error:
            notes.warn(f"{path}: {error}")
    return results


def _run_as(user: int, work: Callable[[str], Any], path: str) -> bytes:
    if user != os.geteuid():
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(user, user, user)
    return json.dumps(work(path)).encode()


def _belongs_to(path: str, user: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_uid == user and stat.S_ISDIR(status.st_mode)


def _last_use(path: str) -> float:
    """Return when the counters in a cache last changed, as far as root can tell without entering it."""
    try:
        return max((entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(os.path.join(path, "tally"))), default=0.0)
    except OSError:
        return 0.0
