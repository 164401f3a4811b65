"""Unpacking a cached SIF into a sandbox in the cache, for a host that cannot mount SIFs: once for all jobs.

The sandbox is a cache entry of its own (:func:`publisher.resolver.cache.entries.unpacked_key`): complete or absent, counted
against the limits, pinned and evicted like a SIF. ``unsquashfs`` unpacks it if it can, otherwise Apptainer. It is unpacked into a
new directory, hashed file by file, flushed to disk and then renamed. A process that is killed leaves a ``.part`` like an
interrupted download, and the next one begins anew.
"""

from __future__ import annotations

import contextlib
import os
import time

from publisher.resolver.cache import eviction, pins, sweep, trees
from publisher.resolver.cache.entries import unpacked_key
from publisher.resolver.errors import CacheBusyError, CacheError, CacheSpaceError, HostError
from publisher.resolver.system import child_program, locks, log, negative_cache, path_probe
from publisher.resolver.transfer.sif_header import squashfs_offset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.resolver.cache.entries import CacheEntries
    from publisher.resolver.cache.eviction import CacheLimits

_APPTAINER = ("apptainer", "singularity")
_LEAST_FREE = 500_000  # bytes below which a disk is full
_NO_TIME = "the image was not unpacked in time"


def ensure(
    entries: CacheEntries, limits: CacheLimits, sha256: str, sif: str, size: int, *, until: float, apptainer: str | None = None
) -> str:
    """Ensure that a SIF is unpacked in the cache, by this process or another; return the path of the sandbox.

    Args:
        entries: of the cache.
        limits: of the cache.
        sha256: of the SIF.
        sif: its path, in this cache or elsewhere; the caller keeps it from being evicted.
        size: bytes that the sandbox will take at most.
        until: reading of the monotonic clock at which it must be there.
        apptainer: path of Apptainer; None to search the PATH.

    Raises:
        HostError: this host has no program that can unpack the SIF.
        CacheSpaceError: there is not enough space, and everything in the cache is in use.
        CacheBusyError: another process, or this one, did not finish in time.
        CacheError: the cache cannot be used.
    """
    key = unpacked_key(sha256)

    def is_settled() -> bool:
        return entries.is_verified(key) or negative_cache.recent_failure(entries.root, key, time.time()) is not None

    entries.make_directories(key)
    path = entries.sif_path(key)
    try:
        with locks.acquire(
            [entries.lock_path(key)], until, is_settled, "another process has been unpacking it for too long"
        ) as lock:
            if entries.is_verified(key):
                return path
            failure = negative_cache.recent_failure(entries.root, key, time.time())
            if failure is not None or lock is None:
                raise CacheError(f"the image cannot be unpacked on this host, not retried yet: {failure}")
            with _pinned(entries.root, sha256):
                _Unpacking(entries, limits, key, sif, until=until, apptainer=apptainer).run(size, lock)
    except TimeoutError as error:
        raise CacheBusyError(f"{path}: {error}", hint="try again later, or raise deadline") from None
    return path


class _Unpacking:
    """One attempt to unpack a SIF, by the process that holds the entry's lock."""

    def __init__(
        self, entries: CacheEntries, limits: CacheLimits, key: str, sif: str, *, until: float, apptainer: str | None
    ) -> None:
        self._entries = entries
        self._limits = limits
        self._key = key
        self._sif = sif
        self._until = until
        self._apptainer = apptainer
        self._part = entries.part_path(key)

    def run(self, size: int, lock: int) -> None:
        """Unpack the SIF and add it to the cache. Raise as :func:`ensure` does; TimeoutError and OSError as well."""
        entries, root = self._entries, self._entries.root
        sweep.sweep(entries)
        trees.remove(self._part)
        begun = time.monotonic()
        try:
            eviction.reserve(entries, self._key, size, self._limits, lock)
            os.mkdir(self._part, 0o700)
            target = os.path.join(self._part, os.urandom(8).hex())  # an orphan of a killed process cannot know this name
            self._unpack(target)
            os.chmod(target, 0o755)  # noqa: S103 - Apptainer may enter it as another user
            identity = trees.digest(target, self._check_time)
            self._flush(target)
            entries.add_tree(self._key, target, identity)
        except (CacheSpaceError, TimeoutError):
            raise
        except (CacheError, HostError) as error:
            negative_cache.record_failure(root, self._key, str(error), time.time())
            raise
        finally:
            eviction.release(lock)
            trees.remove(self._part)
        negative_cache.clear(root, self._key)
        log.info("unpacked %s in %.1f s", self._sif, time.monotonic() - begun)

    def _unpack(self, target: str) -> None:
        """Unpack with the first program that can do it. Raise HostError if there is none, CacheError if all failed."""
        problems = []
        unsquashfs = path_probe.find_program(("unsquashfs",))
        with open(self._sif, "rb") as file:
            offset = squashfs_offset(file.read(1 << 16))
        if unsquashfs and offset is not None:
            argv = [unsquashfs, "-no-progress", "-user-xattrs", "-offset", str(offset), "-dest", target, self._sif]
            problems.append(self._run(argv))
            if not problems[-1]:
                return
            trees.remove(target)
        apptainer = self._apptainer or path_probe.find_program(_APPTAINER)
        if apptainer:
            problems.append(self._run([apptainer, "build", "--sandbox", target, self._sif]))
            if not problems[-1]:
                return
            trees.remove(target)
        if not problems:
            raise HostError("SIFs cannot be mounted here, and there is neither unsquashfs nor Apptainer to unpack one")
        self._raise_if_full()
        raise CacheError(f"{self._sif} cannot be unpacked: {'; '.join(problems)}", hint="check the disk, or install unsquashfs")

    def _run(self, argv: list[str]) -> str:
        """Run a program until it ends or the time is over; return why it failed, empty if it did not. Raise TimeoutError."""
        environ = {
            "HOME": os.environ.get("HOME", "/"),
            "TMPDIR": self._part,
            "APPTAINER_TMPDIR": self._part,
            "APPTAINER_CACHEDIR": os.path.join(self._part, "apptainer"),
        }
        try:
            return child_program.run(argv, self._part, self._until, environ)
        except TimeoutError:
            raise TimeoutError(_NO_TIME) from None

    def _raise_if_full(self) -> None:
        """Raise CacheSpaceError if the disk is full: the programs only say that they failed."""
        if eviction.free_space(self._entries.root) < _LEAST_FREE:
            raise CacheSpaceError(
                f"no space in the cache {self._entries.root} to unpack {self._sif}", hint="free space on the disk"
            )

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise TimeoutError(_NO_TIME)

    def _flush(self, target: str) -> None:
        """Write the tree to the disk: a crash must not leave a complete directory of empty files."""
        problem = self._run(["sync", "-f", target])
        if problem:
            raise CacheError(f"{target} cannot be written to the disk: {problem}")


@contextlib.contextmanager
def _pinned(root: str, sha256: str) -> Iterator[None]:
    """Pin the SIF for this process, which needs it until it is unpacked."""
    process = pins.Starter(os.getpid())
    pins.pin(root, sha256, process)
    try:
        yield
    finally:
        pins.unpin(root, sha256, process)
