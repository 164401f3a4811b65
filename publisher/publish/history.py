"""Earlier revisions of the manifest, so that their shards go when nobody can still be reading them.

Who read an index may ask for its shards a while later; and a cache in front of an origin serves an old index for hours. So a
transaction that replaces ``index.json`` keeps the old bytes as ``revisions/<serial>.json``, and every index names the serial of
the one before it. That chain is signed, needs no listing, and says when each revision was superseded: when the next was made.
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


@dataclass(frozen=True)
class RevisionHistory:
    """A revision that another one took the place of.

    Attributes:
        serial: its own.
        superseded: when, seconds since the epoch.
        shards: sha256 of those that it names.
    """

    serial: int
    superseded: int
    shards: frozenset[str]


def past(read: Read) -> Iterator[RevisionHistory]:
    """The earlier revisions that are kept, the newest first; ``read`` gives the content of a file of the repository.

    Raises:
        PublishedManifestError: one of them is damaged.
    """
    index = _index(read, f"{REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}")
    while index is not None:
        before = _index(read, revision_path(index.previous)) if index.previous else None
        if before is not None:
            yield RevisionHistory(before.serial, index.generated, _shards(before))
        index = before


def current(read: Read) -> frozenset[str]:
    """sha256 of the shards that the index names now."""
    index = _index(read, f"{REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}")
    return frozenset() if index is None else _shards(index)


def removable(read: Read, over: int) -> list[str]:
    """Paths in the repository of the revisions superseded at ``over`` or before, and of the shards that only those name.

    Where a revision is damaged nothing goes: it is in nobody's way.
    """
    kept, gone = set(current(read)), []
    try:
        for one in past(read):
            if one.superseded <= over:
                gone.append(one)
            else:
                kept |= one.shards
    except PublishedManifestError:
        return []
    shards = {sha256 for one in gone for sha256 in one.shards} - kept
    return [revision_path(one.serial) for one in gone] + [f"{REPOSITORY_MANIFEST}/{shard_name(one)}" for one in sorted(shards)]


def named(read: Read) -> set[str]:
    """sha256 of the shards that any revision names, the current one among them.

    Raises:
        PublishedManifestError: a revision is damaged.
    """
    return set(current(read)).union(*(one.shards for one in past(read)))


def _index(read: Read, path: str) -> manifest.Index | None:
    content = read(path)
    try:
        return None if content is None else manifest.Index.parse(manifest.unseal(content)[0])
    except ManifestError as error:
        raise PublishedManifestError(f"{path} is damaged: {error.reason}", hint="if it is below revisions/, remove it") from error


def _shards(index: manifest.Index) -> frozenset[str]:
    return frozenset(sha256 for sha256 in index.shards if sha256 is not None)
