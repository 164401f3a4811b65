"""One SIF from the first place that has it whole: resumed where a try broke off, and believed only for its size and sha256."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import closing, suppress

from publisher.resolver.errors import CacheError, FetchError, RoomError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.resolver.manifest import Sif
    from publisher.resolver.sources import Source

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with where there is no room: device, quota, limit of the process."""
_START_UP = 30.0  # seconds that any try may take
_SLOWEST = 1_000_000  # bytes a second beyond them: a place that is slower is left for the next one
_ROUNDS = 2  # times that each place is tried
_CHUNK = 1 << 20
_MAGIC_AT, _MAGIC = 32, b"SIF_MAGIC\0"  # sylabs/sif: launch script, then the magic


def allowance(size: int) -> float:
    """Seconds that the download of ``size`` bytes may take, all tries together."""
    return 2 * _try_allowance(size)


def fetch(
    places: Sequence[Source], sif: Sif, part: str, clock: Callable[[], float] = time.monotonic, until: float | None = None
) -> str:
    """Make the file ``part`` the SIF's bytes, on disk; what is there of an earlier try is continued. The caller holds its lock.

    Args:
        places: asked in order, and all of them once more.
        sif: what it must be.
        part: the file's path.
        clock: gives seconds that only grow.
        until: reading of the clock that ends it sooner than :func:`allowance` does.

    Returns:
        the place that the last of it came from, as given; empty where nothing was missing.

    Raises:
        FetchError: no place gave the right bytes in time. Of a download that broke off, ``part`` stays.
        RoomError: no room. ``part`` is gone.
        CacheError: the file cannot be written. ``part`` is gone.
    """
    end = clock() + allowance(sif.size)
    end = end if until is None else min(end, until)
    problems: list[str] = []
    try:
        with closing(_Part(part, sif, clock)) as download:
            if download.complete():
                return ""
            for place in [*places] * _ROUNDS:
                problem = download.problem_with(place, end)
                if problem is None:
                    return place.text
                problems.append(f"{place.text}: {problem}")
                if clock() > end:
                    break
    except OSError as error:
        _remove(part)
        if error.errno in FULL:
            raise RoomError(f"no room for the {sif.size} bytes of {part}", hint="make room, or set another --cache") from None
        raise CacheError(f"cannot write {part}: {error.strerror}") from None
    if os.path.getsize(part) == 0:
        _remove(part)
    raise FetchError(f"cannot fetch the SIF: {'; '.join(dict.fromkeys(problems)) or 'no place to ask (--origin)'}")


def _try_allowance(size: int) -> float:
    return _START_UP + size / _SLOWEST


class _Part:
    """The growing file, and the hash of what is in it."""

    def __init__(self, path: str, sif: Sif, clock: Callable[[], float]) -> None:
        self._sif = sif
        self._clock = clock
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._size = 0
        self._hash = hashlib.sha256()
        while chunk := self._file.read(_CHUNK):
            self._count(chunk)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def problem_with(self, place: Source, until: float) -> str | None:
        """Why a place could not complete the file, None where it could. ``until`` is a reading of the clock.

        Raises:
            OSError: the file cannot be written.
        """
        try:
            self._add_from(place, until)
        except FetchError as error:
            return str(error)
        return None if self.complete() else f"{self._sif.path}: other bytes than the manifest says"

    def _add_from(self, place: Source, until: float) -> None:
        """Append what a place has beyond what is there.

        Raises:
            FetchError: it broke off, gave too much, was too slow, or the time is over.
            OSError: it cannot be written.
        """
        self._check_room()
        until = min(until, self._clock() + _try_allowance(self._sif.size - self._size))
        for chunk in place.pieces(self._sif.path, self._size, self._sif.size):
            if self._size + len(chunk) > self._sif.size:
                self._start_again()
                raise FetchError(f"{self._sif.path}: more than the {self._sif.size} bytes that the manifest says")
            self._write(chunk)
            if self._clock() > until:
                raise FetchError(f"{self._sif.path}: only {self._size} of {self._sif.size} bytes came in time")
        if self._size < self._sif.size:
            raise FetchError(f"{self._sif.path}: ended after {self._size} of {self._sif.size} bytes")

    def complete(self) -> bool:
        """Whether all is there and right, and then on disk; what is there and wrong is thrown away."""
        if self._size < self._sif.size:
            return False
        if self._size > self._sif.size or self._hash.hexdigest() != self._sif.sha256 or not self._has_magic():
            self._start_again()
            return False
        os.fsync(self._file.fileno())
        return True

    def _has_magic(self) -> bool:
        return os.pread(self._file.fileno(), len(_MAGIC), _MAGIC_AT) == _MAGIC

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            written = self._file.write(view)
            self._count(view[:written])
            view = view[written:]

    def _count(self, chunk: bytes | memoryview) -> None:
        self._hash.update(chunk)
        self._size += len(chunk)

    def _start_again(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._size = 0
        self._hash = hashlib.sha256()

    def _check_room(self) -> None:
        """Refuse early what will not fit: a disk filled to the last byte harms every job on the host."""
        room = os.fstatvfs(self._file.fileno())
        if room.f_bavail * room.f_frsize < self._sif.size - self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
