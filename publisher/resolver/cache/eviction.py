"""Room in the cache: a cap on what it holds, a floor of what stays free, and who has to go for it.

What was asked for longest ago goes first, never what a job still needs. A hit needs no lock and still never gets a file that
is being removed: it pins first and then looks at the note (``shelf.py``); removing takes the note away first and then looks
at the pins. Whichever comes second sees the other. Soft pins (``pins.py``) are passed over where it is not enough otherwise.
"""

from __future__ import annotations

import contextlib
import os
import time

from publisher.resolver.cache import pins
from publisher.resolver.errors import CacheSpaceError
from publisher.resolver.system import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.resolver.cache.entries import CacheEntries, CacheEntry

_PATIENCE = 30.0  # seconds for the lock of who reckons
_LOCK = "room"


class CacheLimits:
    """Of a cache, in bytes: ``most`` that its SIFs may take, ``free`` that must stay free on its file system."""

    __slots__ = ("free", "most")

    def __init__(self, most: int, free: int) -> None:
        self.most = most
        self.free = free


def limits(root: str, most: tuple[int, float], least_free: tuple[int, float]) -> CacheLimits:
    """Limits from settings: each bytes and a fraction of the file system that ``root`` is on. Raises OSError."""
    status = os.statvfs(root)
    whole = status.f_blocks * status.f_frsize
    return CacheLimits(most[0] or int(most[1] * whole), least_free[0] or int(least_free[1] * whole))


class EvictionResult:
    """What went: sha256 of each, and their bytes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.bytes = 0


def reserve(shelf: CacheEntries, sha256: str, size: int, limits: CacheLimits, held: int) -> int:
    """Have room for a SIF, and keep it from others as long as its lock is held.

    Args:
        shelf: where it will stand.
        sha256: which one.
        size: its bytes; those of its broken-off download are taken into account.
        limits: of the cache.
        held: descriptor of its lock, which is written to: other processes reckon with the size in it.

    Returns:
        the bytes that were removed for it.

    Raises:
        CacheSpaceError: there is none, and nothing that may go makes enough; nothing was removed then.
        OSError: the cache cannot be read or written.
    """
    with locks.taken([shelf.lock(_LOCK)], time.monotonic() + _PATIENCE):
        missing = _missing(shelf, limits, sha256, size)
        removed = _remove_for(shelf, missing, sha256, size) if missing > 0 else 0
        os.pwrite(held, b"%d" % size, 0)
    return removed


def relieve(shelf: CacheEntries, sha256: str, size: int) -> int:
    """Remove as many bytes as a SIF has, or what can go, where reckoning did not help (a quota); the bytes that went.

    Raises:
        OSError: the cache cannot be read or written.
    """
    with locks.taken([shelf.lock(_LOCK)], time.monotonic() + _PATIENCE):
        return _drop_parts(shelf, sha256) + _remove(shelf, size).bytes


def done(held: int) -> None:
    """What was reserved under this lock is there, or never will be. Raises OSError."""
    os.ftruncate(held, 0)


def trim(shelf: CacheEntries, limits: CacheLimits) -> EvictionResult:
    """Bring the cache within its limits, as far as jobs let it. Raises OSError."""
    with locks.taken([shelf.lock(_LOCK)], time.monotonic() + _PATIENCE):
        missing = _missing(shelf, limits, "", 0)
        if missing > 0:
            missing -= _drop_parts(shelf, "")
        return _remove(shelf, missing)


def remove(
    shelf: CacheEntries, item: CacheEntry, needed: Mapping[str, int], removed: EvictionResult, *, firm: bool = False
) -> bool:
    """Remove a SIF that nobody needs (by firm pins only, with ``firm``) and nobody fetches; whether it went. Raises OSError."""
    if item.sha256 in needed:
        return False
    try:
        with locks.taken([shelf.lock(item.sha256)], 0):
            note = shelf.unsee(item.sha256)
            if item.sha256 in pins.held(shelf.root, shelf.was_used, firm=firm):  # a job came between, and may have seen the note
                shelf.see(item.sha256, note)
                return False
            shelf.remove(item.sha256)
    except TimeoutError:
        return False
    removed.names.append(item.sha256)
    removed.bytes += item.size
    return True


def free(root: str) -> int:
    """Bytes that an ordinary user can still write there. Raises OSError."""
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


def _remove_for(shelf: CacheEntries, missing: int, sha256: str, size: int) -> int:
    """Remove what is missing, or nothing where there is not so much; the bytes that went."""
    needed = pins.held(shelf.root, shelf.was_used, firm=True)
    can_go = sum(item.size for item in shelf.items() if item.sha256 not in needed and item.sha256 != sha256)
    can_go += sum(part for _, part in _broken_off(shelf, sha256))
    if can_go < missing:
        raise CacheSpaceError(
            f"no room for the {size} bytes of a SIF in {shelf.root}: {missing} too few, and only {can_go} can go",
            hint="raise cache-size, lower cache-free, or make room",
        )
    dropped = _drop_parts(shelf, sha256)
    dropped += _remove(shelf, missing - dropped).bytes
    if dropped < missing:
        raise CacheSpaceError(f"no room for the {size} bytes of a SIF in {shelf.root}: all of it has come into use")
    return dropped


def _remove(shelf: CacheEntries, wanted: int) -> EvictionResult:
    """Remove SIFs until so many bytes went, if there are so many; those with soft pins last."""
    removed = EvictionResult()
    for firm in (False, True):
        needed = pins.held(shelf.root, shelf.was_used, firm=firm)
        for item in shelf.items():
            if removed.bytes >= wanted:
                return removed
            remove(shelf, item, needed, removed, firm=firm)
    return removed


def _drop_parts(shelf: CacheEntries, but: str) -> int:
    """Remove the downloads that broke off; the bytes that went."""
    dropped = 0
    for sha256, size in _broken_off(shelf, but):
        with contextlib.suppress(TimeoutError, FileNotFoundError), locks.taken([shelf.lock(sha256)], 0):
            os.unlink(shelf.part(sha256))
            dropped += size
    return dropped


def _broken_off(shelf: CacheEntries, but: str) -> list[tuple[str, int]]:
    """sha256 and bytes of the downloads that nobody goes on with now."""
    going_on = {but, *(sha256 for sha256, _ in _running(shelf, but))}
    return [(sha256, _size(path)) for sha256, path in shelf.parts() if sha256 not in going_on]


def _missing(shelf: CacheEntries, limits: CacheLimits, sha256: str, size: int) -> int:
    """Bytes that must go before ``size`` more fit in; downloads that run are taken for finished."""
    total = sum(item.size for item in shelf.items()) + sum(part for _, part in _broken_off(shelf, sha256))
    promised = 0
    for other, expected in _running(shelf, sha256):
        there = _size(shelf.part(other))
        total += max(expected, there)
        promised += max(0, expected - there)
    there = _size(shelf.part(sha256)) if sha256 else 0
    return max(total + size - limits.most, limits.free + promised + size - there - free(shelf.root))


def _running(shelf: CacheEntries, but: str) -> Sequence[tuple[str, int]]:
    """sha256 and final size of the downloads that run now: whose lock is held and has a size in it."""
    names = os.listdir(os.path.dirname(shelf.lock(_LOCK)))
    sizes = [(name, _reserved(shelf.lock(name))) for name in names if name not in (but, _LOCK)]
    return [(name, size) for name, size in sizes if size and locks.is_taken(shelf.lock(name))]


def _reserved(lock: str) -> int:
    with open(lock, "rb") as file:
        text = file.read(20).strip()
    return int(text) if text.isdigit() else 0


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0
