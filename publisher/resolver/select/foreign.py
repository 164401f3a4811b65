"""Foreign SIFs: SIFs that no manifest lists, fetched into the cache by their URL, or pulled by Apptainer from a registry.

A site allows either by the setting ``unknown``. Nobody signed them, so what can be checked is checked: that the file is a SIF,
complete according to its own header, and for the architecture of this machine. From then on it is a cache entry like any other:
it is stored under its sha256 and verified, pinned, counted and evicted like the others. ``foreign/<sha256 of the URL>`` records
what the URL led to; that is used for a while only, since the content behind such a URL may change. What came with a token is
recorded under the URL and the job's tokens together: a job with other tokens has to show the server its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import urllib.parse

from publisher.contract.errors import InvalidReferenceError, os_reason
from publisher.contract.records import Sif
from publisher.resolver.cache import cache, sweep
from publisher.resolver.errors import (
    ArchitectureError,
    CacheBusyError,
    CacheError,
    CacheSpaceError,
    FetchError,
    HostError,
    UnknownImageError,
)
from publisher.resolver.select import image_pull
from publisher.resolver.select.foreign_download import ForeignDownload
from publisher.resolver.system import locks, negative_cache
from publisher.resolver.transfer.open_source import network_options
from publisher.resolver.transfer.sources import FEDERATED, public_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.resolver.cache.cache import Cache
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings

MAX_AGE = 6 * 3600
"""Seconds for which a URL is assumed to lead to the same SIF. The job that fetched it may have begun after one that waited."""
_SCHEMES = ("osdf://", "pelican://", "https://")
_PULL_LOCK = "pull"
_RETENTION = 86400  # seconds after which records and interrupted downloads are removed
_MAX_RECORD_BYTES = 200
_REMEMBERED = (UnknownImageError, InvalidReferenceError, ArchitectureError, CacheSpaceError, HostError)
"""The failures, besides FetchError, that are remembered for the next jobs."""
_CLASSES = {kind.__name__: kind for kind in (*_REMEMBERED, FetchError)}


def is_fetchable(text: str) -> bool:
    """Return whether a text is a URL that can be fetched without anybody on the way being able to change the content."""
    return text.startswith(_SCHEMES)


def ensure(url: str, settings: ResolverSettings, *, now: float, until: float, starter: Starter | None) -> tuple[Sif, str, str]:
    """Ensure that the SIF at a URL is cached.

    Args:
        url: of the SIF, or of an image of a registry, canonical.
        settings: of the resolver.
        now: the time, seconds since the epoch.
        until: reading of the monotonic clock at which the SIF must be there.
        starter: the starter of the job that gets the SIF, for the pin; None for no pin.

    Returns:
        The SIF, its path, and where it was fetched from just now: empty if it was cached.

    Raises:
        UnknownImageError, InvalidReferenceError: the file does not exist, or is not a SIF.
        ArchitectureError: the SIF is for another architecture.
        HostError: this host cannot pull images.
        FetchError, CacheSpaceError, CacheBusyError, CacheError: the host or the network failed.
    """
    target = cache.from_settings(settings)
    target.prepare()
    record = _UrlRecord(url, _tokens(url, settings), target, now)
    fetched_from = ""
    try:
        sif = record.cached_sif()
        if sif is None:
            sif, fetched_from = record.fetch_once(settings, until)
        path, _ = target.ensure(sif, [], until=until, starter=starter)
    except OSError as error:
        raise CacheError(f"the cache {target.root} cannot be used: {os_reason(error, target.root)}") from None
    return sif, path, fetched_from


class _UrlRecord:
    """A URL, and what the cache of this host knows about it. Every method raises OSError if the cache cannot be used."""

    def __init__(self, url: str, tokens: Sequence[str], target: Cache, now: float) -> None:
        """Describe a URL for a job with ``tokens``, all that may be sent there."""
        self._url = url
        self._cache = target
        self._now = now
        self._public_path = self._record_path(_digest(url))
        self._key = _digest("\0".join([url, *tokens]))  # of this job's locks and failures, too
        self._path = self._record_path(self._key)

    def cached_sif(self) -> Sif | None:
        """Return the SIF that the URL led to a short while ago, without a token or with this job's tokens, if it is cached."""
        return self._read(self._public_path) or self._read(self._path)

    def _record_path(self, key: str) -> str:
        return os.path.join(self._cache.root, "foreign", key)

    def _read(self, path: str) -> Sif | None:
        try:
            with open(path, encoding="ascii") as file:
                sha256, size, when = file.read(_MAX_RECORD_BYTES).split()
            if abs(self._now - float(when)) < MAX_AGE and self._cache.entries.is_verified(sha256):
                return Sif(public_address(self._url), sha256, int(size))
        except (OSError, ValueError):
            pass
        return None

    def fetch_once(self, settings: ResolverSettings, until: float) -> tuple[Sif, str]:
        """Return the SIF, and where this process fetched it from: empty if another process fetched it meanwhile."""
        self._raise_recent_failure()
        self._cache.entries.make_directories(self._key)
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        locked = [self._cache.entries.lock_path(self._key)]
        busy = "another process has been downloading it for too long"
        try:
            with locks.acquire(locked, until, lambda: self.cached_sif() is not None, busy) as lock:
                sif = self.cached_sif()
                if lock is None and sif is not None:
                    return sif, ""
                self._raise_recent_failure()
                with self._turn(until), self._cache.in_slot(self._key, until):
                    sif = self.cached_sif()  # a job with other tokens may have found that none is needed
                    if sif is not None:
                        return sif, ""
                    sif, label = self._fetch(settings, lock, until)
                self._cache.ensure(sif, [], until=until)  # while the others wait, who would otherwise fetch it again
                return sif, label
        except TimeoutError as error:
            raise CacheBusyError(f"{public_address(self._url)}: {error}", hint="try again later") from None

    def _turn(self, until: float) -> contextlib.AbstractContextManager[object]:
        """Return what lets one process at a time pull an image, since that takes processors and disk. It does nothing else."""
        if not image_pull.is_pullable(self._url):
            return contextlib.nullcontext()
        return locks.acquire(
            [self._cache.entries.lock_path(_PULL_LOCK)], until, None, "other images have been pulled for too long"
        )

    def _fetch(self, settings: ResolverSettings, lock: int | None, until: float) -> tuple[Sif, str]:
        """Download or pull the SIF, holding its lock; return it and where it was fetched from."""
        if lock is None:
            raise CacheBusyError(
                f"{public_address(self._url)} was evicted as soon as another process had it", hint="try again later"
            )
        _sweep(os.path.dirname(self._path))
        part = f"{self._path}.part"
        root = self._cache.root
        try:
            try:
                sif, label, uses_token = self._transfer(part, settings, lock, until)
            except (FetchError, *_REMEMBERED) as error:
                if isinstance(error, CacheSpaceError):
                    negative_cache.clear(root, self._key)  # any job that ends may free space, so this pause does not grow
                if time.monotonic() < until or image_pull.is_pullable(self._url):  # else only this job ran out of time
                    negative_cache.record_failure(root, self._key, f"{type(error).__name__} {error}", time.time())
                raise
            self._cache.entries.make_directories(sif.sha256)
            if not self._cache.entries.is_verified(sif.sha256):
                os.rename(part, self._cache.entries.part_path(sif.sha256))  # like a complete download that is yet to be verified
        finally:
            if os.path.exists(part):
                os.unlink(part)
        from publisher.contract import files  # noqa: PLC0415 - a cached SIF writes nothing

        path = self._path if uses_token else self._public_path
        files.replace(path, f"{sif.sha256} {sif.size} {self._now:.0f}".encode())
        negative_cache.clear(root, self._key)
        return sif, label

    def _transfer(self, part: str, settings: ResolverSettings, lock: int, until: float) -> tuple[Sif, str, bool]:
        """Write the SIF to a file; return it, where it came from, and whether a token was needed."""
        if image_pull.is_pullable(self._url):
            sweep.sweep(self._cache.entries)
            pull = image_pull.ImagePull(self._url, self._key, self._cache, settings)
            return pull.run(part, lock, until), self._url, False
        sif, route = ForeignDownload(self._url, part, self._cache, settings.arch).run(settings, until)
        return sif, route.label, route.uses_token

    def _raise_recent_failure(self) -> None:
        """Raise the error of an earlier job if it happened a short while ago and the download must not be retried yet."""
        failure = negative_cache.recent_failure(self._cache.root, self._key, time.time())
        if failure is not None:
            kind, _, reason = failure.partition(" ")
            raise _CLASSES.get(kind, FetchError)(f"not retried yet: {reason}")


def _tokens(url: str, settings: ResolverSettings) -> list[str]:
    """Return the job's tokens that may be sent to the servers of a URL."""
    if not url.startswith(FEDERATED) or not settings.token_issuers:
        return []
    from publisher.resolver.transfer import pelican_source, token  # noqa: PLC0415 - few sites allow tokens

    network = network_options(settings)
    issuers = network.issuers(*pelican_source.parse_address(urllib.parse.unquote(url.partition("?")[0]), network))
    return [bearer for issuer in sorted(issuers) if (bearer := token.find(os.environ, {issuer}))]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _sweep(directory: str) -> None:
    """Remove old records, and the downloads that killed processes left."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            if os.lstat(path).st_mtime < time.time() - _RETENTION:
                os.unlink(path)
        except FileNotFoundError:  # another process finished or removed it
            continue
