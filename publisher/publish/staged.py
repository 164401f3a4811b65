"""Built entries that wait for their transaction, and what is to be cloned for them instead of unpacked.

A repository that clones does so when a transaction is opened, and one tree only (``cvmfs_server transaction -T``). So the clone
comes first in its transaction, and entries with a clone go into different transactions where that pays: one more costs a second
and a half, unpacking and publishing an image of 65,000 files 22 s. Others share the transaction with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from publisher.build import patch_clone
from publisher.errors import PublishedManifestError
from publisher.fileindex.external_sort import by_path
from publisher.fileindex.format import read_file_index
from publisher.state import paths, transitions
from publisher.targets import published_index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from publisher.build.patch_clone import ClonePatch
    from publisher.contract.records import Version
    from publisher.fileindex.format import IndexedFile
    from publisher.plan.model import PlanItem, PlatformTarget
    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository


@dataclass(frozen=True)
class BuiltTarget:
    """A target with what was built for it; ``built`` is None where it is published already and only gets a name."""

    target: PlatformTarget
    built: BuiltImage | None

    def version(self, formats: Collection[str], now: int, standing: Version | None = None) -> Version:
        """What the manifest will say of it; ``standing`` is the published version whose file index it has, None for its own."""
        if self.built is not None and self.target.adopted is not None:
            return transitions.with_sif(self.target.adopted, self.built, formats, now)
        if self.built is not None:
            with self.built.file_index.open("rb") as file:
                file_index = hashlib.file_digest(file, "sha256").hexdigest()
            version = transitions.built_version(self.target.digest, self.built, formats, now, file_index)
            return version if standing is None else transitions.indexed_as(version, standing)
        if self.target.published is None:
            raise AssertionError("a target without a published version has been built")
        return transitions.renewed_version(self.target.published, formats, now)


_WORTH = 5000
"""Paths whose unpacking and publishing take as long as one more transaction does."""


@dataclass(frozen=True)
class StagedClone:
    """That a sandbox is to be made of a published one: paths of both, and how they differ."""

    source: str
    sandbox: str
    made_of: ClonePatch

    @property
    def pays(self) -> bool:
        """Whether it is worth a transaction of its own."""
        return self.made_of.kept >= _WORTH


@dataclass(frozen=True)
class StagedEntry:
    """An entry whose SIFs are all in the origin: it waits for its transaction, which can begin with one clone."""

    item: PlanItem
    made: tuple[BuiltTarget, ...]
    clone: StagedClone | None = None

    def whole(self) -> StagedEntry:
        """The same without a clone: all is unpacked."""
        return replace(self, clone=None)

    def is_unpacked(self, part: BuiltTarget) -> bool:
        """Whether the sandbox of a part is none that the transaction begins with."""
        return self.clone is None or self.clone.sandbox != paths.sandbox_path(part.target.digest)

    @property
    def unpacked_size(self) -> int:
        """Bytes that its sandboxes will take."""
        return sum(made.built.unpacked_size for made in self.made if made.built is not None and made.target.adopted is None)


def ready(repository: Repository, snapshot: Snapshot, item: PlanItem, made: tuple[BuiltTarget, ...]) -> StagedEntry:
    """An entry that can be published, with the clone that saves most of the unpacking, where one is possible.

    Args:
        repository: where it will be published.
        snapshot: what is published: an image's predecessor is the version that its name means now.
        item: the entry.
        made: its targets, built.
    """
    found = []
    for part in made if repository.clones and "sandbox" in item.entry.formats else ():
        path = paths.sandbox_path(part.target.digest)
        before = _predecessor(snapshot, item.entry.name, part)
        if before is None or before.sandbox is None or part.built is None or repository.exists(path):
            continue
        made_of = _difference(repository, before, part.built)
        if made_of is not None:
            found.append(StagedClone(before.sandbox, path, made_of))
    return StagedEntry(item, made, max(found, key=lambda clone: clone.made_of.kept, default=None))


def _difference(repository: Repository, before: Version, built: BuiltImage) -> ClonePatch | None:
    """How a built image differs from a published version, None where they have little in common."""
    if before.file_index is None:
        return None
    try:
        published_index.check(repository, before)
        published, made = partial(published_index.lines, repository, before), partial(_lines, built.file_index)
        return patch_clone.similar(published, made, ordered=partial(by_path, scratch=built.file_index.parent))
    except (OSError, PublishedManifestError):  # damaged, or no room to sort in: then all is unpacked
        return None


def _predecessor(snapshot: Snapshot, name: str, part: BuiltTarget) -> Version | None:
    record = snapshot.records.get(name)
    versions = () if record is None else record.platforms.get(paths.platform_key(part.target.platform), ())
    return versions[0] if versions else None


def _lines(file_index: Path) -> Iterator[IndexedFile]:
    with file_index.open("rb") as file:
        yield from read_file_index(file)
