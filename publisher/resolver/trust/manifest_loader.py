"""Which manifest holds: the highest serial that a trusted key has signed, wherever it came from.

All places are asked at the same time, each with a deadline, and those in the network once in a while only (``refresh.py``). One
that is silent, broken or lagging behind is no error as long as another one, or the last good copy, has an index. A serial lower
than the highest is never used, so that nobody who can only serve old files brings back what was taken down.
"""

from __future__ import annotations

import time

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import (
    DEAD,
    EXPIRED,
    FRESH,
    INDEX_NAME,
    MOST_INDEX_BYTES,
    MOST_SHARD_BYTES,
    Index,
    Shard,
    shard_name,
)
from publisher.resolver.errors import DeadlineError, FetchError
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.trust.signatures import verified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.contract.manifest import Record
    from publisher.resolver.system.notes import Warnings
    from publisher.resolver.transfer.sources import Source
    from publisher.resolver.trust.manifest_cache import ManifestCache
    from publisher.resolver.trust.poll_schedule import PollSchedule

    Check = Callable[[bytes, Mapping[str, bytes]], bytes]

KEPT = "the last good copy"
"""What the cache's copy is called where a source is named."""


class TrustedManifest:
    """The index that holds, and the way to its shards.

    Attributes:
        index: the verified index.
        source: the place it came from, as given, or :data:`KEPT`.
        age: ``fresh``, ``expired`` or ``dead``.
        asked: whether all places were asked just now, also those in the network.
        current: whether one of the places in the network, where there are any, gave an index that has not expired, just now or
            a short while ago; else whether this index is a place's.
    """

    def __init__(
        self,
        index: Index,
        *,
        source: str,
        age: str,
        places: Sequence[Source],
        kept: ManifestCache | None,
        notes: Warnings,
        asked: bool = True,
        current: bool = True,
    ) -> None:
        self.index = index
        self.source = source
        self.age = age
        self.asked = asked
        self.current = current
        self._places = sorted(places, key=lambda place: (place.doubted, place.text != source))
        self._kept = kept
        self._notes = notes
        self._shards: dict[str, Shard] = {}

    def record(self, key: str) -> Record | None:
        """The record that a name or an alias leads to, None where the manifest knows no such key.

        Raises:
            ManifestError: its shard is nowhere to be had, or damaged everywhere.
        """
        shard = self._shard_of(key)
        if shard is None:
            return None
        name = key if key in shard.records else shard.aliases.get(key)
        if not isinstance(name, str):
            return None
        home = shard if name in shard.records else self._shard_of(name)
        return None if home is None else home.record(name)

    def _shard_of(self, key: str) -> Shard | None:
        sha256 = self.index.shard_for(key)
        if sha256 is None:
            return None
        if sha256 not in self._shards:
            self._shards[sha256] = self._load(sha256)
        return self._shards[sha256]

    def _load(self, sha256: str) -> Shard:
        """The copy in the cache if there is one, since its name says its content; else from the places, the index's first."""
        content = None if self._kept is None else self._kept.shard(sha256)
        if content is not None:
            try:
                return Shard.parse(content, sha256)
            except ManifestError as error:
                self._notes.add(f"{KEPT}: {error}")
        if self._kept is None or all(place.local for place in self._places):
            return self._asked_for(sha256)
        from publisher.resolver.trust import shard_fetch  # noqa: PLC0415 - a warm answer has it

        return shard_fetch.once(sha256, self._kept, self._places, lambda: self._asked_for(sha256))

    def _asked_for(self, sha256: str) -> Shard:
        problems = []
        for place in self._places:
            try:
                content = _ask(place, shard_name(sha256), MOST_SHARD_BYTES, sha256).result(time.monotonic() + place.patience)
                shard = Shard.parse(content, sha256)
            except (FetchError, ManifestError) as error:
                problems.append(f"{place.text}: {error}")
                continue
            self._keep(sha256, content)
            return shard
        raise ManifestError(f"a shard of the manifest is not to be had: {'; '.join(problems) or 'no place to ask'}")

    def _keep(self, sha256: str, content: bytes) -> None:
        if self._kept is not None:
            try:
                self._kept.keep_shard(sha256, content)
            except OSError as error:
                self._notes.add(f"a shard was not kept: {error}")


def load(
    places: Sequence[Source],
    kept: ManifestCache | None,
    *,
    keys: Mapping[str, bytes],
    repository: str,
    now: float,
    notes: Warnings,
    check: Check = verified,
    refresh: float = 0.0,
    wait: bool = False,
) -> TrustedManifest:
    """Find the index that holds.

    Args:
        places: where to ask; of equal serials the first one's counts. Those in doubt are asked only where there is no other one
            and no copy that can be used.
        kept: last good copies, None where there is no cache.
        keys: the trusted keys, as :func:`publisher.resolver.trust.signatures.load_keys` gives them.
        repository: the name that the manifest must carry.
        now: this host's clock, seconds since the epoch.
        notes: gets what went wrong without being in the way.
        check: gives the payload of an envelope that one of the keys has signed.
        refresh: seconds in which places in the network are asked once; only where copies are kept.
        wait: whether another process that asks them is waited for though there is a copy.

    Raises:
        ManifestError: there is none that may be trusted; the reason names every place.
        ExpectedError: openssl cannot be used.
    """
    search = _ManifestLoader(places, kept, _IndexChecks(keys, repository, now, check), notes)
    if kept is None or all(place.local for place in places):
        return search.everywhere(None)
    from publisher.resolver.trust.poll_schedule import PollSchedule  # noqa: PLC0415 - not on a host that has all in CVMFS

    return search.in_turn(kept, PollSchedule(kept.directory, refresh, now), wait=wait)


class _IndexChecks:
    """Which envelopes are good, each looked at once."""

    def __init__(self, keys: Mapping[str, bytes], repository: str, now: float, check: Check) -> None:
        self.now = now
        self._check = check
        self._keys = keys
        self._repository = repository
        self._known: dict[bytes, Index | ManifestError] = {}

    def index(self, content: bytes) -> Index | ManifestError:
        """The index in an envelope, or why it is not to be used."""
        if content not in self._known:
            try:
                self._known[content] = Index.parse(self._check(content, self._keys), self._repository)
            except ManifestError as error:
                self._known[content] = error
        return self._known[content]

    def age(self, content: bytes | None) -> str | None:
        """The age of the index in an envelope, None where there is none to be used."""
        index = None if content is None else self.index(content)
        return index.age(self.now) if isinstance(index, Index) else None


class _ManifestLoader:
    """The best index of the places and the copy."""

    def __init__(self, places: Sequence[Source], kept: ManifestCache | None, judge: _IndexChecks, notes: Warnings) -> None:
        self._places = places
        self._kept = kept
        self._judge = judge
        self._notes = notes

    def in_turn(self, kept: ManifestCache, refresh: PollSchedule, *, wait: bool) -> TrustedManifest:
        """Ask places in the network if it is time, as one process of the host; who has a copy need not wait for another one."""
        usable = self._has_copy()
        if refresh.due(usable=usable):
            from publisher.resolver.system import locks  # noqa: PLC0415 - a warm answer asks nobody

            patience = 0.0 if usable and not wait else 5 + max(place.patience for place in self._places)
            try:
                kept.make()
                until = time.monotonic() + patience
                with locks.taken([refresh.lock], until, lambda: not refresh.due(usable=usable)) as held:
                    if held is not None:
                        return self.everywhere(refresh)
            except TimeoutError:
                pass
            except OSError as error:
                self._notes.add(f"the cache takes no manifest: {error}")
                return self.everywhere(None)
        local = [place for place in self._willing() if place.local]
        found, problems = _indexes(local)
        problems += [f"{place.text}: was asked a short while ago" for place in self._places if not (usable or place.local)]
        return self._best(found, problems, asked=False, answered=refresh.answered())

    def everywhere(self, refresh: PollSchedule | None) -> TrustedManifest:
        """Ask all places, and have ``refresh`` remember it."""
        found, problems = _indexes(self._willing())
        remote = {place.text for place in self._places if not place.local}
        answered = any(text in remote and self._judge.age(content) == FRESH for text, content in found)
        if refresh is None:
            return self._best(found, problems, asked=True, answered=answered)
        try:
            return self._best(found, problems, asked=True, answered=answered)
        finally:
            try:
                refresh.done(answered=answered)
            except OSError as error:  # the next job asks as well
                self._notes.add(f"that the manifest was asked for cannot be remembered: {error}")

    def _has_copy(self) -> bool:
        return self._kept is not None and self._judge.age(self._kept.index()) in (FRESH, EXPIRED)

    def _willing(self) -> Sequence[Source]:
        """The places to ask."""
        willing = [place for place in self._places if not place.doubted]
        return willing if willing or self._has_copy() else self._places

    def _best(self, found: list[tuple[str, bytes]], problems: list[str], *, asked: bool, answered: bool) -> TrustedManifest:
        copy = None if self._kept is None else self._kept.index()
        best: tuple[Index, str, bytes] | None = None
        for text, content in [*found, *([] if copy is None else [(KEPT, copy)])]:
            index = self._judge.index(content)
            if isinstance(index, ManifestError):
                problems.append(f"{text}: {index}")
            elif best is None or index.serial > best[0].serial:
                best = index, text, content
        if best is None:
            raise ManifestError(f"no manifest can be used: {'; '.join(problems) or 'no place to ask'}")
        index, text, content = best
        for problem in problems:
            self._notes.add(problem)
        if self._kept is not None and content != copy:
            _keep_index(self._kept, index, content, self._notes)
        return TrustedManifest(
            index,
            source=text,
            age=_age(index, text, self._judge.now, self._notes),
            places=self._places,
            kept=self._kept,
            notes=self._notes,
            asked=asked,
            current=answered or (text != KEPT and all(place.local for place in self._places)),
        )


def _indexes(places: Sequence[Source]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Every place's ``index.json``, asked for at the same time, and why there is none from others."""
    asked = [(place, time.monotonic() + place.patience, _ask(place, INDEX_NAME, MOST_INDEX_BYTES)) for place in places]
    found, problems = [], []
    for place, until, attempt in asked:
        is_late = False
        try:
            found.append((place.text, attempt.result(until)))
        except FetchError as error:  # one silent place must not take the others' answers along
            problems.append(f"{place.text}: {error}")
            is_late = isinstance(error, DeadlineError)
        if place.outage is not None:
            place.doubted = is_late
            (place.outage.begin if is_late else place.outage.end)()
    return found, problems


def _ask(place: Source, name: str, most: int, sha256: str | None = None) -> ForkedCall:
    """A small file of a place; one that has no sha256 is one that changes."""
    return ForkedCall(lambda: place.read(name, most, sha256, fresh=sha256 is None))


def _keep_index(kept: ManifestCache, index: Index, content: bytes, notes: Warnings) -> None:
    try:
        kept.keep_index(content, index.shards)
    except OSError as error:
        notes.add(f"the manifest's index was not kept: {error}")


def _age(index: Index, text: str, now: float, notes: Warnings) -> str:
    age = index.age(now)
    if age in (EXPIRED, DEAD):
        day = time.strftime("%Y-%m-%d", time.gmtime(index.expires))
        notes.warn(f"the manifest (serial {index.serial}, from {text}) expired on {day}, and there is no fresher one")
    return age
