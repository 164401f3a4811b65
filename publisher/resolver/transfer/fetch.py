"""One SIF from the first server that has it whole: resumed where a try broke off, and believed only for its size and sha256."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import closing, suppress

from publisher.resolver.errors import AbsentError, AccessDeniedError, CacheError, CacheSpaceError, CorruptError, FetchError
from publisher.resolver.system import negative_cache
from publisher.resolver.transfer.partial import PartialFile
from publisher.resolver.transfer.sources import Source, failure
from publisher.resolver.transfer.watchdog import TransferDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from publisher.contract.manifest import Sif

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with where there is no room: device, quota, limit of the process."""
_START_UP = 30.0  # seconds that any try may take
_UNDEMANDING = 10  # by so much slower than the setting a server may be when all have had their turn
_REFUSED = (AbsentError, AccessDeniedError)  # a server that said so is not asked again by this download


def allowance(size: int, places: Sequence[Source] = ()) -> float:
    """Seconds that the download of ``size`` bytes may take, all tries together."""
    return 2 * _try_allowance(size, min((place.network.slowest for place in places), default=Source.network.slowest))


def fetch(
    places: Sequence[Source], sif: Sif, part: str, clock: Callable[[], float] = time.monotonic, until: float | None = None
) -> str:
    """Make the file ``part`` the SIF's bytes, on disk; what is there of an earlier try is continued. The caller holds its lock.

    Every way to every place is tried in order, those last that failed a short while ago; and all of them once more, but for those
    that have no such file or refuse it, and last those that gave wrong bytes: a cache that has them keeps them.

    Args:
        places: asked in order.
        sif: what it must be.
        part: the file's path.
        clock: gives seconds that only grow.
        until: reading of the clock that ends it sooner than :func:`allowance` does.

    Returns:
        the way that the last of it came by; empty where nothing was missing.

    Raises:
        AbsentError, AccessDeniedError, CorruptError: all said so.
        FetchError: no place gave the right bytes in time. Of a download that broke off, ``part`` stays.
        CacheSpaceError: no room. ``part`` is gone.
        CacheError: the file cannot be written. ``part`` is gone.
    """
    end = clock() + allowance(sif.size, places)
    end = end if until is None else min(end, until)
    try:
        with closing(PartialFile(part, sif)) as growing:
            return "" if growing.complete() else _Download(growing, sif, clock, end).run(places)
    except OSError as error:
        _remove(part)
        if error.errno in FULL:
            raise CacheSpaceError(
                f"no room for the {sif.size} bytes of {part}", hint="make room, or set another --cache"
            ) from None
        raise CacheError(f"cannot write {part}: {error.strerror}") from None
    except FetchError:
        if os.path.getsize(part) == 0:
            _remove(part)
        raise


def _try_allowance(size: int, slowest: float) -> float:
    return _START_UP + size / slowest


class _Download:
    """The tries of one download, until the reading ``end`` of the clock."""

    def __init__(self, part: PartialFile, sif: Sif, clock: Callable[[], float], end: float) -> None:
        self._part = part
        self._sif = sif
        self._clock = clock
        self._end = end
        self._refused: set[str] = set()
        self._wrong: set[str] = set()

    def run(self, places: Sequence[Source]) -> str:
        """The way that it came by. Raises FetchError; OSError when the file cannot be written."""
        problems: list[tuple[str, FetchError]] = []
        for again in (False, True):
            for way in self._ways(places, again=again):
                error = self._problem(way, demanding=not again)
                self._remember(way, error)
                if error is None:
                    return way.text
                problems.append((way.text, error))
                if self._clock() > self._end:
                    raise failure("cannot fetch the SIF in time: ", problems)
        if not problems:
            raise FetchError("cannot fetch the SIF: no place to ask (--origin)")
        raise failure("cannot fetch the SIF: ", problems)

    def _ways(self, places: Sequence[Source], *, again: bool) -> Iterator[Source]:
        late = []
        for place in places:
            for way in place.ways(self._sif.path, again=again, until=self._end):
                if way.address in self._refused:
                    continue
                if way.address in self._wrong if again else self._failed_lately(way):
                    late.append(way)
                else:
                    yield way
        yield from late

    def _problem(self, way: Source, *, demanding: bool) -> FetchError | None:
        """Why a way could not complete the file, None where it could. Raises OSError."""
        slowest = way.network.slowest / (1 if demanding else _UNDEMANDING)
        while True:
            begun_with = self._part.size
            error = self._broken_off(way, slowest)
            if self._part.complete():
                return None
            if error is not None:
                return error
            if begun_with == 0:
                return CorruptError(f"{self._sif.path}: other bytes than the manifest says")
            # whose bytes are wrong nobody knows: the earlier ones may have come from elsewhere; so all of it from here

    def _broken_off(self, way: Source, slowest: float) -> FetchError | None:
        """Append what a way has beyond what is there; why it ended early or was wrong. Raises OSError."""
        self._part.check_room()
        whole = _try_allowance(self._sif.size, slowest)  # a server that ignores ranges sends all of it, as does the command
        pace = TransferDeadline(self._clock, min(self._end, self._clock() + whole), slowest)
        try:
            if way.brings:
                self._bring(way, pace)
            else:
                self._stream(way, pace)
        except FetchError as error:
            return error
        if self._part.size < self._sif.size:
            return FetchError(f"{self._sif.path}: ended after {self._part.size} of {self._sif.size} bytes")
        return None

    def _stream(self, way: Source, pace: TransferDeadline) -> None:
        for chunk in way.pieces(self._sif.path, self._part.size, self._sif.size, pace):
            if self._part.size + len(chunk) > self._sif.size:
                self._part.empty()
                raise CorruptError(f"{self._sif.path}: more than the {self._sif.size} bytes that the manifest says")
            self._part.add(chunk)
            pace.add(len(chunk))
            problem = pace.problem()
            if problem is not None:
                late = f"only {self._part.size} of {self._sif.size} bytes came in time"
                raise FetchError(f"{self._sif.path}: {late if pace.left() < 0 else problem}")

    def _bring(self, way: Source, pace: TransferDeadline) -> None:
        self._part.empty()
        way.bring(self._sif.path, self._sif.size, pace, self._part.adopt)

    def _failed_lately(self, way: Source) -> bool:
        root, now = way.network.root, time.time()
        return root is not None and any(negative_cache.recent(root, key, now) for key in _keys(way, self._sif))

    def _remember(self, way: Source, error: FetchError | None) -> None:
        """What a server has not, or has wrong, is remembered of this file; any other failure of the server as such."""
        of_this_file = isinstance(error, (*_REFUSED, CorruptError))
        if of_this_file:
            (self._refused if isinstance(error, _REFUSED) else self._wrong).add(way.address)
        root = way.network.root
        if root is None:
            return
        of_server, of_file = _keys(way, self._sif)
        if error is None:
            negative_cache.forget(root, of_server)
            negative_cache.forget(root, of_file)
        elif of_this_file or self._clock() <= self._end:  # else only our time was over
            negative_cache.note(root, of_file if of_this_file else of_server, str(error), time.time())


def _keys(way: Source, sif: Sif) -> tuple[str, str]:
    """The names under which failures of a server, and of this file there, are remembered."""
    scheme, _, rest = way.text.partition("://")
    server = hashlib.sha256(f"{scheme}://{rest.partition('/')[0]}".encode()).hexdigest()[:32]
    return f"server-{server}", f"{sif.sha256[:32]}-at-{server}"


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
