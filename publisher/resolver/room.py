"""Room for a SIF that is about to be fetched: a cap on what the cache takes, and a floor of what stays free on its disk.

The least recently used go, never one that a running job holds; and none at all where that would not make enough room. What
running downloads have still to write is counted as taken, by a file ``reserved/…`` of each (:mod:`publisher.resolver.pins` says
how they are named), so that several that start at once do not fill the disk together. One lock, ``locks/room``, is held by who
counts and removes: never longer than that takes.

"There is no room" is remembered for a minute: jobs that wait for the same are told so without another search.
"""

from __future__ import annotations

import contextlib
import os
import time

from publisher.resolver import pins, slots, tally
from publisher.resolver.errors import BusyError, RoomError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.resolver.shelf import Shelf, Shelved

    Limit = tuple[int, float]
    """Bytes, and a part (from 0 to 1) of the file system, added."""

_REMEMBERED = 60  # seconds
_PATIENCE = 30.0  # seconds for others that count and remove
_NUMBER_BYTES = 30


class Room:
    """The room of one shelf: ``most`` that its SIFs may take (None: no cap), and what stays ``free`` on its file system."""

    def __init__(self, shelf: Shelf, most: Limit | None, free: Limit) -> None:
        self._shelf = shelf
        self._most = most
        self._free = free
        self._full = os.path.join(shelf.root, "full")

    def reserve(self, sha256: str, size: int, until: float) -> None:
        """Make room for a SIF, and keep it for this process until :meth:`release`. The caller holds the SIF's lock.

        Raises:
            RoomError: there is none, and none to be made.
            BusyError: others have been counting until ``until``, a reading of the monotonic clock.
            OSError: the shelf cannot be used.
        """
        self._refuse_again(size)
        with _counting(self._shelf.root, until):
            part = _size(self._shelf.path(sha256, ".part"))
            short = self._short() + max(0, size - part)
            if short > 0 and self._emptied(short, sha256) < short:
                self.remember(size)
                raise RoomError(
                    f"no room for the {size} bytes of a SIF in {self._shelf.root}",
                    hint="running jobs hold it, or others' files do",
                )
            pins.mark("reserved", self._shelf.root, sha256, os.getpid(), b"%d" % size)

    def release(self, sha256: str) -> None:
        """The download is over."""
        pins.unmark("reserved", self._shelf.root, sha256, os.getpid())

    def make(self, sha256: str, size: int, until: float) -> bool:
        """The disk was full all the same (a quota, somebody else's file): remove as much; whether anything went.

        Raises:
            BusyError, OSError: as :meth:`reserve`.
        """
        with _counting(self._shelf.root, until):
            gone = self._emptied(size, sha256, or_less=True)
        if not gone:
            self.remember(size)
        return gone > 0

    def keep_limits(self, until: float) -> list[Shelved]:
        """Remove what is beyond the limits; what went.

        Raises:
            BusyError, OSError: as :meth:`reserve`.
        """
        with _counting(self._shelf.root, until):
            return self._gone(self._short(), "")

    def _short(self) -> int:
        """Bytes by which the limits are passed; below 0 what there still is. Downloads that go on are counted as done."""
        disk = os.statvfs(self._shelf.root)
        coming = 0
        for sha256, path in pins.marked("reserved", self._shelf.root):
            coming += max(0, _number(path) - _size(self._shelf.path(sha256, ".part")))
        whole = disk.f_blocks * disk.f_frsize
        short = _bytes(self._free, whole) + coming - disk.f_bavail * disk.f_frsize
        if self._most is None:
            return short
        taken = sum(one.size for one in self._shelf.sifs()) + sum(size for _, size, _ in self._shelf.parts())
        return max(short, taken + coming - _bytes(self._most, whole))

    def _emptied(self, wanted: int, but: str, *, or_less: bool = False) -> int:
        """Remove as many bytes, or nothing at all where there are not so many; how many went."""
        broken_off = self._broken_off(but)
        if not or_less and sum(one.size for one in self._removable(but)) + sum(size for _, size in broken_off) < wanted:
            return 0
        dropped = sum(size for sha256, size in broken_off if drop_part(self._shelf, sha256))
        return dropped + sum(one.size for one in self._gone(wanted - dropped, but))

    def _broken_off(self, but: str) -> list[tuple[str, int]]:
        """Downloads that nobody goes on with now: sha256 and bytes."""
        going_on = {but, *(sha256 for sha256, _ in pins.marked("reserved", self._shelf.root))}
        return [(sha256, size) for sha256, size, _ in self._shelf.parts() if sha256 not in going_on]

    def _gone(self, wanted: int, but: str) -> list[Shelved]:
        gone: list[Shelved] = []
        for one in self._removable(but):
            if wanted <= sum(other.size for other in gone):
                break
            if remove(self._shelf, one.sha256):
                gone.append(one)
        if gone:
            _forget(self._full)
        return gone

    def _removable(self, but: str) -> list[Shelved]:
        """What nobody holds, the least recently used first."""
        held = pins.holders(self._shelf.root)
        found = [one for one in self._shelf.sifs() if one.sha256 not in held and one.sha256 != but]
        return sorted(found, key=lambda one: one.used)

    def _refuse_again(self, size: int) -> None:
        try:
            age = time.time() - os.stat(self._full).st_mtime
            refused = _number(self._full)
        except OSError:
            return
        if 0 <= age < _REMEMBERED and size >= refused:
            raise RoomError(f"there was no room for {refused} bytes in {self._shelf.root} {age:.0f} s ago")

    def remember(self, size: int) -> None:
        """There was no room for so many bytes. Where these few have none either, the next process searches again."""
        with contextlib.suppress(OSError), open(self._full, "wb") as file:
            file.write(b"%d" % size)


def remove(shelf: Shelf, sha256: str, *, even_held: bool = False) -> bool:
    """Remove a SIF that nobody holds; False where somebody does, is having it checked, or fetches it. Raises OSError."""
    try:
        with slots.turn([os.path.join(shelf.root, "locks", sha256)], 0):
            note = shelf.hide(sha256)  # who pins it from now on does not find it
            if not even_held and pins.held(shelf.root, sha256):
                shelf.show(sha256, note)
                return False
            size = _size(shelf.path(sha256))
            os.unlink(shelf.path(sha256))
    except (TimeoutError, FileNotFoundError):
        return False
    tally.count(shelf.root, tally.EVICTIONS, size)
    return True


def drop_part(shelf: Shelf, sha256: str) -> bool:
    """Remove what came of a SIF, unless somebody goes on with it. Raises OSError."""
    try:
        with slots.turn([os.path.join(shelf.root, "locks", sha256)], 0):
            os.unlink(shelf.path(sha256, ".part"))
    except (TimeoutError, FileNotFoundError):
        return False
    return True


@contextlib.contextmanager
def _counting(root: str, until: float) -> Iterator[None]:
    try:
        with slots.turn([os.path.join(root, "locks", "room")], min(until, time.monotonic() + _PATIENCE)):
            yield
    except TimeoutError:
        raise BusyError("other processes have been making room for too long") from None


def _bytes(limit: tuple[int, float], whole: int) -> int:
    return int(limit[0] + limit[1] * whole)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _number(path: str) -> int:
    """What a file says that has a number and no more; 0 where it says none."""
    try:
        with open(path, "rb") as file:
            return int(file.read(_NUMBER_BYTES))
    except (OSError, ValueError):
        return 0


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
