"""Keeps earlier revisions of the manifest until nobody can still be reading their shards.

A client that has read an index may ask for its shards a while later, and a cache in front of an origin serves an old index for
hours. So a transaction that replaces ``index.json`` keeps the old bytes as ``revisions/<serial>.json``, and every index names the
serial of the one before it. That chain is signed, needs no listing, and says when each revision was superseded: when the next
one was generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.manifest import shard_name
from publisher.errors import PublishedManifestError
from publisher.state.paths import REPOSITORY_MANIFEST, revision_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[str], bytes | None]
    """Returns the content of a file of the repository, None where there is no such file."""


@dataclass(frozen=True)
class SupersededRevision:
    """A revision of the manifest that a later one replaced.

    Attributes:
        serial: its serial.
        superseded: when it was replaced, seconds since the epoch.
        shards: sha256 of the shards that it names.
    """

    serial: int
    superseded: int
    shards: frozenset[str]


def superseded_revisions(read: Read) -> Iterator[SupersededRevision]:
    """Yield the earlier revisions that the repository still has, the newest first.

    Args:
        read: reads a file of the repository.

    Raises:
        PublishedManifestError: a revision is damaged.
    """
    index = _read_index(read, f"{REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}")
    while index is not None:
        previous = _read_index(read, revision_path(index.previous)) if index.previous else None
        if previous is not None:
            yield SupersededRevision(previous.serial, index.generated, _shards(previous))
        index = previous


def current_shards(read: Read) -> frozenset[str]:
    """Return the sha256 of the shards that the current index names."""
    index = _read_index(read, f"{REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}")
    return frozenset() if index is None else _shards(index)


def all_shards(read: Read) -> set[str]:
    """Return the sha256 of the shards that any revision names, the current one included.

    Raises:
        PublishedManifestError: a revision is damaged.
    """
    return set(current_shards(read)).union(*(revision.shards for revision in superseded_revisions(read)))


def removable(read: Read, time: int) -> list[str]:
    """Return the paths of the revisions superseded at ``time`` or before, and of the shards that only those name.

    Nothing is removable where a revision is damaged.
    """
    needed, old = set(current_shards(read)), []
    try:
        for revision in superseded_revisions(read):
            if revision.superseded <= time:
                old.append(revision)
            else:
                needed |= revision.shards
    except PublishedManifestError:
        return []
    shards = {sha256 for revision in old for sha256 in revision.shards} - needed
    indexes = [revision_path(revision.serial) for revision in old]
    return indexes + [f"{REPOSITORY_MANIFEST}/{shard_name(sha256)}" for sha256 in sorted(shards)]


def _read_index(read: Read, path: str) -> manifest.Index | None:
    content = read(path)
    try:
        return None if content is None else manifest.Index.parse(manifest.unseal(content)[0])
    except ManifestError as error:
        raise PublishedManifestError(f"{path} is damaged: {error.reason}", hint="if it is below revisions/, remove it") from error


def _shards(index: manifest.Index) -> frozenset[str]:
    """Return the sha256 of all files that an index names: the shards, and the outcomes, which lie beside them."""
    return frozenset(sha256 for sha256 in (*index.shards, index.outcomes) if sha256 is not None)
