"""Built entries that wait for their transaction, and the sandboxes that are cloned for them rather than unpacked.

A repository can clone one tree when a transaction is opened (``cvmfs_server transaction -T``). So a clone comes first in its
transaction, and an entry with a clone gets a transaction of its own where that is faster: a transaction costs about 1.5 s, while
unpacking and publishing an image of 65,000 files takes 22 s. Entries without a clone share the transaction.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from publisher.build.sandbox import patch_clone
from publisher.errors import PublishedManifestError
from publisher.fileindex.external_sort import by_path
from publisher.fileindex.format import read_raw_lines
from publisher.state import paths
from publisher.targets import published_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from publisher.build.sandbox.patch_clone import ClonePatch
    from publisher.contract.records import Version
    from publisher.plan.model import PlanItem, PlatformTarget
    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository

_log = logging.getLogger(__name__)

_WORTHWHILE = 5000
"""Number of paths that take as long to unpack and publish as one more transaction does."""


@dataclass(frozen=True)
class StagedClone:
    """A sandbox to make from a clone of a published one.

    Attributes:
        source: path in the repository of the published sandbox.
        sandbox: path in the repository of the new sandbox.
        patch: what turns the one into the other.
    """

    source: str
    sandbox: str
    patch: ClonePatch

    @property
    def is_worthwhile(self) -> bool:
        """Return whether the clone is worth a transaction of its own."""
        return self.patch.unchanged >= _WORTHWHILE


@dataclass(frozen=True)
class StagedEntry:
    """An entry with all its SIFs in the origin, which waits for its transaction.

    Attributes:
        item: the decision on the entry, with its targets.
        builds: digest of an image manifest -> its build; targets that are published already have none.
        clone: the clone that its transaction begins with, None to unpack all sandboxes.
    """

    item: PlanItem
    builds: Mapping[str, BuiltImage]
    clone: StagedClone | None = None

    @property
    def name(self) -> str:
        """Return the CVMFS name of the entry."""
        return self.item.entry.name

    @property
    def unpacked_size(self) -> int:
        """Return the bytes that the new sandboxes of the entry take."""
        new = [target.digest for target in self.item.targets if target.adopted is None]
        return sum(self.builds[digest].unpacked_size for digest in new if digest in self.builds)

    def without_clone(self) -> StagedEntry:
        """Return the same entry with all its sandboxes unpacked."""
        return replace(self, clone=None)

    def is_cloned(self, target: PlatformTarget) -> bool:
        """Return whether the sandbox of a target is made from the clone."""
        return self.clone is not None and self.clone.sandbox == paths.sandbox_path(target.content)


def stage(repository: Repository, snapshot: Snapshot, item: PlanItem, builds: Mapping[str, BuiltImage]) -> StagedEntry:
    """Return an entry that is ready to be published, with the clone that saves the most unpacking, if any.

    Args:
        repository: where the entry will be published.
        snapshot: the published state: a sandbox is cloned from the version that the name means now.
        item: the decision on the entry.
        builds: digest of an image manifest -> its build.
    """
    clones = []
    for target in item.targets if repository.can_clone and "sandbox" in item.entry.formats else ():
        build, sandbox = builds.get(target.digest), paths.sandbox_path(target.content)
        before = predecessor(snapshot, item.entry.name, target)
        if before is None or before.sandbox is None or build is None or repository.exists(sandbox):
            continue
        patch = _patch(repository, before, build)
        if patch is not None:
            clones.append(StagedClone(before.sandbox, sandbox, patch))
    return StagedEntry(item, builds, max(clones, key=lambda clone: clone.patch.unchanged, default=None))


def predecessor(snapshot: Snapshot, name: str, target: PlatformTarget) -> Version | None:
    """Return the version that a name means now on the platform of a target; None if there is none."""
    record = snapshot.records.get(name)
    versions = () if record is None else record.platforms.get(paths.platform_key(target.platform), ())
    return versions[0] if versions else None


def _patch(repository: Repository, version: Version, build: BuiltImage) -> ClonePatch | None:
    """Return what turns a published version's sandbox into a build's, None where they have little in common."""
    if version.file_index is None:
        return None
    try:
        published_index.check(repository, version)
        if repository.keeps_xattrs and not published_index.knows_xattrs(repository, version):
            _log.info("%s is not cloned: its file index does not know extended attributes", version.sandbox)
            return None
        published, built = partial(published_index.raw_lines, repository, version), partial(_lines, build.file_index)
        return patch_clone.make_patch(published, built, ordered=partial(by_path, scratch=build.file_index.parent))
    except (OSError, PublishedManifestError) as error:  # damaged, or no space to sort in: unpack all instead
        _log.info("%s is not cloned: its file index cannot be compared: %s", version.sandbox, error)
        return None


def _lines(file_index: Path) -> Iterator[bytes]:
    with file_index.open("rb") as file:
        yield from read_raw_lines(file)
