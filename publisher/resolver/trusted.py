"""Which manifest holds: the highest serial that a trusted key has signed, wherever it came from.

All places are asked at the same time, each with a deadline. One that is silent, broken or lagging behind is no error as long
as another one, or the last good copy, has an index. A serial lower than the highest is never used, so that nobody who can
only serve old files brings back what was taken down.
"""

from __future__ import annotations

import time

from publisher.resolver.attempt import Attempt
from publisher.resolver.errors import FetchError, ManifestError
from publisher.resolver.manifest import (
    DEAD,
    EXPIRED,
    INDEX_NAME,
    MOST_INDEX_BYTES,
    MOST_SHARD_BYTES,
    Index,
    Shard,
    shard_name,
)
from publisher.resolver.verify import verified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.resolver.kept import Kept
    from publisher.resolver.manifest import Record
    from publisher.resolver.notes import Notes
    from publisher.resolver.sources import Source

KEPT = "the last good copy"
"""What the cache's copy is called where a source is named."""


class Trusted:
    """The index that holds, and the way to its shards.

    Attributes:
        index: the verified index.
        source: the place it came from, as given, or :data:`KEPT`.
        age: ``fresh``, ``expired`` or ``dead``.
    """

    def __init__(self, index: Index, *, source: str, age: str, places: Sequence[Source], kept: Kept | None, notes: Notes) -> None:
        self.index = index
        self.source = source
        self.age = age
        self._places = sorted(places, key=lambda place: place.text != source)
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
        problems = []
        for place in self._places:
            try:
                content = _ask(place, shard_name(sha256), MOST_SHARD_BYTES).result(time.monotonic() + place.patience)
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
    kept: Kept | None,
    *,
    keys: Mapping[str, bytes],
    repository: str,
    now: float,
    notes: Notes,
    check: Callable[[bytes, Mapping[str, bytes]], bytes] = verified,
) -> Trusted:
    """Find the index that holds.

    Args:
        places: where to ask; of equal serials the first one's counts.
        kept: last good copies, None where there is no cache.
        keys: the trusted keys, as :func:`publisher.resolver.verify.load_keys` gives them.
        repository: the name that the manifest must carry.
        now: this host's clock, seconds since the epoch.
        notes: gets what went wrong without being in the way.
        check: gives the payload of an envelope that one of the keys has signed.

    Raises:
        ManifestError: there is none that may be trusted; the reason names every place.
        ResolverError: openssl cannot be used.
    """
    found, problems = _indexes(places)
    copy = None if kept is None else kept.index()
    if copy is not None:
        found.append((KEPT, copy))
    best: tuple[Index, str, bytes] | None = None
    checked: dict[bytes, Index | ManifestError] = {}
    for text, content in found:
        if content not in checked:
            checked[content] = _checked(content, keys, repository, check)
        index = checked[content]
        if isinstance(index, ManifestError):
            problems.append(f"{text}: {index}")
        elif best is None or index.serial > best[0].serial:
            best = index, text, content
    if best is None:
        raise ManifestError(f"no manifest can be used: {'; '.join(problems) or 'no place to ask'}")
    index, text, content = best
    for problem in problems:
        notes.add(problem)
    if kept is not None and content != copy:
        _keep_index(kept, index, content, notes)
    return Trusted(index, source=text, age=_age(index, text, now, notes), places=places, kept=kept, notes=notes)


def _indexes(places: Sequence[Source]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Every place's ``index.json``, asked for at the same time, and why there is none from others."""
    asked = [(place, time.monotonic() + place.patience, _ask(place, INDEX_NAME, MOST_INDEX_BYTES)) for place in places]
    found, problems = [], []
    for place, until, attempt in asked:
        try:
            found.append((place.text, attempt.result(until)))
        except FetchError as error:  # noqa: PERF203 - one silent place must not take the others' answers along
            problems.append(f"{place.text}: {error}")
    return found, problems


def _ask(place: Source, name: str, most: int) -> Attempt:
    return Attempt(lambda: place.read(name, most))


def _checked(
    content: bytes,
    keys: Mapping[str, bytes],
    repository: str,
    check: Callable[[bytes, Mapping[str, bytes]], bytes],
) -> Index | ManifestError:
    """The index in an envelope, or why it is not to be used."""
    try:
        return Index.parse(check(content, keys), repository)
    except ManifestError as error:
        return error


def _keep_index(kept: Kept, index: Index, content: bytes, notes: Notes) -> None:
    try:
        kept.keep_index(content, index.shards)
    except OSError as error:
        notes.add(f"the manifest's index was not kept: {error}")


def _age(index: Index, text: str, now: float, notes: Notes) -> str:
    age = index.age(now)
    if age in (EXPIRED, DEAD):
        day = time.strftime("%Y-%m-%d", time.gmtime(index.expires))
        notes.warn(f"the manifest (serial {index.serial}, from {text}) expired on {day}, and there is no fresher one")
    return age
