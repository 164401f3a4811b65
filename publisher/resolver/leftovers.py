"""What killed processes left in a cache: looked for by who fetches something, and not more often than each ten minutes."""

from __future__ import annotations

import contextlib
import os
import time

from publisher.resolver import pins, room, slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.shelf import Shelf

_INTERVAL = 600  # seconds
_BROKEN_OFF = 3600  # seconds that a download is kept to be continued, and half of a replaced file may be in the making
_REMEMBERED = 86400  # seconds that a file in failures/ may matter
_STAMP = "swept"


def sweep_sometimes(shelf: Shelf) -> None:
    """:func:`sweep`, unless somebody did shortly before. Raises OSError."""
    stamp = os.path.join(shelf.root, _STAMP)
    with contextlib.suppress(FileNotFoundError):
        if 0 <= time.time() - os.stat(stamp).st_mtime < _INTERVAL:
            return
    with open(stamp, "wb"):
        os.utime(stamp)
    sweep(shelf)


def sweep(shelf: Shelf) -> int:
    """Remove what nobody uses or continues; how many files went.

    These are broken-off downloads, halves of replaced files, pins of dead processes, memories of old failures, and notes and
    locks of SIFs that are gone.

    Raises:
        OSError: something that is there cannot be removed.
    """
    gone = 0
    for sha256, when in pins.sweep(shelf.root):
        shelf.used(sha256, when)
        gone += 1
    for sha256, _, grown in shelf.parts():
        if _is_past(grown, _BROKEN_OFF):
            gone += room.drop_part(shelf, sha256)
    return gone + _files(shelf) + _locks(shelf)


def _files(shelf: Shelf) -> int:
    gone = 0
    for directory, _, names in os.walk(shelf.root):
        for name in names:
            path = os.path.join(directory, name)
            if _is_left(directory, name, shelf):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                    gone += 1
    return gone


def _is_left(directory: str, name: str, shelf: Shelf) -> bool:
    path = os.path.join(directory, name)
    if name.endswith(".seen"):
        return not os.path.lexists(path.removesuffix(".seen") + ".sif") and _is_old(path, _BROKEN_OFF)
    if directory == os.path.join(shelf.root, "failures"):
        return _is_old(path, _REMEMBERED)
    return name.startswith(".") and _is_old(path, _BROKEN_OFF)


def _locks(shelf: Shelf) -> int:
    """Locks of SIFs that are not there; who has opened one of them notices (:mod:`publisher.resolver.slots`)."""
    gone = 0
    directory = os.path.join(shelf.root, "locks")
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        path = os.path.join(directory, name)
        if any(os.path.lexists(shelf.path(name, ending)) for ending in (".sif", ".part")) or not _is_old(path, _BROKEN_OFF):
            continue
        with contextlib.suppress(TimeoutError, FileNotFoundError), slots.turn([path], 0):
            os.unlink(path)
            gone += 1
    return gone


def _is_old(path: str, seconds: int) -> bool:
    try:
        return _is_past(os.lstat(path).st_mtime, seconds)
    except FileNotFoundError:
        return False


def _is_past(when: float, seconds: int) -> bool:
    return when < time.time() - seconds
