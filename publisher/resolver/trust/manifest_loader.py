"""Loading the manifest: the index with the highest serial that a trusted key has signed wins, wherever it comes from.

All sources are read at the same time, each with a timeout; those in the network only when the poll schedule says so
(:mod:`publisher.resolver.trust.poll_schedule`). A source that is silent, broken or out of date is no error as long as another
one, or the cached copy, has an index. An index with a lower serial is never used, so that a server of old files cannot bring back
an image that was removed.
"""

from __future__ import annotations

import time

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import (
    DEAD,
    EXPIRED,
    FRESH,
    INDEX_NAME,
    MAX_INDEX_BYTES,
    MAX_SHARD_BYTES,
    Index,
    Shard,
    shard_name,
)
from publisher.resolver.errors import DeadlineError, FetchError
from publisher.resolver.system import log
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.trust import signatures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.contract.records import Record
    from publisher.resolver.system.notes import Warnings
    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.manifest_cache import ManifestCache
    from publisher.resolver.trust.poll_schedule import PollSchedule

    Verify = Callable[[bytes, Mapping[str, bytes]], bytes]

CACHED_COPY = "the cached copy"
"""The name of the cached copy of the manifest wherever a source is named."""
_POLL_SLACK = 5  # seconds that another process may take for a poll, besides the longest timeout of a source


class TrustedManifest:
    """A verified index, and access to its shards.

    Attributes:
        index: the verified index.
        source: label of the source that it came from, or :data:`CACHED_COPY`.
        age: ``fresh``, ``expired`` or ``dead``.
        polled: whether all sources were read just now, including those in the network.
        is_current: whether a source in the network gave an index that has not expired, now or in a recent poll; if no source is
            in the network, whether the index came from a source and not from the cache.
    """

    def __init__(
        self,
        index: Index,
        *,
        source: str,
        age: str,
        sources: Sequence[Source],
        cache: ManifestCache | None,
        notes: Warnings,
        polled: bool = True,
        is_current: bool = True,
    ) -> None:
        self.index = index
        self.source = source
        self.age = age
        self.polled = polled
        self.is_current = is_current
        self._sources = sorted(sources, key=lambda candidate: (candidate.suspected_hang, candidate.label != source))
        self._cache = cache
        self._notes = notes
        self._shards: dict[str, Shard] = {}

    def record(self, key: str) -> Record | None:
        """Return the record of a name or an alias, or None if the manifest has no such key.

        Raises:
            ManifestError: no source has a valid copy of the shard.
        """
        shard = self._shard_for(key)
        if shard is None:
            return None
        name = key if key in shard.records else shard.aliases.get(key)
        if not isinstance(name, str):
            return None
        shard = shard if name in shard.records else self._shard_for(name)
        return None if shard is None else shard.record(name)

    def _shard_for(self, key: str) -> Shard | None:
        """Return the shard that a key hashes into, or None if that shard is empty."""
        sha256 = self.index.shard_for(key)
        if sha256 is None:
            return None
        if sha256 not in self._shards:
            self._shards[sha256] = self._load_shard(sha256)
        return self._shards[sha256]

    def _load_shard(self, sha256: str) -> Shard:
        """Return a shard from the cache, else from the sources."""
        content = None if self._cache is None else self._cache.shard(sha256)
        if content is not None:
            try:
                return Shard.parse(content, sha256)
            except ManifestError as error:
                self._notes.add(f"{CACHED_COPY}: {error}")
        if self._cache is None or all(source.local for source in self._sources):
            return self._fetch_shard(sha256)
        from publisher.resolver.trust import shard_fetch  # noqa: PLC0415 - a warm answer has the shard

        return shard_fetch.fetch_once(sha256, self._cache, self._sources, lambda: self._fetch_shard(sha256))

    def _fetch_shard(self, sha256: str) -> Shard:
        """Return a shard from the first source that has it, the index's source first, and store it in the cache."""
        problems = []
        for source in self._sources:
            try:
                call = _start_reading(source, shard_name(sha256), MAX_SHARD_BYTES, sha256)
                content = call.result(time.monotonic() + source.timeout)
                shard = Shard.parse(content, sha256)
            except (FetchError, ManifestError) as error:
                log.info("%s has no valid shard: %s", source.label, error)
                problems.append(f"{source.label}: {error}")
                continue
            self._store_shard(sha256, content)
            return shard
        raise ManifestError(f"cannot fetch a shard of the manifest: {'; '.join(problems) or 'no source is configured'}")

    def _store_shard(self, sha256: str, content: bytes) -> None:
        if self._cache is not None:
            try:
                self._cache.store_shard(sha256, content)
            except OSError as error:
                self._notes.add(f"cannot cache a shard of the manifest: {error}")


def load(
    sources: Sequence[Source],
    cache: ManifestCache | None,
    *,
    keys: Mapping[str, bytes],
    repository: str,
    now: float,
    notes: Warnings,
    verify: Verify = signatures.verify,
    refresh: float = 0.0,
    wait: bool = False,
) -> TrustedManifest:
    """Load the manifest with the highest serial.

    Args:
        sources: sources of the manifest; among equal serials the first one wins. Sources that are suspected to hang are read only
            if there is no other source and no usable cached copy.
        cache: the cached manifest, None if there is no cache.
        keys: the trusted keys, as :func:`publisher.resolver.trust.signatures.load_keys` returns them.
        repository: name of the repository, which the manifest must carry.
        now: this host's clock, seconds since the epoch.
        notes: gets the problems that did not change the result.
        verify: returns the payload of an envelope that one of the keys has signed.
        refresh: seconds between two polls of the sources in the network; without a cache they are polled every time.
        wait: wait for another process that polls them even if there is a cached copy.

    Raises:
        ManifestError: no source has a manifest that can be trusted; the message has the problem of each.
        ExpectedError: openssl cannot be used.
    """
    loader = _ManifestLoader(sources, cache, _IndexChecks(keys, repository, now, verify), notes)
    if cache is None or all(source.local for source in sources):
        return loader.read_all()
    from publisher.resolver.trust.poll_schedule import PollSchedule  # noqa: PLC0415 - not if all sources are in CVMFS

    return loader.poll_if_due(cache, PollSchedule(cache.directory, refresh, now), wait=wait)


class _IndexChecks:
    """The checks of an index, each envelope once: signature, type, schema and repository.

    Args:
        keys: the trusted keys.
        repository: name of the repository.
        now: seconds since the epoch.
        verify: returns the payload of an envelope that one of the keys has signed.
    """

    def __init__(self, keys: Mapping[str, bytes], repository: str, now: float, verify: Verify) -> None:
        self.now = now
        self._verify = verify
        self._keys = keys
        self._repository = repository
        self._results: dict[bytes, Index | ManifestError] = {}

    def check(self, content: bytes) -> Index | ManifestError:
        """Return the index in an envelope, or why it must not be used."""
        if content not in self._results:
            try:
                self._results[content] = Index.parse(self._verify(content, self._keys), self._repository)
            except ManifestError as error:
                self._results[content] = error
        return self._results[content]

    def age(self, content: bytes | None) -> str | None:
        """Return the age of the index in an envelope, or None if there is no valid one."""
        index = None if content is None else self.check(content)
        return index.age(self.now) if isinstance(index, Index) else None


class _ManifestLoader:
    """A search for the best index among the sources and the cached copy."""

    def __init__(self, sources: Sequence[Source], cache: ManifestCache | None, checks: _IndexChecks, notes: Warnings) -> None:
        self._sources = sources
        self._cache = cache
        self._checks = checks
        self._notes = notes

    def poll_if_due(self, cache: ManifestCache, schedule: PollSchedule, *, wait: bool) -> TrustedManifest:
        """Poll all sources if it is time, as the only process of the host; otherwise read the local ones and the cached copy."""
        usable = self._has_usable_copy()
        if schedule.is_due(usable=usable):
            from publisher.resolver.system import locks  # noqa: PLC0415 - a warm answer polls nobody

            timeout = 0.0 if usable and not wait else _POLL_SLACK + max(source.timeout for source in self._sources)
            try:
                cache.make()
                until = time.monotonic() + timeout
                with locks.acquire([schedule.lock], until, lambda: not schedule.is_due(usable=usable)) as lock:
                    if lock is not None:
                        return self.read_all(schedule)
            except TimeoutError:
                log.info("another process is polling the manifest; it is not waited for any longer")
            except OSError as error:
                self._notes.add(f"cannot write to the cache of the manifest: {error}")
                return self.read_all()
        indexes, problems = _read_indexes([source for source in self._sources_to_read() if source.local])
        if not usable:
            problems += [f"{source.label}: was polled a short while ago" for source in self._sources if not source.local]
        return self._select(indexes, problems, polled=False, answered=schedule.recently_answered())

    def read_all(self, schedule: PollSchedule | None = None) -> TrustedManifest:
        """Read all sources, and record the poll in the schedule if there is one."""
        indexes, problems = _read_indexes(self._sources_to_read())
        remote = {source.label for source in self._sources if not source.local}
        answered = any(label in remote and self._checks.age(content) == FRESH for label, content in indexes)
        try:
            return self._select(indexes, problems, polled=True, answered=answered)
        finally:
            if schedule is not None:
                try:
                    schedule.record_poll(answered=answered)
                except OSError as error:  # the next job polls as well
                    self._notes.add(f"cannot record the poll of the manifest: {error}")

    def _has_usable_copy(self) -> bool:
        return self._cache is not None and self._checks.age(self._cache.index()) in (FRESH, EXPIRED)

    def _sources_to_read(self) -> Sequence[Source]:
        """Return the sources without those that are suspected to hang, unless nothing else is left."""
        responsive = [source for source in self._sources if not source.suspected_hang]
        return responsive if responsive or self._has_usable_copy() else self._sources

    def _select(self, indexes: list[tuple[str, bytes]], problems: list[str], *, polled: bool, answered: bool) -> TrustedManifest:
        """Select the authoritative index: the valid one with the highest serial.

        Args:
            indexes: label and content of each index that was read.
            problems: the problems of the other sources.
            polled: whether all sources were read.
            answered: whether a source in the network has a fresh index.

        Raises:
            ManifestError: no index is valid.
        """
        copy = None if self._cache is None else self._cache.index()
        best: tuple[Index, str, bytes] | None = None
        for label, content in [*indexes, *([] if copy is None else [(CACHED_COPY, copy)])]:
            index = self._checks.check(content)
            if isinstance(index, ManifestError):
                problems.append(f"{label}: {index}")
                continue
            log.debug("the manifest from %s has serial %d", label, index.serial)
            if best is None or index.serial > best[0].serial:
                best = index, label, content
        if best is None:
            raise ManifestError(f"no manifest can be used: {'; '.join(problems) or 'no source is configured'}")
        index, label, content = best
        for problem in problems:
            log.info("no manifest from %s", problem)
            self._notes.add(problem)
        if content != copy:
            self._store_index(index, content)
        age = self._age(index, label)
        log.info("using the manifest with serial %d from %s, which is %s", index.serial, label, age)
        return TrustedManifest(
            index,
            source=label,
            age=age,
            sources=self._sources,
            cache=self._cache,
            notes=self._notes,
            polled=polled,
            is_current=answered or (label != CACHED_COPY and all(source.local for source in self._sources)),
        )

    def _store_index(self, index: Index, content: bytes) -> None:
        if self._cache is not None:
            try:
                self._cache.store_index(content, index.shards)
            except OSError as error:
                self._notes.add(f"cannot cache the manifest's index: {error}")

    def _age(self, index: Index, label: str) -> str:
        """Return the age of the selected index; warn if it is not fresh."""
        age = index.age(self._checks.now)
        if age in (EXPIRED, DEAD):
            day = time.strftime("%Y-%m-%d", time.gmtime(index.expires))
            self._notes.warn(f"the manifest (serial {index.serial}, from {label}) expired on {day}, and there is no fresher one")
        return age


def _read_indexes(sources: Sequence[Source]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Read ``index.json`` from all sources at the same time.

    Returns:
        label and content of each index, and the problems of the other sources.
    """
    calls = [(time.monotonic() + source.timeout, _start_reading(source, INDEX_NAME, MAX_INDEX_BYTES)) for source in sources]
    indexes, problems = [], []
    for source, (until, call) in zip(sources, calls):
        hangs = False
        try:
            indexes.append((source.label, call.result(until)))
        except FetchError as error:  # one silent source must not discard the answers of the others
            problems.append(f"{source.label}: {error}")
            hangs = isinstance(error, DeadlineError)
        if source.outage is not None:
            source.suspected_hang = hangs
            (source.outage.begin if hangs else source.outage.end)()
    return indexes, problems


def _start_reading(source: Source, name: str, max_bytes: int, sha256: str | None = None) -> ForkedCall:
    """Start to read a small file of a source; a file without a sha256 is one that changes."""
    return ForkedCall(lambda: source.read(name, max_bytes, sha256, fresh=sha256 is None))
