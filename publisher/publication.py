"""Making built images public, in the one order that never lets a manifest name what is not there.

SIF in the origin and verified -> one transaction of the repository with sandboxes, links and manifest -> manifest in the
origin, shards first, index last (docs/design.md, "Order of commits"). Every step can be repeated; a kill at any point costs a
rerun: :meth:`Publication.open` finishes what was begun.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from publisher import cloning, layout, records, sandbox, withdrawal
from publisher.errors import PublisherError, RemovalError, RepositoryError, SpaceError
from publisher.manifests import Manifests
from publisher.plan import source_of
from publisher.ready import ready
from publisher.resolver.manifest import Sif

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from publisher.builders import BuiltImage
    from publisher.catalog import Catalog, Edition
    from publisher.origins import Origin
    from publisher.plan import Item
    from publisher.ready import Clone, Made, Ready
    from publisher.repositories import Repository, Transaction
    from publisher.resolver.manifest import Record
    from publisher.signing import PublicKey, Signer

    class Unpack(Protocol):
        """What makes a sandbox of a SIF."""

        def __call__(self, sif: Path, target: Path, *, deadline: float, size: int) -> None:
            """Make the directory ``target``, of files of ``size`` bytes, within ``deadline`` seconds."""


@dataclass
class Published:
    """What a transaction did.

    Attributes:
        catalog: what is published now.
        failed: entries that did not get into it, each with its reason.
        behind: why the origin's manifest could not be brought up to date; the next run does it. None where it could.
        stuck: paths that were to be taken away and could not be, each with its reason.
    """

    catalog: Catalog
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
        edition_grace: seconds that earlier editions of the manifest stay, for who still reads them.
        edition_turn: every so many editions it is looked for those whose time is over.
        unpack: makes a sandbox of a SIF: as :func:`publisher.sandbox.unpack`.
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
        edition_grace: float = 14 * 86400.0,
        edition_turn: int = 16,
        unpack: Unpack = sandbox.unpack,
    ) -> None:
        self._repository = repository
        self._origin = origin
        self._clock = clock
        self._deadline = deadline
        self._grace = grace
        self._unpack = unpack
        self._manifests = Manifests(
            repository, origin, signer, trusted=(signer.public, *trusted), clock=clock, grace=edition_grace, turn=edition_turn
        )

    @property
    def repository(self) -> Repository:
        """Where sandboxes, links and the manifest are."""
        return self._repository

    @property
    def origin(self) -> Origin:
        """Where SIFs and the manifest are."""
        return self._origin

    def open(self) -> tuple[Catalog, list[str]]:
        """Finish or discard what killed runs left behind; what is published, and a line for each thing done.

        Raises:
            RepositoryError, OriginError: they cannot be used.
            CatalogError: the published manifest cannot be trusted.
        """
        done = self._repository.recover() + self._origin.recover()
        catalog, more = self._manifests.open()
        return catalog, done + more

    def due(self, catalog: Catalog) -> str | None:
        """Why the manifest must be published anew even though nothing changed; None where it need not."""
        return self._manifests.due(catalog)

    def in_step(self, catalog: Catalog) -> bool:
        """Whether the origin's manifest is just the one that ``catalog`` was read from, or made by :meth:`publish`."""
        return self._manifests.in_step(catalog)

    def store(self, built: BuiltImage) -> Sif:
        """Put a SIF into the origin, verified.

        Raises:
            OriginError, SpaceError: it could not be stored.
        """
        path = layout.sif_path(built.sha256)
        self._origin.put(path, built.sif, sha256=built.sha256, size=built.size)
        return Sif(path, built.sha256, built.size)

    def ready(self, catalog: Catalog, item: Item, made: tuple[Made, ...]) -> Ready:
        """An entry that is built and stored, as :meth:`publish` takes it: see :func:`publisher.ready.ready`."""
        return ready(self._repository, catalog, item, made)

    def publish(self, catalog: Catalog, ready: list[Ready], leaving: Iterable[str] = ()) -> Published:
        """One transaction for all of ``ready``, and the manifest that names them; with none, the manifest alone.

        Names that are ``leaving`` are marked in the manifest; their data stays.

        An entry whose sandbox cannot be made is left out and reported; the others are published.

        Raises:
            RepositoryError: nothing of it is published.
            SpaceError: no room left; nothing of it is published.
        """
        result = Published(catalog)
        published: Edition | None = None
        with contextlib.suppress(_NothingLeftError), self._repository.transaction() as transaction:
            changed = self._make_all(transaction, catalog, ready, result.failed)
            now = int(self._clock())
            changed |= {name: records.leaving(catalog.records[name], now, now + int(self._grace)) for name in leaving}
            if ready and not changed:
                raise _NothingLeftError
            published = self._manifests.write(transaction, catalog.with_records(changed))
        return result if published is None else self._announced(published, result)

    def change(
        self,
        catalog: Catalog,
        changed: Mapping[str, Record],
        removals: Iterable[str] = (),
        *,
        relink: bool = True,
        links: Mapping[str, str] | None = None,
    ) -> Published:
        """One transaction that replaces records, makes their links show what they mean now, and takes paths away.

        Args:
            catalog: what is published.
            changed: name -> its record from now on; one without versions goes.
            removals: paths in the repository. One that cannot be taken away holds up none of the others, nor the records.
            relink: links change too.
            links: path -> target of further links, which no record wants.

        Raises:
            RepositoryError, SpaceError: nothing of it is published.
        """
        result = Published(catalog)
        after = replace(catalog.with_records(changed), lost=withdrawal.loss(catalog, changed, int(self._clock())))
        wanted = list(removals)
        edition: Edition | None = None
        while edition is None:
            try:
                with self._repository.transaction() as transaction:
                    for record in changed.values() if relink else ():
                        self._link_all(transaction, record, catalog.records.get(record.name))
                    for path, target in (links or {}).items():
                        transaction.link(path, target)
                    edition = self._manifests.write(transaction, after)
                    result.stuck |= _taken_away(transaction, [path for path in wanted if path not in result.stuck])
            except RemovalError as error:
                if not error.stuck.keys() <= {*wanted}:  # a link, say, which must not stay
                    raise
                result.stuck |= error.stuck
                edition = edition if error.published else None
        return self._announced(edition, result)

    def _announced(self, edition: Edition, result: Published) -> Published:
        """Tell the origin what the repository shows already."""
        result.catalog = edition.catalog
        try:
            self._manifests.announce(edition)
        except PublisherError as error:
            result.behind = error
        return result

    # --- one transaction

    def _make_all(
        self, transaction: Transaction, catalog: Catalog, ready: list[Ready], failed: dict[str, PublisherError]
    ) -> dict[str, Record]:
        changed: dict[str, Record] = {}
        made: set[str] = set()
        for one in sorted(ready, key=lambda one: one.clone is None):
            name = one.item.entry.name
            try:
                self._put_all(transaction, one, made)
                record = self._record(one, catalog.records.get(name))
                self._link_all(transaction, record, catalog.records.get(name))
                changed[name] = record
            except SpaceError:
                raise
            except PublisherError as error:
                error.image = name
                failed[name] = error
        sandboxes = any(path.startswith(f"{layout.IMAGES}/") for path in made)
        if sandboxes and not self._repository.exists(f"{layout.IMAGES}/{layout.CATALOG_MARK}"):
            transaction.write(f"{layout.IMAGES}/{layout.CATALOG_MARK}", b"")
        return changed

    def _put_all(self, transaction: Transaction, one: Ready, made: set[str]) -> None:
        """The sandboxes of an entry, straight from their SIFs into the open transaction, and the file indexes."""
        own: list[str] = []
        try:
            for part in sorted(one.made, key=one.is_unpacked):
                if part.built is None or part.target.kept is not None:
                    continue
                index, path = layout.file_index_path(part.target.manifest), layout.sandbox_path(part.target.manifest)
                if "sandbox" in one.item.entry.formats and path not in made and not self._repository.exists(path):
                    own.append(path)
                    if one.is_unpacked(part) or not self._cloned(transaction, part.built, one.clone):
                        size = part.built.unpacked_size
                        self._unpack(part.built.sif, transaction.tree(path), deadline=self._deadline, size=size)
                if index not in made and not self._repository.exists(index):
                    own.append(index)
                    transaction.write(index, part.built.file_index)
        except PublisherError:
            for path in own:
                transaction.remove(path)
            raise
        made.update(own)

    def _cloned(self, transaction: Transaction, built: BuiltImage, clone: Clone | None) -> bool:
        """Whether the sandbox could be made of another one; where not, nothing is left of the attempt."""
        tree = None if clone is None else transaction.clone(clone.source, clone.sandbox)
        if tree is None or clone is None:
            return False
        try:
            cloning.change(built.sif, tree, clone.made_of, deadline=self._deadline)
        except RepositoryError:
            transaction.remove(clone.sandbox)
            return False
        return True

    def _link_all(self, transaction: Transaction, record: Record, before: Record | None) -> None:
        """The links of a name; one that would go on to show an image that the name means no more goes away."""
        shown = records.links(record)
        for path, target in shown.items():
            transaction.link(path, target)
        platforms = [*record.platforms, *(before.platforms if before is not None else ())]
        for path in {record.name, *layout.link_paths(record.name, platforms)}:
            if path not in shown:
                transaction.remove(path)

    def _record(self, one: Ready, before: Record | None) -> Record:
        entry, now = one.item.entry, int(self._clock())
        current = {layout.platform_key(made.target.platform): made.version(entry.formats, now) for made in one.made}
        record = records.succeeded(before, source_of(entry), one.item.digest, current, entry.name)
        return records.leaving(record, now, now + int(self._grace), one.item.leaving)


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
