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

from publisher.contract.errors import InvalidReferenceError
from publisher.contract.manifest import Sif
from publisher.resolver.cache import cache, eviction
from publisher.resolver.errors import (
    AbsentError,
    ArchitectureError,
    CacheBusyError,
    CacheError,
    CacheSpaceError,
    FetchError,
    UnknownImageError,
)
from publisher.resolver.system import locks, negative_cache
from publisher.resolver.transfer.open_source import network_of, source
from publisher.resolver.transfer.sif_header import HEADER_BYTES, SifHeader
from publisher.resolver.transfer.sources import failure
from publisher.resolver.transfer.watchdog import TransferDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO

    from publisher.resolver.cache.cache import Cache
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.transfer.sources import Source

BELIEVED = 6 * 3600
"""Seconds for which a URL is taken to lead to what it led to."""
_SCHEMES = ("osdf://", "pelican://", "https://")
_KEPT = 86400  # seconds
_LOOK = 16 << 20  # bytes between two looks at the room that is left
_MOST_BYTES = 200  # of a note
_LASTING = (UnknownImageError, InvalidReferenceError, ArchitectureError, CacheSpaceError)
"""What the next job would be told after the same trouble, besides FetchError."""
_KINDS = {kind.__name__: kind for kind in (*_LASTING, FetchError)}


def is_fetchable(text: str) -> bool:
    """Whether a name is a URL that can be fetched, and nobody on the way can change what comes."""
    return text.startswith(_SCHEMES)


def fetched(text: str, settings: ResolverSettings, *, now: float, until: float, starter: Starter | None) -> tuple[Sif, str, str]:
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
        UnknownImageError, InvalidReferenceError, ArchitectureError: there is no such file, it is no SIF, or for another machine.
        FetchError, CacheSpaceError, CacheBusyError, CacheError: the host's or the network's doing.
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

    def fetched_once(self, settings: ResolverSettings, until: float) -> tuple[Sif, str]:
        """The SIF, fetched by this process or another, and where from; all processes but one wait."""
        self._check_failures()
        self._held.shelf.make(self._key)
        os.makedirs(os.path.dirname(self._note), mode=0o700, exist_ok=True)
        lock = self._held.shelf.lock(self._key)
        try:
            with locks.taken([lock], until, lambda: self.known() is not None, "another process fetches it for too long") as got:
                sif = self.known()
                if got is None and sif is not None:
                    return sif, ""
                self._check_failures()
                with locks.taken(self._held.slot_paths(self._key), until, None, "no turn came to fetch it"):
                    return self._fetched(settings, until)
        except TimeoutError as error:
            raise CacheBusyError(f"{self._text}: {error}") from None

    def _fetched(self, settings: ResolverSettings, until: float) -> tuple[Sif, str]:
        _sweep(os.path.dirname(self._note))
        part = f"{self._note}.part"
        try:
            try:
                sif, came_from = _ForeignDownload(self._text, part, self._held, settings.arch).run(settings, until)
            except (FetchError, *_LASTING) as error:
                if isinstance(error, CacheSpaceError):
                    negative_cache.forget(self._held.root, self._key)  # a job's end makes room: this pause does not grow
                if time.monotonic() < until:  # else only this job's time was over
                    negative_cache.note(self._held.root, self._key, f"{type(error).__name__} {error}", time.time())
                raise
            self._held.shelf.make(sif.sha256)
            os.rename(part, self._held.shelf.part(sif.sha256))  # where a download is continued: this one has only to be checked
        finally:
            if os.path.exists(part):
                os.unlink(part)
        from publisher.contract import files  # noqa: PLC0415 - it locks nothing here

        files.replace(self._note, f"{sif.sha256} {sif.size} {self._now:.0f}".encode())
        negative_cache.forget(self._held.root, self._key)
        return sif, came_from

    def _check_failures(self) -> None:
        """Raises what a job before was told a moment ago."""
        noted = negative_cache.recent(self._held.root, self._key, time.time())
        if noted is not None:
            kind, _, reason = noted.partition(" ")
            raise _KINDS.get(kind, FetchError)(f"not tried again yet: {reason}")


def _sweep(directory: str) -> None:
    """Remove what is of no use any more: notes, and what killed processes left of downloads."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            if os.lstat(path).st_mtime < time.time() - _KEPT:
                os.unlink(path)
        except FileNotFoundError:  # another process's, finished meanwhile
            continue


class _NoSifError(FetchError):
    """One way gave something else."""


class _ForeignDownload:
    """A file of a size that nobody knows before: the SIF of the URL ``text`` for ``arch``, written to ``path``."""

    def __init__(self, text: str, path: str, held: Cache, arch: str) -> None:
        self._text = text
        self._path = path
        self._arch = arch
        self._root = held.root
        self._limits = held.limits()

    def run(self, settings: ResolverSettings, until: float) -> tuple[Sif, str]:
        """The SIF and the way it came by: the first that gives a whole one.

        Raises:
            UnknownImageError, InvalidReferenceError: no way has the file, or a SIF; of several reasons the last way's, the origin's.
            ArchitectureError, FetchError, CacheSpaceError: for another machine; not to be had in time; no room.
        """
        base, mark, query = self._text.partition("?")
        directory, _, name = base.rpartition("/")
        name = urllib.parse.unquote(name)  # a source quotes names, and federations' paths, by itself
        if not self._text.startswith("http"):
            directory = urllib.parse.unquote(directory)
        problems: list[tuple[str, FetchError]] = []
        network = network_of(settings)
        network.https_only = True
        # small, since only what has a known size can be left to the command pelican
        for way in source(f"{directory}{mark}{query}", network).ways(name, small=True, until=until):
            try:
                return self._streamed(way, name, until), way.text
            except FetchError as error:  # noqa: PERF203 - the next way is there for that
                problems.append((way.text, error))
        why = failure("cannot fetch the SIF: ", problems)
        if not all(isinstance(error, (AbsentError, _NoSifError)) for _, error in problems):
            raise why
        if isinstance(problems[-1][1], _NoSifError):
            raise InvalidReferenceError(f"{self._text} is no SIF")
        raise UnknownImageError(f"there is no {self._text}: {why}")

    def _streamed(self, way: Source, name: str, until: float) -> Sif:
        """Write the file as one way gives it, no further than it may be one of ours. Raises OSError besides."""
        size, looked, begin, digest = 0, 0, b"", hashlib.sha256()
        pace = TransferDeadline(time.monotonic, until, way.network.slowest)
        with open(self._path, "wb", buffering=0) as file:
            for chunk in way.pieces(name, 0, None, pace):
                if size == 0 or size - looked >= _LOOK:
                    looked = size
                    self._check_room(size)
                self._write(file, chunk)
                digest.update(chunk)
                size += len(chunk)
                if len(begin) < HEADER_BYTES:
                    begin += bytes(chunk[: HEADER_BYTES - len(begin)])
                    if len(begin) == HEADER_BYTES:
                        self._header(begin)
                pace.add(len(chunk))
                problem = pace.problem()
                if problem is not None:
                    raise FetchError(f"{name}: {problem}")
        end = self._header(begin).end
        if size < end:
            raise FetchError(f"{self._text} ended after {size} of {end} bytes")
        return Sif(self._text, digest.hexdigest(), size)

    def _header(self, begin: bytes) -> SifHeader:
        """Of a SIF for this machine."""
        header = SifHeader.parse(begin)
        if header is None:
            raise _NoSifError(f"{self._text} is no SIF")
        if header.arch != self._arch.partition("/")[0]:
            raise ArchitectureError(f"{self._text} is for {header.arch}, this is {self._arch}")
        return header

    def _check_room(self, size: int) -> None:
        """Nothing is removed for a file of unknown size: it gets what is free."""
        if eviction.free(self._root) < self._limits.free or size > self._limits.most:
            raise self._no_room()

    def _write(self, file: FileIO, chunk: bytes | memoryview) -> None:
        from publisher.resolver.transfer.fetch import FULL  # noqa: PLC0415 - what was fetched before needs none of it

        view = memoryview(chunk)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            if error.errno in FULL:
                raise self._no_room() from None
            raise

    def _no_room(self) -> CacheSpaceError:
        return CacheSpaceError(f"no room for a SIF of unknown size in {self._root}", hint="raise cache-size, lower cache-free")
