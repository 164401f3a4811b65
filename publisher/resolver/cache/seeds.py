"""The SIFs of this cache, and of the host's store, that have a chunk table: another SIF may be made from their chunks.

A seed is pinned while it is read, by the process that reads it, so that no process evicts it for the SIF that is being made. Its
bytes are trusted only as far as they match the digests of the wanted SIF.
"""

from __future__ import annotations

import contextlib
import os
import stat

from publisher.resolver.cache import pins
from publisher.resolver.cache.pins import Starter
from publisher.resolver.difference import tables
from publisher.resolver.difference.seeds import Seed, prepare
from publisher.resolver.system import locks, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from publisher.contract.records import Sif
    from publisher.resolver.cache.entries import CacheEntries
    from publisher.resolver.transfer.fetch import Traffic
    from publisher.resolver.transfer.partial import Assembly
    from publisher.resolver.transfer.sources import Source

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class CachedSeed(Seed):
    """A SIF of a cache or a store.

    Args:
        entries: of the cache.
        sha256: of the SIF.
        reader: this process, whose pin protects the SIF.
    """

    def __init__(self, entries: CacheEntries, sha256: str, reader: Starter) -> None:
        super().__init__(sha256, entries.table_path(sha256))
        self._entries = entries
        self._reader = reader
        self._descriptor: int | None = None

    def open(self) -> int | None:
        """Pin the SIF and return a descriptor of it; None if it is not there or not verified."""
        with contextlib.suppress(OSError):  # another user's store without pins: an open file stays usable when it is evicted
            pins.pin(self._entries.root, self.sha256, self._reader)
        with contextlib.suppress(OSError):
            self._descriptor = os.open(self._entries.sif_path(self.sha256), _READ)
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode) and self._entries.is_verified(self.sha256):
                return self._descriptor
        self.close()
        return None

    def close(self) -> None:
        """Close the SIF and remove the pin."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        pins.unpin(self._entries.root, self.sha256, self._reader)

    def report_damage(self) -> None:
        """Let the SIF be hashed before its next use, which removes it if it is damaged."""
        log.warning(f"bytes of {self._entries.sif_path(self.sha256)} are wrong, so it will be hashed before its next use")
        with contextlib.suppress(OSError), locks.acquire([self._entries.lock_path(self.sha256)], 0):
            self._entries.invalidate(self.sha256)


def find(caches: Iterable[CacheEntries], wanted: str) -> list[CachedSeed]:
    """Return the SIFs that have a table, the most recently used of each cache first, without the wanted one itself.

    A cache that cannot be read has none.
    """
    reader = Starter(os.getpid())
    found = []
    for entries in caches:
        try:
            used = [entry.sha256 for entry in reversed(entries.by_last_use())]
            with_table = {sha256 for sha256, _ in entries.tables()}
        except OSError as error:
            log.info("%s cannot be used for differences: %s", entries.root, error)
            continue
        found += [CachedSeed(entries, sha256, reader) for sha256 in used if sha256 in with_table and sha256 != wanted]
    return found


@contextlib.contextmanager
def assembly(
    sif: Sif, sources: Sequence[Source], caches: Sequence[CacheEntries], until: float, traffic: Traffic
) -> Iterator[Assembly | None]:
    """Yield how a SIF comes together from others, which stay pinned; None if it is fetched as a whole.

    Args:
        sif: the SIF.
        sources: where to fetch from, in order of preference.
        caches: where other SIFs are; the first one keeps the chunk table of this SIF, for later ones.
        until: reading of the monotonic clock at which the SIF must be there.
        traffic: counts the bytes that are received.

    Raises:
        OSError: the table cannot be written.
    """
    table = tables.ensure(sif, caches[0].table_path(sif.sha256), sources, until, traffic)
    found = [] if table is None else find(caches, sif.sha256)
    round_trip = max((source.network.round_trip for source in sources), default=0.0)
    try:
        yield None if table is None or not found else prepare(table, found, round_trip)
    finally:
        for seed in found:
            seed.close()
