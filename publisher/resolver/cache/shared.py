"""A store: a cache that root or a daemon fills for the jobs of all users of this host, who can only read it.

A store is a cache with other modes. Its SIFs are handed out by their verification note alone, since only the store's owner can
have changed either. Jobs pin the SIFs that they use in ``pins/``, which everybody may write to, like /tmp.
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


def find(root: str, owner: int, sha256: str, starter: Starter | None) -> str | None:
    """Return the path of a SIF in the store, or None if the store does not have it.

    Args:
        root: directory of the store.
        owner: user ID of the store's owner; root may own it as well.
        sha256: of the SIF.
        starter: the starter of the job that gets the SIF, for the pin; None for no pin.

    Raises:
        CacheError: another user could have changed the store or the SIF.
    """
    entries = CacheEntries(root)
    path = entries.sif_path(sha256)
    if not os.path.exists(path):
        return None
    cache.check_ownership(root, (owner, 0), "store")
    for part in (path, os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        status = os.lstat(part)
        if status.st_uid not in (owner, 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CacheError(
                f"other users may change {part} in the store, so it is not trusted",
                hint="fix it with chown and chmod go-w, or remove it",
            )
    if starter is not None:
        try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
            pins.pin(root, sha256, starter)
        except OSError:  # a store without pins/: an open file stays usable when it is evicted
            pass
    return path if entries.is_verified(sha256) else None


def prepare(root: str) -> None:
    """Create the directory of a store, and the one for its pins. Raise OSError if that fails."""
    os.makedirs(root, mode=0o755, exist_ok=True)
    os.chmod(root, 0o755)  # noqa: S103 - readable by all users
    directory = os.path.join(root, _PINS)
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o1777)  # noqa: S103 - all users pin in it, as in /tmp
