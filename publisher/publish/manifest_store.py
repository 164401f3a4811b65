"""The manifest in both places: read, written into a transaction of the repository, and told the origin.

The repository's is the one that counts. What a kill left behind between the two is mended when it is opened the next time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.errors import RepositoryError
from publisher.publish import history
from publisher.state import paths
from publisher.state import snapshot as snapshots
from publisher.state.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from publisher.state.signing import PublicKey, Signer
    from publisher.state.snapshot import Revision
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository, Transaction


class ManifestStore:
    """The manifest of a repository and its origin.

    Args:
        repository, origin: the places.
        signer: signs it.
        trusted: keys that may have signed what is published.
        clock: seconds since the epoch.
        grace: seconds that earlier revisions stay, for who still reads them.
        turn: every so many revisions those go whose time is over: it takes reading all that are kept.
    """

    def __init__(
        self,
        repository: Repository,
        origin: Origin,
        signer: Signer,
        *,
        trusted: tuple[PublicKey, ...],
        clock: Callable[[], float],
        grace: float,
        turn: int,
    ) -> None:
        self._repository = repository
        self._origin = origin
        self._signer = signer
        self._trusted = trusted
        self._clock = clock
        self._grace = grace
        self._turn = turn
        self._highest = 0  # serial published anywhere
        self._known: bytes | None = (
            None  # the repository's index that the published state was read from, or that was written last
        )
        self._alike = False  # the origin is known to have all that the repository's index names
        self._by_other_key = False

    def open(self) -> tuple[Snapshot, list[str]]:
        """What is published, and a line for what had to be done to have it in both places.

        Raises:
            RepositoryError, OriginError: they cannot be used.
            PublishedManifestError: the published manifest cannot be trusted.
        """
        name, done = self._repository.name, []
        self._known = self._read_repository(manifest.INDEX_NAME)
        snapshot = snapshots.load(self._read_known, name, self._trusted) or Snapshot(name)
        index, there = self._known, self._read_origin(manifest.INDEX_NAME)
        elsewhere = snapshots.serial_of(there, name, self._trusted)
        self._highest = max(snapshot.serial, elsewhere)
        self._alike = index == there
        self._by_other_key = index is not None and not snapshots.signed_by(index, self._signer.public)
        if snapshot.serial > elsewhere:
            self.tell_all(snapshot)
            done.append(f"brought the origin's manifest from serial {elsewhere} to {snapshot.serial}")
        return snapshot, done

    def due(self, snapshot: Snapshot) -> str | None:
        """Why the manifest must be published anew even though nothing changed; None where it need not."""
        if self._highest > snapshot.serial:
            return f"the origin has serial {self._highest}, the repository {snapshot.serial}"
        if self._by_other_key:
            return "another key than this publisher's signed it"
        if snapshots.half_spent(snapshot, int(self._clock())):
            return "half of its life is over"
        return None

    def in_step(self, snapshot: Snapshot) -> bool:
        """Whether the origin's manifest is just the one that ``snapshot`` was read from, or made by :meth:`write`."""
        there = self._read_origin(manifest.INDEX_NAME)
        return there is not None and there == self._read_repository(manifest.INDEX_NAME) and self._highest == snapshot.serial

    def write(self, transaction: Transaction, snapshot: Snapshot) -> Revision:
        """A catalog as the next revision; the index that it takes the place of is kept, see :mod:`publisher.publish.history`.

        Only shards that changed are written, or looked at.

        Raises:
            RepositoryError, SpaceError: it cannot be written; or somebody else has published since the published state was read, whose
                changes it would undo. The lock that keeps runs apart is in the state directory, and accounts have their own.
        """
        before = self._read_repository(manifest.INDEX_NAME)
        if before != self._known:
            raise RepositoryError(
                f"another run has published since serial {snapshot.serial} of the manifest was read",
                hint="nothing was published, and what was built is kept; run again",
            )
        serial = max(self._highest, snapshot.serial) + 1  # above all that was ever published, also after a restore
        revision = snapshots.revision(snapshot, self._signer, serial=serial, now=int(self._clock()))
        for name, content in revision.shards.items():
            transaction.write(f"{paths.REPOSITORY_MANIFEST}/{name}", content)
        if before is not None:
            transaction.write(paths.revision_path(snapshot.serial), before)
        if serial % self._turn == 0:
            self._sweep(transaction, revision.snapshot)
        transaction.write(f"{paths.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}", revision.index)
        return revision

    def _sweep(self, transaction: Transaction, snapshot: Snapshot) -> None:
        """Remove earlier revisions whose time is over, and the shards that only they name."""
        needed = {f"{paths.REPOSITORY_MANIFEST}/{manifest.shard_name(one)}" for one in snapshot.shards if one is not None}
        for path in history.removable(self._repository.read, snapshot.generated - int(self._grace)):
            if path not in needed:
                transaction.remove(path)

    def announce(self, revision: Revision) -> None:
        """Tell the origin what the repository shows already: what changed, or all where it may lack more than that.

        Raises:
            OriginError, SpaceError: it does not take it; :meth:`open` does it the next time.
            RepositoryError: another run has published meanwhile.
        """
        self._known = revision.index
        self._highest = revision.snapshot.serial
        self._by_other_key = False
        if self._alike and len(revision.shards) < sum(one is not None for one in revision.snapshot.shards):
            self._tell({**revision.shards, manifest.INDEX_NAME: revision.index})
        else:
            self.tell_all(revision.snapshot)

    def tell_all(self, snapshot: Snapshot) -> None:
        """Tell the origin the repository's manifest as it stands: what it lacks of the shards, and the index.

        Raises:
            OriginError, SpaceError: it does not take it.
            RepositoryError: another run has published meanwhile.
        """
        content = self._read_repository(manifest.INDEX_NAME)
        if content is None:
            raise AssertionError(f"serial {snapshot.serial} was read from an index, or written as one")
        names = {manifest.shard_name(sha256) for sha256 in snapshot.shards if sha256 is not None}
        shards = {name: shard for name in names if (shard := self._read_repository(name)) is not None}
        self._tell({**shards, manifest.INDEX_NAME: content})

    def _tell(self, files: Mapping[str, bytes]) -> None:
        """Shards first, the index last: unless another run has published meanwhile, whose index is the one to be told."""
        self._alike = False
        for name, content in sorted(files.items(), key=lambda file: file[0] == manifest.INDEX_NAME):
            path = f"{paths.ORIGIN_MANIFEST}/{name}"
            if name == manifest.INDEX_NAME:
                if self._read_repository(name) != content:
                    raise RepositoryError("another run has published while the origin was told of the manifest", hint="run again")
                self._origin.replace(path, content)
            elif self._origin.size(path) is None:
                self._origin.put_bytes(path, content)
        self._alike = True

    def _read_repository(self, name: str) -> bytes | None:
        return self._repository.read(f"{paths.REPOSITORY_MANIFEST}/{name}")

    def _read_known(self, name: str) -> bytes | None:
        """One revision, whatever is published meanwhile."""
        return self._known if name == manifest.INDEX_NAME else self._read_repository(name)

    def _read_origin(self, name: str) -> bytes | None:
        return self._origin.read(f"{paths.ORIGIN_MANIFEST}/{name}")
