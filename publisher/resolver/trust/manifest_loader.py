"""Loading the manifest: the index with the highest serial that a trusted key has signed wins, wherever it comes from.

All sources are read at the same time, each with a timeout; those in the network only when the poll schedule says so
(:mod:`publisher.resolver.trust.poll_schedule`). A source that is silent, broken or out of date is no error as long as another
one, or the cached copy, has an index. An index with a lower serial is never used, so that a server of old files cannot bring back
an image that was removed. Who may sign is decided before: :mod:`publisher.resolver.trust.authority`.
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
    Envelope,
    Index,
    Shard,
    find_record,
    shard_name,
)
from publisher.contract.records import Record
from publisher.resolver.errors import DISK_ADVICE, DeadlineError, FetchError, ReadError
from publisher.resolver.system import log
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.system.watched_call import start_read
from publisher.resolver.trust import signatures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from publisher.resolver.system.notes import Warnings
    from publisher.resolver.system.watched_call import Read
    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.authority import SigningAuthority, Verify
    from publisher.resolver.trust.manifest_cache import ManifestCache
    from publisher.resolver.trust.poll_schedule import PollSchedule

    _Candidate = tuple[Index, str, bytes]  # an index, the label of its source, its envelope

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
        record = self._cached_record(key)
        if record is not None:
            return record
        shard = self._shard_for(key)
        if shard is None:
            return None
        name = key if key in shard.records else shard.aliases.get(key)
        if not isinstance(name, str):
            return None
        shard = shard if name in shard.records else self._shard_for(name)
        record = None if shard is None else shard.record(name)
        sha256 = self.index.shard_for(name)
        if record is not None and shard is not None and sha256 is not None:
            self._store_record(sha256, name, shard.records[name])
        return record

    def _cached_record(self, name: str) -> Record | None:
        """Return the record of a name from the cache; None if all of its shard has to be parsed for that."""
        sha256 = self.index.shard_for(name)
        if sha256 is None or self._cache is None:
            return None
        value = self._cache.record(sha256, name)
        if value is None:
            content = self._cache.shard(sha256)
            value = None if content is None else find_record(content, sha256, name)
            if value is not None:
                self._store_record(sha256, name, value)
        return None if value is None else Record.from_json(name, value)

    def names(self, until: float) -> list[str]:
        """Return the names of the images in all shards that this host has, cached or in a directory.

        Args:
            until: reading of the monotonic clock at which it returns what it has read.
        """
        names: list[str] = []
        for sha256 in filter(None, self.index.shards):
            if time.monotonic() > until:
                break
            try:
                content = None if self._cache is None else self._cache.shard(sha256)
                if content is None:
                    source = next(source for source in self._sources if source.local)
                    content = source.read(shard_name(sha256), MAX_SHARD_BYTES, sha256)
                names += Shard.parse(content, sha256).records
            except (ManifestError, FetchError, StopIteration):
                continue
        return names

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

    def _store_record(self, sha256: str, name: str, value: dict[str, Any]) -> None:
        if self._cache is not None:
            try:
                self._cache.store_record(sha256, name, value)
            except OSError as error:
                self._notes.add(_unwritten("cache a record of the manifest", self._cache.directory, error))

    def _store_shard(self, sha256: str, content: bytes) -> None:
        if self._cache is not None:
            try:
                self._cache.store_shard(sha256, content)
            except OSError as error:
                self._notes.add(_unwritten("cache a shard of the manifest", self._cache.directory, error))


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
    refuse_forks: bool = False,
    accepts_expired: bool = True,
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
        verify: returns the payload of an envelope, as :func:`publisher.resolver.trust.signatures.verify` does.
        refresh: seconds between two polls of the sources in the network; without a cache they are polled every time.
        wait: wait for another process that polls them even if there is a cached copy.
        refuse_forks: do not use an index that does not continue the one that this host remembers.
        accepts_expired: accept an expired index that only one source has, although there is no cached copy.

    Raises:
        ManifestError: no source has a manifest that can be trusted; the message has the problem of each.
        ExpectedError: openssl cannot be used.
    """
    checks = _IndexChecks(keys, repository, now, verify)
    loader = _ManifestLoader(sources, cache, checks, notes, refuse_forks=refuse_forks, accepts_expired=accepts_expired)
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
        verify: returns the payload of an envelope that enough of the keys have signed.
    """

    def __init__(self, keys: Mapping[str, bytes], repository: str, now: float, verify: Verify) -> None:
        self.now = now
        self._verify = verify
        self._keys = keys
        self._repository = repository
        self._authority: SigningAuthority | None = None
        self._envelopes: dict[bytes, Envelope | ManifestError] = {}
        self._results: dict[bytes, tuple[Index, bool] | ManifestError] = {}

    def learn_keys(self, contents: Iterable[bytes | None]) -> None:
        """Learn from envelopes who may sign: the newest of their keys documents counts for all of them."""
        for content in contents:
            envelope = None if content is None else self._open(content)
            if not isinstance(envelope, Envelope) or envelope.keys is None:
                continue
            from publisher.resolver.trust.authority import SigningAuthority  # noqa: PLC0415 - not without a keys document

            if self._authority is None:
                self._authority = SigningAuthority(self._keys, self._repository, self.now, self._verify)
            known = self._authority.newest
            try:
                self._authority.learn(envelope.keys)
            except ManifestError as error:
                log.info("a keys document is not used: %s", error)
            if known is not self._authority.newest:
                self._results.clear()

    def keys_to_cache(self, cached: bytes | None) -> bytes | None:
        """Return the newest keys document, in an envelope without an index; None if there is none or ``cached`` has it."""
        newest = None if self._authority is None else self._authority.newest
        envelope = None if cached is None else self._open(cached)
        known = envelope.keys if isinstance(envelope, Envelope) else None
        if newest is None or (known is not None and known.payload == newest.payload):
            return None
        return Envelope(b"", (), newest).content()

    def check(self, content: bytes) -> Index | ManifestError:
        """Return the index in an envelope, or why it must not be used."""
        result = self._check(content)
        return result if isinstance(result, ManifestError) else result[0]

    def rank(self, content: bytes) -> tuple[bool, int]:
        """Return the rank of a valid index, of which the authoritative one has the highest.

        It is the serial; but an index whose keys have expired, which a thief of such a key can make, comes after all others.
        """
        result = self._check(content)
        return (False, 0) if isinstance(result, ManifestError) else (not result[1], result[0].serial)

    def age(self, content: bytes | None) -> str | None:
        """Return the age of the index in an envelope, or None if there is no valid one. It is dead if its keys have expired."""
        result = None if content is None else self._check(content)
        if result is None or isinstance(result, ManifestError):
            return None
        index, has_expired_keys = result
        return DEAD if has_expired_keys else index.age(self.now)

    def describe_age(self, content: bytes, label: str) -> str:
        """Return why an index that is not fresh is not, and where it came from."""
        result = self._check(content)
        if isinstance(result, ManifestError):
            return str(result)
        index, has_expired_keys = result
        if has_expired_keys and self._authority is not None:
            return f"{self._authority.describe_expiry()}: the manifest has serial {index.serial}, from {label}"
        if index.is_from_future(self.now):
            day = time.strftime("%Y-%m-%d", time.gmtime(index.generated))
            return (
                f"the manifest (serial {index.serial}, from {label}) was signed on {day}, which has not come yet: the clock of "
                "this host or of the publisher is wrong"
            )
        day = time.strftime("%Y-%m-%d", time.gmtime(index.expires))
        return f"the manifest (serial {index.serial}, from {label}) expired on {day}, and there is no fresher one"

    def _check(self, content: bytes) -> tuple[Index, bool] | ManifestError:
        """Return the index in an envelope, and whether its keys have expired; or why it must not be used."""
        if content not in self._results:
            envelope = self._open(content)
            try:
                if isinstance(envelope, ManifestError):
                    raise envelope
                payload, has_expired_keys = self._check_signature(envelope)
                self._results[content] = Index.parse(payload, self._repository), has_expired_keys
            except ManifestError as error:
                self._results[content] = error
        return self._results[content]

    def _check_signature(self, envelope: Envelope) -> tuple[bytes, bool]:
        if self._authority is None:
            return self._verify(envelope, self._keys), False
        return self._authority.check(envelope)

    def _open(self, content: bytes) -> Envelope | ManifestError:
        if content not in self._envelopes:
            try:
                self._envelopes[content] = Envelope.parse(content)
            except ManifestError as error:
                self._envelopes[content] = error
        return self._envelopes[content]


class _ManifestLoader:
    """A search for the best index among the sources and the cached copy."""

    def __init__(
        self,
        sources: Sequence[Source],
        cache: ManifestCache | None,
        checks: _IndexChecks,
        notes: Warnings,
        *,
        refuse_forks: bool,
        accepts_expired: bool,
    ) -> None:
        self._refuse_forks = refuse_forks
        self._accepts_expired = accepts_expired
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
                self._notes.add(_unwritten("write the cache of the manifest", cache.directory, error))
                return self.read_all()
        indexes, problems = self._read([source for source in self._sources_to_read() if source.local])
        if not usable:
            problems += [f"{source.label}: was polled a short while ago" for source in self._sources if not source.local]
        return self._select(indexes, problems, polled=False, answered=schedule.recently_answered())

    def read_all(self, schedule: PollSchedule | None = None) -> TrustedManifest:
        """Read all sources, and record the poll in the schedule if there is one."""
        indexes, problems = self._read(self._sources_to_read())
        remote = {source.label for source in self._sources if not source.local}
        answered = any(label in remote and self._checks.age(content) == FRESH for label, content in indexes)
        try:
            return self._select(indexes, problems, polled=True, answered=answered)
        finally:
            if schedule is not None:
                try:
                    schedule.record_poll(answered=answered)
                except OSError as error:  # the next job polls as well
                    self._notes.add(_unwritten("record the poll of the manifest", schedule.directory, error))

    def _has_usable_copy(self) -> bool:
        return self._checks.age(self._read_copy()) in (FRESH, EXPIRED)

    def _read_copy(self) -> bytes | None:
        """Return the cached index, None if there is none; who may sign is learned from it and from the cached keys document."""
        if self._cache is None:
            return None
        copy = self._cache.index()
        self._checks.learn_keys((self._cache.keys(), copy))
        return copy

    def _read(self, sources: Sequence[Source]) -> tuple[list[tuple[str, bytes]], list[str]]:
        """Read the indexes of sources, see :func:`_read_indexes`, and learn from them who may sign."""
        indexes, problems = _read_indexes(sources)
        self._checks.learn_keys(content for _, content in indexes)
        return indexes, problems

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
        copy = self._read_copy()
        self._refuse_expired(copy, indexes)
        self._store_keys()
        valid: list[_Candidate] = []
        for label, content in [*indexes, *([] if copy is None else [(CACHED_COPY, copy)])]:
            index = self._checks.check(content)
            if isinstance(index, ManifestError):
                problems.append(f"{label}: {index}")
                continue
            log.debug("the manifest from %s has serial %d", label, index.serial)
            valid.append((index, label, content))
        if not valid:
            raise ManifestError(f"no manifest can be used: {'; '.join(problems) or 'no source is configured'}")
        index, label, content = self._best(valid, copy)
        for problem in problems:
            log.info("no manifest from %s", problem)
            self._notes.add(problem)
        if content != copy:
            self._store_index(index, content)
        age = self._age(label, content)
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

    def _best(self, valid: list[_Candidate], copy: bytes | None) -> _Candidate:
        """Return the index of the highest rank, the first of several; report a fork, and refuse it if the site wants that."""
        best = max(valid, key=lambda candidate: self._checks.rank(candidate[2]))
        if self._cache is None or copy is None:
            return best
        self._notes.fork = self._cache.fork()
        remembered = self._checks.check(copy)
        if best[2] == copy or isinstance(remembered, ManifestError) or not self._checks.rank(copy)[0]:
            return best
        from publisher.resolver.trust import forks  # noqa: PLC0415 - a warm answer has no new index

        problem = forks.describe(remembered, copy, best[0], best[2], best[1])
        if not problem:
            return best
        self._report_fork(problem, copy)
        if not self._refuse_forks:
            return best
        straight = [one for one in valid if not forks.describe(remembered, copy, one[0], one[2], one[1])]
        return max(straight, key=lambda candidate: self._checks.rank(candidate[2]))

    def _report_fork(self, problem: str, copy: bytes) -> None:
        """Warn of a fork, and record it for the trace and the machine ad."""
        text = f"{problem}; it is {'refused' if self._refuse_forks else 'used'}"
        log.warning(text)
        self._notes.warn(text)
        self._notes.fork = self._notes.fork or text
        if self._cache is not None:
            try:
                self._cache.record_fork(text, copy)
            except OSError as error:
                self._notes.add(_unwritten("record the fork of the manifest", self._cache.directory, error))

    def _refuse_expired(self, copy: bytes | None, indexes: list[tuple[str, bytes]]) -> None:
        """Raise ManifestError for an expired index that only one place has, on a host that remembers nothing.

        Such a host cannot tell it from an old one that brings back what was removed since.
        """
        valid = [(label, content) for label, content in indexes if self._checks.age(content) is not None]
        if self._accepts_expired or self._checks.age(copy) is not None or len({label for label, _ in valid}) != 1:
            return
        label, content = valid[0]
        if self._checks.age(content) == EXPIRED:
            raise ManifestError(
                f"{self._checks.describe_age(content, label)}; no other place answers, and this host remembers none",
                hint="check the clock and the other sources; lone-expired = accept allows it",
            )

    def _store_index(self, index: Index, content: bytes) -> None:
        if self._cache is not None:
            try:
                self._cache.store_index(content, index.shards)
            except OSError as error:
                self._notes.add(_unwritten("cache the manifest's index", self._cache.directory, error))

    def _store_keys(self) -> None:
        """Cache the newest keys document, so that no source can take a revocation back."""
        if self._cache is None:
            return
        keys = self._checks.keys_to_cache(self._cache.keys())
        if keys is not None:
            try:
                self._cache.store_keys(keys)
            except OSError as error:
                self._notes.add(_unwritten("cache the manifest's keys document", self._cache.directory, error))

    def _age(self, label: str, content: bytes) -> str:
        """Return the age of the selected index; warn if it is not fresh."""
        age = self._checks.age(content) or DEAD
        if age in (EXPIRED, DEAD):
            self._notes.warn(self._checks.describe_age(content, label))
        return age


def _read_indexes(sources: Sequence[Source]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Read ``index.json`` from all sources: at the same time, or one after the other if all are on this host and quick.

    Returns:
        label and content of each index, and the problems of the other sources.
    """
    start = _start_local_index if all(source.local for source in sources) else _start_index
    calls = [(time.monotonic() + source.timeout, start(source)) for source in sources]
    indexes, problems = [], []
    for source, (until, call) in zip(sources, calls):
        hangs = False
        try:
            indexes.append((source.label, call.result(until)))
        except FetchError as error:  # one silent source must not discard the answers of the others
            problems.append(f"{source.label}: {error}")
            hangs = isinstance(error, (DeadlineError, ReadError))
        if source.outage is not None:
            source.suspected_hang = hangs
            (source.outage.begin if hangs else source.outage.end)()
    return indexes, problems


def _start_local_index(source: Source) -> Read:
    """Start to read the index of a source on this host: no lock is held, which those who poll the network hold."""
    return start_read(lambda: source.read(INDEX_NAME, MAX_INDEX_BYTES, None, fresh=True), f"{source.label}/{INDEX_NAME}")


def _start_index(source: Source) -> ForkedCall:
    return _start_reading(source, INDEX_NAME, MAX_INDEX_BYTES)


def _start_reading(source: Source, name: str, max_bytes: int, sha256: str | None = None) -> ForkedCall:
    """Start to read a small file of a source; a file without a sha256 is one that changes."""
    return ForkedCall(lambda: source.read(name, max_bytes, sha256, fresh=sha256 is None))


def _unwritten(what: str, directory: str, error: OSError) -> str:
    """Return the note that something was not written to the cache of the manifest, and what to do."""
    return f"cannot {what} in {directory}: {error.strerror or error} ({DISK_ADVICE})"
