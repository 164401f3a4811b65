"""A repository and an origin, with published images that were never built: for tests without outside programs."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.errors import RepositoryError
from publisher.plan.make import make_plan
from publisher.publish.manifest.manifest_copy import ManifestCopy
from publisher.publish.publication import Publication, PublishResult
from publisher.publish.staged import StagedEntry
from publisher.state import paths
from publisher.state.signing import Signer, new_key
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.publisher.built_values import built, with_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedRandom
    from pathlib import Path

    from publisher.images.reader import Entry
    from publisher.plan.model import ResolvedReference
    from publisher.publish.manifest.witness import Witness
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Transaction

NOW = 1_800_000_000
NAME = "images.example.org"
INDEX = f"{paths.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}"


class _Clocked(DirectoryOrigin):
    """An origin that dates its objects by the test's clock."""

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        super().__init__(root)
        self._clock = clock

    def _store(self, name: str, fill: Callable[[BufferedRandom], None], sha256: str, size: int) -> bool:
        new = super()._store(name, fill, sha256, size)
        if new:
            os.utime(self.root / name, (self._clock(), self._clock()))
        return new


class Refusing(DirectoryRepository):
    """A repository in which ``path`` belongs to another user and cannot be removed."""

    def __init__(self, root: Path, path: str) -> None:
        super().__init__(root, NAME)
        self._path = path

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as transaction:
            remove = transaction.remove

            def refuse(path: str) -> None:
                if path == self._path:
                    raise RepositoryError(f"{path} belongs to another user")
                remove(path)

            transaction.remove = refuse  # type: ignore[method-assign]  # as a file system would
            yield transaction


class Place:
    """A repository, an origin, a key and a clock, in one directory."""

    def __init__(self, where: Path) -> None:
        self.where = where
        new_key(where / "key")
        self.signer = Signer(where / "key")
        self.now = NOW
        self.move(where)
        self.broken: set[str] = set()
        self.sweep_interval = 0.0
        self.tables = False  # whether builds have chunk tables
        self.witness: Witness | None = None
        self.watch: Callable[[Path], None] = lambda _: None

    def move(self, where: Path) -> None:
        """Go on with the files in another directory, such as a copy."""
        self.repository = DirectoryRepository(where / "cvmfs", NAME)
        self.origin: DirectoryOrigin = _Clocked(where / "osdf", lambda: self.now)
        self.copy = ManifestCopy(where / "state" / "published")

    def publication(self, origin: DirectoryOrigin | None = None) -> Publication:
        return Publication(
            self.repository,
            origin or self.origin,
            self.signer,
            clock=lambda: self.now,
            copy=self.copy,
            unpack=self.unpack,
            sweep_interval=self.sweep_interval,
            who="tester@host",
            witness=self.witness,
        )

    def unpack(self, sif: Path, target: Path, *, deadline: float, size: int) -> None:
        assert deadline > 0
        assert size > 0
        self.watch(target)
        target.mkdir()
        (target / "content").write_bytes(sif.read_bytes())
        if sif.read_text() in self.broken:
            raise RepositoryError("the sandbox cannot be unpacked")

    def stage(self, entry: Entry, answer: ResolvedReference, snapshot: Snapshot) -> StagedEntry:
        (item,) = make_plan([entry], {entry.name: answer}, snapshot).items
        builds = {target.digest: built(target.content, self.where) for target in item.targets if target.published is None}
        return StagedEntry(item, {digest: with_table(build) if self.tables else build for digest, build in builds.items()})

    def publish(self, publication: Publication, *wanted: tuple[Entry, ResolvedReference]) -> PublishResult:
        snapshot, _ = publication.open()
        entries = [self.stage(entry, answer, snapshot) for entry, answer in wanted]
        for entry in entries:
            for build in entry.builds.values():
                if "sif" in entry.item.entry.formats:
                    publication.store_sif(build)
        return publication.publish(snapshot, entries)

    def index(self) -> manifest.Index:
        content = self.repository.read(INDEX)
        assert content is not None
        return manifest.Index.parse(manifest.unseal(content)[0], NAME)

    def in_both(self) -> bytes:
        """Return the index; assert that repository and origin have the same one, with all its shards."""
        content = self.repository.read(INDEX)
        assert content is not None
        assert content == self.origin.read(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}")
        for sha256 in filter(None, self.index().shards):
            name = manifest.shard_name(sha256)
            shard = self.repository.read(f"{paths.REPOSITORY_MANIFEST}/{name}")
            assert shard is not None
            assert shard == self.origin.read(f"{paths.ORIGIN_MANIFEST}/{name}")
        return content
