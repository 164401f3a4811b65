"""A store: SIFs that root, or a daemon, keeps for the jobs of all users of this host, who can only read it.

It is a cache (``shelf.py``) with other modes: what ``image-resolver cache fill`` put there is handed out by its note alone, since
nobody but its owner can have touched either. Jobs pin what they use in ``pins/``, open to all like /tmp.
"""

from __future__ import annotations

import os
import stat

from publisher.resolver.cache import cache, pins
from publisher.resolver.cache.entries import CacheEntries
from publisher.resolver.errors import CacheError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.cache.pins import Starter

_PINS = "pins"


def found(root: str, owner: int, sha256: str, starter: Starter | None) -> str | None:
    """The path of a SIF in the store, None where it is not there.

    Args:
        root: the store's directory.
        owner: number of the user who fills it; root may as well.
        sha256: which SIF.
        starter: of the job that gets it.

    Raises:
        CacheError: the store, or what is in it, could have been changed by somebody else.
    """
    shelf = CacheEntries(root)
    path = shelf.path(sha256)
    if not os.path.exists(path):
        return None
    cache.check(root, (owner, 0), "store")
    for part in (path, os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        status = os.lstat(part)
        if status.st_uid not in (owner, 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CacheError(f"others may change {part}, which is in the store", hint="chown and chmod go-w it, or remove it")
    if starter is not None:
        try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
            pins.pin(root, sha256, starter)
        except OSError:  # a store without pins/: what is open stays usable when it is removed
            pass
    return path if shelf.is_seen(sha256) else None


def prepare(root: str) -> None:
    """Make a store's directory, and where jobs pin. Raises OSError."""
    os.makedirs(root, mode=0o755, exist_ok=True)
    os.chmod(root, 0o755)  # noqa: S103 - for all to read
    directory = os.path.join(root, _PINS)
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o1777)  # noqa: S103 - for all to pin in, like /tmp
