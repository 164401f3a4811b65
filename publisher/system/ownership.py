"""Files and directories that only this account and root can have written: what a run finds in its state directory is trusted.

The cache of an execution point has the same rules (:mod:`publisher.resolver.cache.cache`).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.errors import PublisherError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_own(status: os.stat_result) -> bool:
    """Return whether a file or directory belongs to this account or root, and no other account may write to it."""
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & _WRITABLE_BY_OTHERS


def is_own_file(path: Path) -> bool:
    """Return whether a path is a regular file, not a link, that :func:`is_own`. Raises OSError except FileNotFoundError."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and is_own(status)


def check_own_directory(path: Path, what: str, hint: str, error: type[PublisherError]) -> None:
    """Check that no other account can change a directory, or replace it.

    Args:
        path: the directory, or a link to it.
        what: what it is, for messages.
        hint: the next step if another account owns it or may write to it.
        error: the error to raise.

    Raises:
        PublisherError: (the class ``error``) another account owns the directory or may write to it, or its group or everybody may
            replace it.
        OSError: it cannot be examined.
    """
    for status in (path.lstat(), path.stat()):  # the owner of a link can redirect it
        if status.st_uid not in (os.geteuid(), 0):
            raise error(f"the {what} {path} belongs to another account, user {status.st_uid}, and is not trusted", hint=hint)
    if not is_own(path.stat()):
        raise error(f"other accounts may write to the {what} {path}, which is not trusted", hint=hint)
    for above in path.resolve().parents:
        mode = above.stat().st_mode
        if mode & _WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX:
            who = "everybody" if mode & stat.S_IWOTH else "its group"
            reason = f"other accounts may replace the {what} {path}, because {who} may write to {above}"
            raise error(reason, hint=f"run chmod go-w {above}, or chmod +t {above}")
