"""Making built images public, in the one order that never lets a manifest name what is not there.

SIF in the origin and verified -> one transaction of the repository with sandboxes, links and manifest -> manifest in the
origin, shards first, index last (docs/design.md, "Order of commits"). Every step can be repeated; a kill at any point costs a
rerun: :meth:`Publication.open` finishes what was begun.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from publisher import catalog as catalogs
from publisher import layout, records, sandbox
from publisher.catalog import Catalog
from publisher.errors import PublisherError, SpaceError
from publisher.plan import source_of
from publisher.resolver import manifest
from publisher.resolver.manifest import Sif

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from publisher.builders import BuiltImage
    from publisher.catalog import Edition
    from publisher.origins import Origin
    from publisher.plan import Item, Target
    from publisher.repositories import Repository, Transaction
    from publisher.resolver.manifest import Record, Version
    from publisher.signing import PublicKey, Signer

    class Unpack(Protocol):
        """What makes a sandbox of a SIF."""

        def __call__(self, sif: Path, target: Path, *, deadline: float, size: int) -> None:
            """Make the directory ``target``, of files of ``size`` bytes, within ``deadline`` seconds."""


@dataclass(frozen=True)
class Made:
    """A target with what was built for it; ``built`` is None where it is published already and only gets a name."""

    target: Target
    built: BuiltImage | None

    def version(self, formats: Collection[str], now: int) -> Version:
        """What the manifest will say of it."""
        if self.built is not None:
            with self.built.file_index.open("rb") as file:
                file_index = hashlib.file_digest(file, "sha256").hexdigest()
            return records.built_version(self.target.manifest, self.built, formats, now, file_index)
        if self.target.published is None:
            raise AssertionError("a target without a published version has been built")
        return records.renewed_version(self.target.published, formats, now)


@dataclass(frozen=True)
class Ready:
    """An entry whose SIFs are all in the origin: it waits for its transaction."""

    item: Item
    made: tuple[Made, ...]

    @property
    def unpacked_size(self) -> int:
        """Bytes that its sandboxes will take."""
        return sum(made.built.unpacked_size for made in self.made if made.built is not None)


@dataclass
class Published:
    """What a transaction did.

    Attributes:
        catalog: what is published now.
        failed: entries that did not get into it, each with its reason.
        behind: why the origin's manifest could not be brought up to date; the next run does it. None where it could.
    """

    catalog: Catalog
    failed: dict[str, PublisherError] = field(default_factory=dict)
    behind: PublisherError | None = None


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
        unpack: Unpack = sandbox.unpack,
    ) -> None:
        self._repository = repository
        self._origin = origin
        self._signer = signer
        self._trusted = (signer.public, *trusted)
        self._clock = clock
        self._deadline = deadline
        self._grace = grace
        self._unpack = unpack
        self._highest = 0  # serial published anywhere

    def open(self) -> tuple[Catalog, list[str]]:
        """Finish or discard what killed runs left behind; what is published, and a line for each thing done.

        Raises:
            RepositoryError, OriginError: they cannot be used.
            CatalogError: the published manifest cannot be trusted.
        """
        done = self._repository.recover() + self._origin.recover()
        name = self._repository.name
        catalog = catalogs.load(self._read_repository, name, self._trusted) or Catalog(name)
        there = self._read_origin(manifest.INDEX_NAME)
        elsewhere = catalogs.serial_of(there, name, self._trusted)
        self._highest = max(catalog.serial, elsewhere)
        if catalog.serial > elsewhere:
            self._to_origin(self._published_files(catalog))
            done.append(f"brought the origin's manifest from serial {elsewhere} to {catalog.serial}")
        return catalog, done

    def due(self, catalog: Catalog) -> str | None:
        """Why the manifest must be published anew even though nothing changed; None where it need not."""
        if self._highest > catalog.serial:
            return f"the origin has serial {self._highest}, the repository {catalog.serial}"
        if catalogs.half_spent(catalog, int(self._clock())):
            return "half of its life is over"
        return None

    def store(self, built: BuiltImage) -> Sif:
        """Put a SIF into the origin, verified.

        Raises:
            OriginError, SpaceError: it could not be stored.
        """
        path = layout.sif_path(built.sha256)
        self._origin.put(path, built.sif, sha256=built.sha256, size=built.size)
        return Sif(path, built.sha256, built.size)

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
            edition = self._edition(catalog.with_records(changed))
            self._write_manifest(transaction, edition)
            published = edition
        if published is None:
            return result
        result.catalog = published.catalog
        self._highest = published.catalog.serial
        try:
            self._to_origin({**published.shards, manifest.INDEX_NAME: published.index})
        except PublisherError as error:
            result.behind = error
        return result

    # --- one transaction

    def _make_all(
        self, transaction: Transaction, catalog: Catalog, ready: list[Ready], failed: dict[str, PublisherError]
    ) -> dict[str, Record]:
        changed: dict[str, Record] = {}
        made: set[str] = set()
        for one in ready:
            name = one.item.entry.name
            try:
                self._put_all(transaction, one, made)
                record = self._record(one, catalog.records.get(name))
                self._link_all(transaction, record)
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
            for part in one.made:
                if part.built is None:
                    continue
                index, path = layout.file_index_path(part.target.manifest), layout.sandbox_path(part.target.manifest)
                if index not in made and not self._repository.exists(index):
                    own.append(index)
                    transaction.write(index, part.built.file_index.read_bytes())
                if "sandbox" in one.item.entry.formats and path not in made and not self._repository.exists(path):
                    own.append(path)
                    size = part.built.unpacked_size
                    self._unpack(part.built.sif, transaction.tree(path), deadline=self._deadline, size=size)
        except PublisherError:
            for path in own:
                transaction.remove(path)
            raise
        made.update(own)

    def _link_all(self, transaction: Transaction, record: Record) -> None:
        """The links of a name; one that would go on to show an image that the name means no more goes away."""
        current = {platform: versions[0] for platform, versions in record.platforms.items()}
        shown = {platform: version.sandbox for platform, version in current.items() if version.sandbox is not None}
        links = layout.link_paths(record.name, list(shown))
        for path, platform in links.items():
            transaction.link(path, layout.link_target(path, shown[platform]))
        for path in layout.link_paths(record.name, list(record.platforms)):
            if path not in links and self._repository.exists(path):
                transaction.remove(path)

    def _record(self, one: Ready, before: Record | None) -> Record:
        entry, now = one.item.entry, int(self._clock())
        current = {layout.platform_key(made.target.platform): made.version(entry.formats, now) for made in one.made}
        return records.succeeded(before, source_of(entry), one.item.digest, current, entry.name)

    # --- the manifest

    def _edition(self, catalog: Catalog) -> Edition:
        serial = max(self._highest, catalog.serial) + 1  # above all that was ever published, also after a restore
        return catalogs.edition(catalog, self._signer, serial=serial, now=int(self._clock()))

    def _write_manifest(self, transaction: Transaction, edition: Edition) -> None:
        for name, content in edition.shards.items():
            path = f"{layout.REPOSITORY_MANIFEST}/{name}"
            if not self._repository.exists(path):
                transaction.write(path, content)
        transaction.write(f"{layout.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}", edition.index)

    def _to_origin(self, files: Mapping[str, bytes]) -> None:
        """Shards first, the index last."""
        for name, content in sorted(files.items(), key=lambda file: file[0] == manifest.INDEX_NAME):
            path = f"{layout.ORIGIN_MANIFEST}/{name}"
            if name == manifest.INDEX_NAME:
                self._origin.replace(path, content)
            elif self._origin.size(path) is None:
                self._origin.put_bytes(path, content)

    def _published_files(self, catalog: Catalog) -> dict[str, bytes]:
        """The repository's manifest as it stands, for an origin that a killed run left behind."""
        content = self._read_repository(manifest.INDEX_NAME)
        if content is None:
            raise AssertionError(f"serial {catalog.serial} was read from an index")
        index = manifest.Index.parse(manifest.unseal(content)[0])
        names = {manifest.shard_name(sha256) for sha256 in index.shards if sha256 is not None}
        shards = {name: shard for name in names if (shard := self._read_repository(name)) is not None}
        return {**shards, manifest.INDEX_NAME: content}

    def _read_repository(self, name: str) -> bytes | None:
        return self._repository.read(f"{layout.REPOSITORY_MANIFEST}/{name}")

    def _read_origin(self, name: str) -> bytes | None:
        return self._origin.read(f"{layout.ORIGIN_MANIFEST}/{name}")


class _NothingLeftError(Exception):
    """Every entry of a transaction failed: discard it, publish nothing."""
