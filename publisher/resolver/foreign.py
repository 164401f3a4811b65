"""SIFs that the manifest does not know, fetched into the cache by their URL, where the site wants that (setting ``unknown``).

Nobody signed for them, so what can be checked is checked: that the bytes are a SIF, whole by its own header, and for this
machine's architecture. From then on a SIF is one like any other: it stands under its sha256 and is verified, pinned, counted and
removed as those. ``foreign/<sha256 of the URL>`` has what the URL led to, and for how long that is believed: unlike ours,
such a name may get other content.
"""

from __future__ import annotations

import hashlib
import os
import time
import urllib.parse

from publisher.resolver import cache, failures, room, turn
from publisher.resolver.errors import (
    AbsentError,
    ArchitectureError,
    BusyError,
    CacheError,
    FetchError,
    ReferenceError,  # noqa: A004 - the field's term
    RoomError,
    UnknownImageError,
)
from publisher.resolver.manifest import Sif
from publisher.resolver.pace import Pace
from publisher.resolver.sifheader import HEADER_BYTES, Header
from publisher.resolver.sources import failure, network_of, source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.cache import Cache
    from publisher.resolver.config import Settings
    from publisher.resolver.pins import Starter
    from publisher.resolver.sources import Source

BELIEVED = 6 * 3600
"""Seconds for which a URL is taken to lead to what it led to."""
_SCHEMES = ("osdf://", "pelican://", "https://")
_KEPT = 86400  # seconds
_LOOK = 16 << 20  # bytes between two looks at the room that is left
_MOST_BYTES = 200  # of a note


def is_fetchable(text: str) -> bool:
    """Whether a name is a URL that can be fetched, and nobody on the way can change what comes."""
    return text.startswith(_SCHEMES)


def fetched(text: str, settings: Settings, *, now: float, until: float, starter: Starter | None) -> tuple[Sif, str, str]:
    """Have the SIF of a URL in the cache.

    Args:
        text: the URL.
        settings: where things are.
        now: this host's clock, seconds since the epoch.
        until: reading of the monotonic clock at which it must be there.
        starter: of the job that gets it, None for nobody.

    Returns:
        the SIF, its path, and the place it was fetched from just now, empty where it was there.

    Raises:
        UnknownImageError, ReferenceError, ArchitectureError: there is no such file, it is no SIF, or for another machine.
        FetchError, RoomError, BusyError, CacheError: the host's or the network's doing.
    """
    held = cache.of(settings)
    held.prepare()
    url = _Url(text, held, now)
    came_from = ""
    try:
        sif = url.known()
        if sif is None:
            sif, came_from = url.fetched_once(settings, until)
        path, _ = held.sif(sif, [], until=until, starter=starter)
    except OSError as error:
        raise CacheError(f"the cache {held.root} cannot be used: {error}") from None
    return sif, path, came_from


class _Url:
    """A URL, and what this host's cache knows of it. All of it raises OSError where the cache cannot be used."""

    def __init__(self, text: str, held: Cache, now: float) -> None:
        self._text = text
        self._held = held
        self._now = now
        self._key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        self._note = os.path.join(held.root, "foreign", self._key)

    def known(self) -> Sif | None:
        """The SIF that it led to a while ago, if that is here."""
        try:
            with open(self._note, encoding="ascii") as note:
                sha256, size, when = note.read(_MOST_BYTES).split()
            if 0 <= self._now - float(when) < BELIEVED and self._held.shelf.is_seen(sha256):
                return Sif(self._text, sha256, int(size))
        except (OSError, ValueError):
            pass
        return None

    def fetched_once(self, settings: Settings, until: float) -> tuple[Sif, str]:
        """The SIF, fetched by this process or another, and where from; all processes but one wait."""
        self._check_failures()
        self._held.shelf.make(self._key)
        os.makedirs(os.path.dirname(self._note), mode=0o700, exist_ok=True)
        lock = self._held.shelf.lock(self._key)
        try:
            with turn.taken([lock], until, lambda: self.known() is not None, "another process fetches it for too long") as got:
                sif = self.known()
                if got is None and sif is not None:
                    return sif, ""
                with turn.taken(self._held.slot_paths(self._key), until, None, "no turn came to fetch it"):
                    return self._fetched(settings, until)
        except TimeoutError as error:
            raise BusyError(f"{self._text}: {error}") from None

    def _fetched(self, settings: Settings, until: float) -> tuple[Sif, str]:
        self._check_failures()
        _sweep(os.path.dirname(self._note))
        part = f"{self._note}.part"
        try:
            download = _Download(part, self._held)
            try:
                came_from = download.run(self._text, settings, until)
                sif = download.sif(self._text, settings.arch)
            except FetchError as error:
                if time.monotonic() < until:  # else only this job's time was over
                    failures.note(self._held.root, self._key, str(error), time.time())
                raise
            self._held.shelf.make(sif.sha256)
            os.rename(part, self._held.shelf.part(sif.sha256))  # where a download is continued: this one has only to be checked
        finally:
            if os.path.exists(part):
                os.unlink(part)
        from publisher.resolver import files  # noqa: PLC0415 - it locks nothing here

        files.replace(self._note, f"{sif.sha256} {sif.size} {self._now:.0f}".encode())
        return sif, came_from

    def _check_failures(self) -> None:
        reason = failures.recent(self._held.root, self._key, time.time())
        if reason is not None:
            raise FetchError(f"not tried again yet: {reason}")


def _sweep(directory: str) -> None:
    """Remove what is of no use any more: notes, and what killed processes left of downloads."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            if os.lstat(path).st_mtime < time.time() - _KEPT:
                os.unlink(path)
        except FileNotFoundError:  # another process's, finished meanwhile
            continue


class _Download:
    """A file of a size that nobody knows before."""

    def __init__(self, path: str, held: Cache) -> None:
        self._path = path
        self._root = held.root
        self._limits = held.limits()
        self._size = 0
        self._hash = hashlib.sha256()
        self._begin = b""

    def run(self, text: str, settings: Settings, until: float) -> str:
        """Write the file; the way it came by. Raises FetchError, RoomError, UnknownImageError."""
        base, mark, query = text.partition("?")
        directory, _, name = base.rpartition("/")
        name = urllib.parse.unquote(name)  # a source quotes names, and federations' paths, by itself
        if not text.startswith("http"):
            directory = urllib.parse.unquote(directory)
        problems = []
        network = network_of(settings)
        network.https_only = True
        # small, since only what has a known size can be left to the command pelican
        for way in source(f"{directory}{mark}{query}", network).ways(name, small=True, until=until):
            try:
                self._stream(way, name, until)
            except FetchError as error:  # noqa: PERF203 - the next way is there for that
                problems.append((way.text, error))
            else:
                return way.text
        why = failure("cannot fetch the SIF: ", problems)
        if isinstance(why, AbsentError):
            raise UnknownImageError(f"there is no {text}: {why}")
        raise why

    def sif(self, text: str, arch: str) -> Sif:
        """What came, if that is a whole SIF for this machine. Raises ReferenceError, ArchitectureError, FetchError."""
        header = Header.parse(self._begin)
        if header is None:
            raise ReferenceError(f"{text} is no SIF")
        if self._size < header.end:
            raise FetchError(f"{text} ended after {self._size} of {header.end} bytes")
        if header.arch != arch.partition("/")[0]:
            raise ArchitectureError(f"{text} is for {header.arch}, this is {arch}")
        return Sif(text, self._hash.hexdigest(), self._size)

    def _stream(self, way: Source, name: str, until: float) -> None:
        self._size, self._hash, self._begin = 0, hashlib.sha256(), b""
        pace = Pace(time.monotonic, until, way.network.slowest)
        looked = 0
        with open(self._path, "wb", buffering=0) as file:
            for chunk in way.pieces(name, 0, None, pace):
                if self._size == 0 or self._size - looked >= _LOOK:
                    looked = self._size
                    self._check_room()
                file.write(chunk)
                self._hash.update(chunk)
                self._begin += bytes(chunk[: max(0, HEADER_BYTES - len(self._begin))])
                self._size += len(chunk)
                pace.add(len(chunk))
                problem = pace.problem()
                if problem is not None:
                    raise FetchError(f"{name}: {problem}")

    def _check_room(self) -> None:
        """Nothing is removed for a file of unknown size: it gets what is free."""
        if room.free(self._root) < self._limits.free or self._size > self._limits.most:
            raise RoomError(f"no room for a SIF of unknown size in {self._root}", hint="raise cache-size, lower cache-free")
