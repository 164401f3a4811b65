"""Making built images public, in the one order that never lets a manifest name what is not there.

SIF in the origin and verified -> one transaction of the repository with sandboxes, links and manifest -> manifest in the
origin, shards first, index last (docs/design.md, "Order of commits"). Every step can be repeated; a kill at any point costs a
rerun: :meth:`Publication.open` finishes what was begun.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from publisher.build import patch_clone
from publisher.build import unpack as sandbox
from publisher.contract.records import Sif
from publisher.errors import PublisherError, RemovalError, RepositoryError, SpaceError
from publisher.plan.model import tag_reference
from publisher.publish.manifest_store import ManifestStore
from publisher.publish.staged import ready
from publisher.state import paths as layout
from publisher.state import transitions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from publisher.contract.records import Record, Version
    from publisher.plan.model import PlanItem
    from publisher.publish.staged import BuiltTarget, StagedClone, StagedEntry
    from publisher.state.built import BuiltImage
    from publisher.state.signing import PublicKey, Signer
    from publisher.state.snapshot import Revision, Snapshot
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository, Transaction

    class Unpack(Protocol):
        """What makes a sandbox of a SIF."""

        def __call__(self, sif: Path, target: Path, *, deadline: float, size: int) -> None:
            """Make the directory ``target``, of files of ``size`` bytes, within ``deadline`` seconds."""


@dataclass
class PublishResult:
    """What a transaction did.

    Attributes:
        snapshot: what is published now.
        failed: entries that did not get into it, each with its reason.
        behind: why the origin's manifest could not be brought up to date; the next run does it. None where it could.
        stuck: paths that were to be taken away and could not be, each with its reason.
    """

    snapshot: Snapshot
    failed: dict[str, PublisherError] = field(default_factory=dict)
    behind: PublisherError | None = None
    stuck: dict[str, PublisherError] = field(default_factory=dict)


class Publication:
    """The repository, the origin and the key that signs what is in them.

    Args:
        repository: where sandboxes, links and the manifest go.
        origin: where SIFs and the manifest go.
        signer: signs the manifest.
        trusted: further keys that may have signed the published manifest (one that is being rotated out).
        clock: seconds since the epoch.
        deadline: seconds that unpacking one sandbox may take.
        grace: seconds that a name which leaves is still used.
        revision_grace: seconds that earlier revisions of the manifest stay, for who still reads them.
        revision_turn: every so many revisions it is looked for those whose time is over.
        unpack: makes a sandbox of a SIF: as :func:`publisher.build.unpack.unpack`.
    """

    def __init__(
        self,
        repository: Repository,
        origin: Origin,
        signer: Signer,
        *,
        clock: Callable[[], float],
        trusted: tuple[PublicKey, ...] = (),
        deadline: float = 3600.0,
        grace: float = 14 * 86400.0,
        revision_grace: float = 14 * 86400.0,
        revision_turn: int = 16,
        unpack: Unpack = sandbox.unpack,
    ) -> None:
        self._repository = repository
        self._origin = origin
        self._clock = clock
        self._deadline = deadline
        self._grace = grace
        self._unpack = unpack
        self._manifests = ManifestStore(
            repository, origin, signer, trusted=(signer.public, *trusted), clock=clock, grace=revision_grace, turn=revision_turn
        )

    @property
    def repository(self) -> Repository:
        """Where sandboxes, links and the manifest are."""
        return self._repository

    @property
    def origin(self) -> Origin:
        """Where SIFs and the manifest are."""
        return self._origin

    def open(self) -> tuple[Snapshot, list[str]]:
        """Finish or discard what killed runs left behind; what is published, and a line for each thing done.

        Raises:
            RepositoryError, OriginError: they cannot be used.
            PublishedManifestError: the published manifest cannot be trusted.
        """
        done = self._repository.recover() + self._origin.recover()
        snapshot, more = self._manifests.open()
        return snapshot, done + more

    def due(self, snapshot: Snapshot) -> str | None:
        """Why the manifest must be published anew even though nothing changed; None where it need not."""
        return self._manifests.due(snapshot)

    def in_step(self, snapshot: Snapshot) -> bool:
        """Whether the origin's manifest is just the one that ``snapshot`` was read from, or made by :meth:`publish`."""
        return self._manifests.in_step(snapshot)

    def tell_all(self, snapshot: Snapshot) -> None:
        """Give the origin again what it lacks of the published manifest, which is ``snapshot``'s.

        Raises:
            OriginError, SpaceError, RepositoryError: it does not take it, or another run has published meanwhile.
        """
        self._manifests.tell_all(snapshot)

    def store(self, built: BuiltImage) -> Sif:
        """Put a SIF into the origin, verified.

        Raises:
            OriginError, SpaceError: it could not be stored.
        """
        path = layout.sif_path(built.sha256)
        self._origin.put(path, built.sif, sha256=built.sha256, size=built.size)
        return Sif(path, built.sha256, built.size)

    def ready(self, snapshot: Snapshot, item: PlanItem, made: tuple[BuiltTarget, ...]) -> StagedEntry:
        """An entry that is built and stored, as :meth:`publish` takes it: see :func:`publisher.publish.staged.ready`."""
        return ready(self._repository, snapshot, item, made)

    def publish(self, snapshot: Snapshot, ready: list[StagedEntry], leaving: Iterable[str] = ()) -> PublishResult:
        """One transaction for all of ``ready``, and the manifest that names them; with none, the manifest alone.

        Names that are ``leaving`` are marked in the manifest; their data stays.

        An entry whose sandbox cannot be made is left out and reported; the others are published.

        Raises:
            RepositoryError: nothing of it is published.
            SpaceError: no room left; nothing of it is published.
        """
        result = PublishResult(snapshot)
        published: Revision | None = None
        with contextlib.suppress(_NothingLeftError), self._repository.transaction() as transaction:
            changed = self._make_all(transaction, snapshot, ready, result.failed)
            now = int(self._clock())
            changed |= {name: transitions.leaving(snapshot.records[name], now, now + int(self._grace)) for name in leaving}
            if ready and not changed:
                raise _NothingLeftError
            published = self._manifests.write(transaction, snapshot.with_records(changed))
        return result if published is None else self._announced(published, result)

    def change(
        self,
        snapshot: Snapshot,
        changed: Mapping[str, Record],
        removals: Iterable[str] = (),
        *,
        relink: bool = True,
        links: Mapping[str, str] | None = None,
    ) -> PublishResult:
        """One transaction that replaces records, makes their links show what they mean now, and takes paths away.

        Args:
            snapshot: what is published.
            changed: name -> its record from now on; one without versions goes.
            removals: paths in the repository. One that cannot be taken away holds up none of the others, nor the records.
            relink: links change too.
            links: path -> target of further links, which no record wants.

        Raises:
            RepositoryError, SpaceError: nothing of it is published.
        """
        result = PublishResult(snapshot)
        after = replace(snapshot.with_records(changed), lost=transitions.loss(snapshot, changed, int(self._clock())))
        wanted = list(removals)
        revision: Revision | None = None
        while revision is None:
            try:
                with self._repository.transaction() as transaction:
                    for record in changed.values() if relink else ():
                        self._link_all(transaction, record, snapshot.records.get(record.name))
                    for path, target in (links or {}).items():
                        transaction.link(path, target)
                    revision = self._manifests.write(transaction, after)
                    result.stuck |= _taken_away(transaction, [path for path in wanted if path not in result.stuck])
            except RemovalError as error:
                if not error.stuck.keys() <= {*wanted}:  # a link, say, which must not stay
                    raise
                result.stuck |= error.stuck
                revision = revision if error.published else None
        return self._announced(revision, result)

    def _announced(self, revision: Revision, result: PublishResult) -> PublishResult:
        """Tell the origin what the repository shows already."""
        result.snapshot = revision.snapshot
        try:
            self._manifests.announce(revision)
        except PublisherError as error:
            result.behind = error
        return result

    # --- one transaction

    def _make_all(
        self, transaction: Transaction, snapshot: Snapshot, ready: list[StagedEntry], failed: dict[str, PublisherError]
    ) -> dict[str, Record]:
        changed: dict[str, Record] = {}
        made: set[str] = set()
        for one in sorted(ready, key=lambda one: one.clone is None):
            name = one.item.entry.name
            try:
                self._put_all(transaction, one, made)
                record = self._record(one, snapshot, made)
                self._link_all(transaction, record, snapshot.records.get(name))
                changed[name] = record
                for version in _indexed_anew(record, snapshot, made):
                    changed |= transitions.indexed_alike({**snapshot.records, **changed}.values(), version)
            except SpaceError:
                raise
            except PublisherError as error:
                error.image = name
                failed[name] = error
        sandboxes = any(path.startswith(f"{layout.IMAGES}/") for path in made)
        if sandboxes and not self._repository.exists(f"{layout.IMAGES}/{layout.CATALOG_MARK}"):
            transaction.write(f"{layout.IMAGES}/{layout.CATALOG_MARK}", b"")
        return changed

    def _put_all(self, transaction: Transaction, one: StagedEntry, made: set[str]) -> None:
        """The sandboxes of an entry, straight from their SIFs into the open transaction, and the file indexes.

        A published sandbox stays as it is, and its index with it; a new one has the index of its own build, whatever stood there.
        """
        own: list[str] = []
        indexes: dict[str, Path] = {}
        try:
            for part in sorted(one.made, key=one.is_unpacked):
                if part.built is None or part.target.adopted is not None:
                    continue
                index, path = layout.file_index_path(part.target.digest), layout.sandbox_path(part.target.digest)
                if "sandbox" in one.item.entry.formats and path not in made and not self._repository.exists(path):
                    own.append(path)
                    if one.is_unpacked(part) or not self._cloned(transaction, part.built, one.clone):
                        size = part.built.unpacked_size
                        self._unpack(part.built.sif, transaction.tree(path), deadline=self._deadline, size=size)
                if index not in made and (path in own or not self._repository.exists(index)):
                    indexes[index] = part.built.file_index
            for index, content in indexes.items():
                transaction.write(index, content)
        except PublisherError:
            for path in (*own, *(index for index in indexes if not self._repository.exists(index))):
                transaction.remove(path)
            raise
        made.update(own, indexes)

    def _cloned(self, transaction: Transaction, built: BuiltImage, clone: StagedClone | None) -> bool:
        """Whether the sandbox could be made of another one; where not, nothing is left of the attempt."""
        tree = None if clone is None else transaction.clone(clone.source, clone.sandbox)
        if tree is None or clone is None:
            return False
        try:
            patch_clone.change(built.sif, tree, clone.made_of, deadline=self._deadline)
        except RepositoryError:
            transaction.remove(clone.sandbox)
            return False
        return True

    def _link_all(self, transaction: Transaction, record: Record, before: Record | None) -> None:
        """The links of a name; one that would go on to show an image that the name means no more goes away."""
        shown = transitions.links(record)
        for path, target in shown.items():
            transaction.link(path, target)
        platforms = [*record.platforms, *(before.platforms if before is not None else ())]
        for path in {record.name, *layout.link_paths(record.name, platforms)}:
            if path not in shown:
                transaction.remove(path)

    def _record(self, one: StagedEntry, snapshot: Snapshot, made: Collection[str]) -> Record:
        entry, now = one.item.entry, int(self._clock())
        current = {
            layout.platform_key(part.target.platform): part.version(entry.formats, now, _standing(part, snapshot, made))
            for part in one.made
        }
        record = transitions.succeeded(snapshot.records.get(entry.name), tag_reference(entry), one.item.digest, current, entry.name)
        return transitions.leaving(record, now, now + int(self._grace), one.item.leaving)


def _standing(part: BuiltTarget, snapshot: Snapshot, made: Collection[str]) -> Version | None:
    """The published version of a manifest that was built once more, for another form; None where its file index does not stay."""
    if layout.sandbox_path(part.target.digest) in made:
        return None
    found = snapshot.version_of(part.target.digest)
    return found if found is not None and found.file_index is not None else None


def _indexed_anew(record: Record, snapshot: Snapshot, made: Collection[str]) -> list[Version]:
    """The versions whose sandbox was just made, where a file index of their manifest was published before, and another one."""
    found = []
    for version in (versions[0] for versions in record.platforms.values()):
        before = snapshot.version_of(version.digest) if version.sandbox in made else None
        if before is not None and before.file_index not in {None, version.file_index}:
            found.append(version)
    return found


def _taken_away(transaction: Transaction, paths: Iterable[str]) -> dict[str, PublisherError]:
    """Ask for removals; those that are refused at once, each with its reason."""
    stuck: dict[str, PublisherError] = {}
    for path in paths:
        try:
            transaction.remove(path)
        except RepositoryError as error:
            stuck[path] = error
    return stuck


class _NothingLeftError(Exception):
    """Every entry of a transaction failed: discard it, publish nothing."""
