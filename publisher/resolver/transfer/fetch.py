"""Fetching one SIF from several sources: a broken download is resumed, and only the size and the sha256 decide what is right."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import closing, suppress

from publisher.contract.units import format_size
from publisher.resolver.errors import (
    DISK_ADVICE,
    AbsentError,
    AccessDeniedError,
    CacheError,
    CacheSpaceError,
    CorruptError,
    FetchError,
    RangeError,
)
from publisher.resolver.system import log, negative_cache
from publisher.resolver.transfer.partial import Assembly, PartialFile
from publisher.resolver.transfer.sources import Source, combined_error
from publisher.resolver.transfer.watchdog import TransferDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from publisher.contract.records import Sif

NO_SPACE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write without enough space: on the device, in the quota, within the limit of the process."""
_GRACE = 30.0  # seconds that any attempt may take besides the time that its bytes need
_LENIENCY = 10  # factor by which a server may be slower than the setting in the second round
_LONGEST_WAIT = 60.0  # seconds: what a Pelican cache asks for by default (Retry-After)
_REFUSALS = (AbsentError, AccessDeniedError)  # this download does not ask such a server again


class Traffic:
    """Bytes of a download: ``received`` from the network, ``copied`` from other files of this host."""

    def __init__(self) -> None:
        self.received = 0
        self.copied = 0


def time_limit(size: int, sources: Sequence[Source] = ()) -> float:
    """Return the seconds that the download of ``size`` bytes may take, all attempts together."""
    slowest = min((source.network.slowest for source in sources), default=Source.network.slowest)
    return 2 * _attempt_limit(size, slowest)


def fetch(
    sources: Sequence[Source],
    sif: Sif,
    part: str,
    clock: Callable[[], float] = time.monotonic,
    until: float | None = None,
    *,
    assembly: Assembly | None = None,
    traffic: Traffic | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Download a SIF into the file ``part`` and flush it to disk; resume an earlier attempt. The caller holds the lock.

    Every route to every source is tried in order; routes that failed a short while ago come last. A second round tries again all
    routes that neither refused the file nor said that they do not have it; those that sent wrong bytes come last, since a cache
    that has wrong bytes keeps them.

    A busy server is not asked again before the time that it asked for (``Retry-After``), by no download of this host. If nobody
    else has the file, the download waits for it, a minute at most.

    If the SIF is put together from ranges and what this host has, the second round fetches it as a whole once a server has sent
    something wrong.

    Args:
        sources: sources, in order of preference.
        sif: the expected SIF.
        part: path of the file.
        clock: returns monotonic seconds.
        until: reading of the clock at which the download ends, if that is earlier than :func:`time_limit`.
        assembly: how the SIF comes together; None for one stream.
        traffic: counts the bytes.
        sleep: sleeps for some seconds.

    Returns:
        the label of the route that completed the file; empty if the file was complete already.

    Raises:
        AbsentError, AccessDeniedError, CorruptError: all routes failed with this error.
        FetchError: no route delivered the right bytes in time. If the download broke off, ``part`` remains.
        CacheSpaceError: there is not enough space. ``part`` is removed.
        CacheError: the file cannot be written. ``part`` is removed.
    """
    end = clock() + time_limit(sif.size, sources)
    end = end if until is None else min(end, until)
    try:
        with closing(PartialFile(part, sif)) as file:
            made = _Download(file, sif, clock, end, assembly=assembly or Assembly(), traffic=traffic or Traffic(), sleep=sleep)
            return made.run(sources)
    except OSError as error:
        _remove(part)
        if error.errno in NO_SPACE_ERRNOS:
            raise CacheSpaceError(
                f"no space for {part}, which needs {format_size(sif.size)}", hint="free some space, or set another --cache"
            ) from None
        raise CacheError(f"cannot write {part}: {error.strerror}", hint=DISK_ADVICE) from None
    except FetchError:
        if os.path.getsize(part) == 0:
            _remove(part)
        raise


def _attempt_limit(size: int, slowest: float) -> float:
    """Return the seconds that one attempt may take."""
    return _GRACE + size / slowest


class _Download:
    """All attempts of one download.

    Args:
        part: the file.
        sif: the expected SIF.
        clock: returns monotonic seconds.
        end: reading of the clock at which the download ends.
        assembly: how the SIF comes together.
        traffic: counts the bytes.
        sleep: sleeps for some seconds.
    """

    def __init__(
        self,
        part: PartialFile,
        sif: Sif,
        clock: Callable[[], float],
        end: float,
        *,
        assembly: Assembly,
        traffic: Traffic,
        sleep: Callable[[float], None],
    ) -> None:
        self._part = part
        self._sif = sif
        self._clock = clock
        self._end = end
        self._assembly = assembly
        self._traffic = traffic
        self._sleep = sleep
        self._busy: dict[str, float] = {}
        self._refused: set[str] = set()
        self._corrupt: set[str] = set()

    def run(self, sources: Sequence[Source]) -> str:
        """Return the label of the route that completed the file, empty if it was complete already.

        Raise FetchError; OSError if the file cannot be written.
        """
        self._assembly.begin(self._part)
        if self._finish():
            return ""
        problems: list[tuple[str, FetchError]] = []
        for second_round in (False, True):
            for route in self._routes(sources, second_round=second_round):
                if second_round and any(isinstance(error, (CorruptError, RangeError)) for _, error in problems):
                    self._assembly = Assembly()
                error = self._wait_while_busy(route)
                if error is None:
                    error = self._complete_from(route, _LENIENCY if second_round else 1)
                    self._record(route, error)
                if error is None:
                    log.info("%s served %s", route.label, self._sif.path)
                    return route.label
                log.info("%s failed: %s", route.label, error)
                problems.append((route.label, error))
                if self._clock() > self._end:
                    raise combined_error("cannot fetch the SIF in time: ", problems)
        if not problems:
            raise FetchError("cannot fetch the SIF: no source is configured", hint="set --origin")
        raise combined_error("cannot fetch the SIF: ", problems)

    def _routes(self, sources: Sequence[Source], *, second_round: bool) -> Iterator[Source]:
        """Yield the routes of one round: in order, the unpromising ones last."""
        busy, unpromising = [], []
        for source in sources:
            for route in source.routes(self._sif.path, refresh=second_round, until=self._end):
                if route.address in self._refused:
                    continue
                if route.address in self._corrupt if second_round else self._failed_recently(route):
                    unpromising.append(route)
                elif self._busy_for(route):
                    busy.append(route)
                else:
                    yield route
        yield from busy
        yield from unpromising

    def _busy_for(self, route: Source) -> float:
        """Return the seconds for which a server wants no requests, 0 if it may be asked."""
        key = _busy_key(route)
        noted = self._busy.get(key, 0.0) - self._clock()
        root = route.network.root
        return max(0.0, noted, 0.0 if root is None else negative_cache.pause_left(root, key, time.time()))

    def _wait_while_busy(self, route: Source) -> FetchError | None:
        """Wait until a busy server may be asked; return why it is not asked at all if that takes too long."""
        wait = self._busy_for(route)
        if not wait:
            return None
        if wait > _LONGEST_WAIT or self._clock() + wait > self._end:
            return FetchError(f"{self._sif.path}: the server is busy and wants no requests for {wait:.0f} s")
        log.info("waiting %.0f s for %s, which is busy", wait, route.label)
        self._sleep(wait)
        return None

    def _complete_from(self, route: Source, leniency: float) -> FetchError | None:
        """Return why a route could not complete the file, or None if it did. Raise OSError."""
        slowest = route.network.slowest / leniency
        while True:
            is_all_its_own = self._part.size == 0 and self._assembly.is_whole
            error = self._append_from(route, slowest)
            if self._finish():
                return None
            if error is not None:
                return error
            if is_all_its_own:
                return CorruptError(f"{self._sif.path}: the content does not match its sha256 in the manifest")
            # An earlier route, or what this host has, may be wrong, so this route is asked for what is not known to be right.

    def _finish(self) -> bool:
        """Return whether the file is complete and correct; wrong content is discarded. Raise OSError."""
        before = self._part.size
        is_right = self._part.finish(self._assembly.find_intact)
        self._traffic.copied = max(0, self._traffic.copied - (before - self._part.size))
        return is_right

    def _append_from(self, route: Source, slowest: float) -> FetchError | None:
        """Append what is missing; return why the route ended early or was wrong, None otherwise. Raise OSError."""
        self._part.check_free_space()
        limit = _attempt_limit(self._sif.size, slowest)  # of the whole file: some servers and the command ignore ranges
        deadline = TransferDeadline(self._clock, min(self._end, self._clock() + limit), slowest)
        log.debug("requesting %s from %s, from byte %d on", self._sif.path, route.label, self._part.size)
        try:
            if route.downloads_itself:
                self._part.discard()
                self._assembly, self._traffic.copied = Assembly(), 0
                route.download(self._sif.path, self._sif.size, deadline, self._part.adopt)
                self._traffic.received += self._part.size
            else:
                self._stream(route, deadline)
        except FetchError as error:
            return error
        if self._part.size < self._sif.size:
            return FetchError(f"{self._sif.path}: ended after {self._part.size} of {self._sif.size} bytes")
        return None

    def _stream(self, route: Source, deadline: TransferDeadline) -> None:
        """Append range after range from a route, and between them what needs no network, until a range ends early."""
        if not self._assembly.is_whole:
            route.keep_connections()
        with closing(route):
            while self._part.size < self._sif.size:
                before = self._part.size
                stop = self._assembly.advance(self._part, deadline)
                self._traffic.copied += max(0, self._part.size - before)
                if self._part.size < self._sif.size:
                    self._receive(route, stop, deadline)
                if self._part.size != stop:
                    return

    def _receive(self, route: Source, stop: int | None, deadline: TransferDeadline) -> None:
        """Append what a route sends: up to the byte ``stop``, or all that is missing."""
        position = self._part.size
        arguments = (position, self._sif.size, deadline) if stop is None else (position, self._sif.size, deadline, stop)
        for piece in route.stream(self._sif.path, *arguments):
            position += len(piece)
            self._traffic.received += len(piece)
            if position > (self._sif.size if stop is None else stop):
                raise self._too_large(stop)
            self._assembly.add(self._part, piece)
            deadline.add(len(piece))
            problem = deadline.problem()
            if problem is not None:
                late = f"only {format_size(self._part.size)} of {format_size(self._sif.size)} received in time"
                raise FetchError(f"{self._sif.path}: {late if deadline.left() < 0 else problem}")

    def _too_large(self, stop: int | None) -> FetchError:
        """Return the error for more bytes than were requested. What an earlier route sent of a whole file is doubtful then."""
        if stop is not None:
            return RangeError(f"{self._sif.path}: the server sent more than the requested range")
        self._part.discard()
        return CorruptError(f"{self._sif.path}: larger than the {self._sif.size} bytes in the manifest")

    def _failed_recently(self, route: Source) -> bool:
        """Return whether the negative cache has a failure of this route."""
        root, now = route.network.root, time.time()
        if root is None:
            return False
        for key in _failure_keys(route, self._sif):
            reason = negative_cache.recent_failure(root, key, now)
            if reason is not None:
                log.info("%s is tried last, it failed recently: %s", route.label, reason)
                return True
        return False

    def _record(self, route: Source, error: FetchError | None) -> None:
        """Record the outcome: an absent, denied or corrupt file is a failure of that file, anything else one of the server."""
        concerns_file = isinstance(error, (*_REFUSALS, CorruptError))
        if concerns_file:
            (self._refused if isinstance(error, _REFUSALS) else self._corrupt).add(route.address)
        root = route.network.root
        if error is not None and error.retry_after:
            self._busy[_busy_key(route)] = self._clock() + error.retry_after
            if root is not None:
                negative_cache.record_pause(root, _busy_key(route), str(error), time.time(), error.retry_after)
        if root is None:
            return
        server_key, file_key = _failure_keys(route, self._sif)
        if error is None:
            negative_cache.clear(root, server_key)
            negative_cache.clear(root, file_key)
        elif concerns_file or self._clock() <= self._end:  # otherwise only this job ran out of time
            negative_cache.record_failure(root, file_key if concerns_file else server_key, str(error), time.time())


def _failure_keys(route: Source, sif: Sif) -> tuple[str, str]:
    """Return the keys in the negative cache for a server and for this file on it."""
    server = _server_id(route)
    return f"server-{server}", f"{sif.sha256[:32]}-at-{server}"


def _busy_key(route: Source) -> str:
    """Return the key in the negative cache for a server that has asked for a pause."""
    return f"busy-{_server_id(route)}"


def _server_id(route: Source) -> str:
    scheme, _, rest = route.label.partition("://")
    return hashlib.sha256(f"{scheme}://{rest.partition('/')[0]}".encode()).hexdigest()[:32]


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
