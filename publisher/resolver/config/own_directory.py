"""A user's own directory in one of mode 1777, where anybody may have taken its usual name.

A user whose name there is taken by somebody else uses ``<name>-<random>``: nobody can guess that name before it exists, and it is
found again by its owner.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def choose(path: str) -> str:
    """Return the directory that this user uses in place of ``path``, which somebody else has; create it if there is none.

    Return ``path`` itself if no other one can be created: whoever uses it refuses it.
    """
    found = owned(path, os.geteuid())
    if found:
        return found[0]
    own = f"{path}-{os.urandom(8).hex()}"
    try:
        os.mkdir(own, 0o700)
    except OSError:
        return path
    return own


def owned(path: str, user: int) -> Sequence[str]:
    """Return the directories ``<path>-<random>`` that belong to a user, in the order of their names."""
    parent, name = os.path.split(path)
    try:
        names = sorted(other for other in os.listdir(parent) if other.startswith(f"{name}-"))
    except OSError:
        return []
    return [os.path.join(parent, other) for other in names if _belongs_to(os.path.join(parent, other), user)]


def _belongs_to(path: str, user: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_uid == user and stat.S_ISDIR(status.st_mode)
