"""Keeps the manifest in the repository and in the origin: reads it, writes its next revision, and sends that to the origin.

The repository's manifest is authoritative. Where a kill left the origin with an older one, :meth:`ManifestStore.open` updates it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.errors import RepositoryError
from publisher.publish import history
from publisher.publish.witness import bring_up_to_date
from publisher.state import paths
from publisher.state import snapshot as snapshots
from publisher.state.authorization import check_published
from publisher.state.publication_log import LogEntry, entry_name
from publisher.state.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from publisher.publish.witness import Witness
    from publisher.state.authorization import ManifestSigner
    from publisher.state.publication_log import LogHead
    from publisher.state.signing import PublicKey
    from publisher.state.snapshot import Revision
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository, Transaction

_log = logging.getLogger(__name__)


class ManifestStore:
    """The manifest of a repository and its origin.

    Args:
        repository: the repository.
        origin: the origin.
        signer: signs new revisions.
        trusted: further keys of which each may have signed the published manifest alone.
        clock: returns seconds since the epoch.
        grace: seconds that earlier revisions stay for clients that still read them.
        who: who publishes, for the publication log.
        sweep_interval: number of revisions after which earlier ones are looked through for those whose grace is over; that
            takes reading all of them.
    """

    def __init__(
        self,
        repository: Repository,
        origin: Origin,
        signer: ManifestSigner,
        *,
        trusted: tuple[PublicKey, ...],
        clock: Callable[[], float],
        grace: float,
        sweep_interval: int,
        who: str = "",
    ) -> None:
        self._repository = repository
        self._origin = origin
        self._signer = signer
        self._exempt = trusted
        authorized = signer.authorization.publics if signer.authorization is not None else ()
        self._trusted = (*signer.publics, *trusted, *authorized)
        self._clock = clock
        self._who = who
        self._grace = grace
        self._sweep_interval = sweep_interval
        self._highest_serial = 0  # of all that was published anywhere
        self._base_index: bytes | None = None  # the repository's index that was read or written last
        self._replaced_index: bytes | None = b""  # the one before the last published revision of ours; empty if none is
        self._origin_complete = False  # whether the origin is known to have all that the repository's index names
        self._signed_otherwise = False

    def open(self) -> tuple[Snapshot, list[str]]:
        """Read the published state; return it, and a line where the origin's manifest had to be updated.

        Raises:
            RepositoryError, OriginError: repository or origin cannot be used.
            PublishedManifestError: the published manifest cannot be trusted.
        """
        name, done = self._repository.name, []
        index = self._base_index = self._read_repository(manifest.INDEX_NAME)
        snapshot = snapshots.load(self._read_revision, name, self._trusted) or Snapshot(name)
        origin_index = self._read_origin(manifest.INDEX_NAME)
        for published in (index, origin_index):
            check_published(published, self._signer.authorization, self._exempt)
        origin_serial = snapshots.read_serial(origin_index, name, self._trusted)
        self._highest_serial = max(snapshot.serial, origin_serial)
        self._origin_complete = index == origin_index
        self._signed_otherwise = index is not None and not snapshots.is_signed_by(index, self._signer)
        if snapshot.serial > origin_serial:
            self.send_all(snapshot)
            done.append(f"updated the origin's manifest from serial {origin_serial} to {snapshot.serial}")
        return snapshot, done

    def due(self, snapshot: Snapshot) -> str | None:
        """Return why the manifest must be published again even if nothing changed, None where it need not."""
        if self._highest_serial > snapshot.serial:
            return f"the origin has serial {self._highest_serial}, but the repository has {snapshot.serial}"
        if self._signed_otherwise:
            return "it was signed by other keys than this publisher's, or with another keys document"
        if snapshots.is_due_for_signing(snapshot, int(self._clock())):
            return "half of its lifetime is over"
        return None

    def is_origin_current(self, snapshot: Snapshot) -> bool:
        """Return whether the origin's manifest is the one that ``snapshot`` was read from, or that :meth:`write` made of it."""
        index = self._read_origin(manifest.INDEX_NAME)
        is_same = index is not None and index == self._read_repository(manifest.INDEX_NAME)
        return is_same and self._highest_serial == snapshot.serial

    def write(self, transaction: Transaction, snapshot: Snapshot) -> Revision:
        """Write a snapshot as the next revision; only shards that changed are written, and the replaced index is kept.

        See :mod:`publisher.publish.history` for the replaced indexes.

        Raises:
            RepositoryError, SpaceError: the manifest cannot be written; or another run has published since the state was read,
                and its changes would be undone. (The lock that keeps runs apart is in the state directory, one per account.)
        """
        replaced = self._read_repository(manifest.INDEX_NAME)
        if replaced != self._base_index:
            self._require_new_mount(replaced)
            raise RepositoryError(
                f"another run has published since serial {snapshot.serial} of the manifest was read",
                hint="nothing was published, and finished builds are kept; run again",
            )
        serial = max(self._highest_serial, snapshot.serial) + 1  # above all that was ever published, also after a restore
        revision = snapshots.make_revision(snapshot, self._signer, serial=serial, now=int(self._clock()), who=self._who)
        for name, content in revision.shards.items():
            transaction.write(f"{paths.REPOSITORY_MANIFEST}/{name}", content)
        transaction.write(f"{paths.REPOSITORY_MANIFEST}/{entry_name(serial)}", revision.log)
        for name, content in self._entries_missing(snapshot.log, self._read_repository, self._read_origin):
            transaction.write(f"{paths.REPOSITORY_MANIFEST}/{name}", content)
        if replaced is not None:
            transaction.write(paths.revision_path(snapshot.serial), replaced)
        if serial % self._sweep_interval == 0:
            self._sweep(transaction, revision.snapshot)
        transaction.write(f"{paths.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}", revision.index)
        return revision

    def _sweep(self, transaction: Transaction, snapshot: Snapshot) -> None:
        """Remove earlier revisions whose grace is over, and the shards that only they name."""
        current = {f"{paths.REPOSITORY_MANIFEST}/{name}" for name in snapshot.files}
        removable = history.removable(self._repository.read, snapshot.generated - int(self._grace))
        removals = [path for path in removable if path not in current]
        for path in removals:
            transaction.remove(path)
        if removals:
            _log.info("removed %d file(s) of superseded revisions of the manifest", len(removals))

    def send(self, revision: Revision) -> None:
        """Store a revision that the repository has already in the origin: what changed, or all where it may lack more.

        Raises:
            OriginError, SpaceError: the origin does not take it; :meth:`open` sends it the next time.
            RepositoryError: another run has published meanwhile.
        """
        self._replaced_index, self._base_index = self._base_index, revision.index
        self._highest_serial = revision.snapshot.serial
        self._signed_otherwise = False
        if self._origin_complete and len(revision.shards) < len(revision.snapshot.files):
            log = {entry_name(revision.snapshot.serial): revision.log}
            self._send_files({**revision.shards, **log, manifest.INDEX_NAME: revision.index})
        else:
            self.send_all(revision.snapshot)

    def send_all(self, snapshot: Snapshot) -> None:
        """Store the repository's manifest in the origin: the shards that it lacks, and the index.

        Raises:
            OriginError, SpaceError: the origin does not take it.
            RepositoryError: another run has published meanwhile.
        """
        index = self._read_repository(manifest.INDEX_NAME)
        self._require_new_mount(index)
        if index is None:
            raise AssertionError(f"serial {snapshot.serial} was read from an index, or written as one")
        shards = {name: shard for name in snapshot.files if (shard := self._read_repository(name)) is not None}
        log = dict(self._entries_missing(snapshot.log, self._read_origin, self._read_repository))
        self._send_files({**shards, **log, manifest.INDEX_NAME: index})

    def _send_files(self, files: Mapping[str, bytes]) -> None:
        """Store files in the origin, shards first, the index last and only if the repository still has the same one."""
        self._origin_complete = False
        for name, content in sorted(files.items(), key=lambda file: file[0] == manifest.INDEX_NAME):
            path = f"{paths.ORIGIN_MANIFEST}/{name}"
            if name == manifest.INDEX_NAME:
                current = self._read_repository(name)
                if current != content:
                    self._require_new_mount(current)
                    raise RepositoryError(
                        "another run has published while this one sent the manifest to the origin", hint="run again"
                    )
                self._origin.replace(path, content)
            elif self._origin.size(path) is None:
                self._origin.put_bytes(path, content)
        self._origin_complete = True

    def _require_new_mount(self, index: bytes | None) -> None:
        """Raise RepositoryError if the index is the one that the last published revision of ours has replaced."""
        if index == self._replaced_index:
            raise RepositoryError(
                "the manifest is published, but the repository's mount on this host still shows the one before",
                hint="end the programs that read in the mount of the published content; the next run updates the origin",
            )

    def inform(self, witness: Witness) -> None:
        """Send the repository's index and its log to a witness. Raise PublisherError."""
        index = self._read_repository(manifest.INDEX_NAME)
        if index is not None:
            bring_up_to_date(witness, self._read_repository, index)

    def _entries_missing(
        self, head: LogHead | None, read: Callable[[str], bytes | None], read_elsewhere: Callable[[str], bytes | None]
    ) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the last entries of the log that a place lacks and another one has, the newest first."""
        serial = 0 if head is None else head.serial
        while serial and read(entry_name(serial)) is None:
            content = read_elsewhere(entry_name(serial))
            if content is None:
                return
            yield entry_name(serial), content
            try:
                serial = LogEntry.parse(content).previous_serial
            except ManifestError:  # publisher log verify reports it
                return

    def _read_repository(self, name: str) -> bytes | None:
        return self._repository.read(f"{paths.REPOSITORY_MANIFEST}/{name}")

    def _read_revision(self, name: str) -> bytes | None:
        """Return a file of the revision that :meth:`open` began to read, even if another run publishes meanwhile."""
        return self._base_index if name == manifest.INDEX_NAME else self._read_repository(name)

    def _read_origin(self, name: str) -> bytes | None:
        return self._origin.read(f"{paths.ORIGIN_MANIFEST}/{name}")
