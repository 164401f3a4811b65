"""Publishes built images in the one order in which a manifest never names what is not there.

First each SIF goes to the origin and is verified; then one transaction of the repository adds sandboxes, links and manifest;
then the manifest goes to the origin, shards first, index last (docs/design.md, "Order of commits"). Every step can be repeated:
after a kill at any point, :meth:`Publication.open` finishes what was begun.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from publisher.build.builder import EarlierSif
from publisher.build.sandbox import unpack as sandbox
from publisher.contract.records import BLOCKED, Chunks
from publisher.errors import OriginError, PublisherError, RemovalError, RepositoryError, SpaceError
from publisher.net.server_dates import ServerDates
from publisher.plan import retention
from publisher.publish.early_sandbox import EarlySandbox, early_sandbox_path
from publisher.publish.manifest.manifest_store import ManifestStore
from publisher.publish.missing import check_share, find_missing, sif_names
from publisher.publish.records import make_record, replaced_indexes, update_links
from publisher.publish.sandboxes import SandboxWriter
from publisher.publish.staged import predecessor, stage
from publisher.state import paths, transitions
from publisher.state.signing_clock import SigningClock
from publisher.system.durable import host_failure
from publisher.system.shield import Shield

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from publisher.build.builder import UncheckedSif
    from publisher.contract.records import Record
    from publisher.plan.model import PlanItem
    from publisher.publish.manifest.manifest_copy import ManifestCopy
    from publisher.publish.manifest.witness import Witness
    from publisher.publish.sandboxes import Unpack
    from publisher.publish.staged import StagedEntry
    from publisher.state.authorization import ManifestSigner
    from publisher.state.built import BuiltImage
    from publisher.state.signing import PublicKey
    from publisher.state.snapshot import Revision, Snapshot
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository, Transaction

_log = logging.getLogger(__name__)


@dataclass
class PublishResult:
    """The result of one transaction.

    Attributes:
        snapshot: the published state now.
        failed: name -> reason, of the entries that were left out of the transaction.
        behind: why the origin's manifest could not be updated, which the next run does; None where it could.
        stuck: path -> reason, of the paths that could not be removed.
    """

    snapshot: Snapshot
    failed: dict[str, PublisherError] = field(default_factory=dict)
    behind: PublisherError | None = None
    stuck: dict[str, PublisherError] = field(default_factory=dict)


class Publication:
    """The repository and the origin, with the key that signs their manifest.

    Args:
        repository: where sandboxes, links and the manifest go.
        origin: where SIFs and the manifest go.
        signer: signs the manifest.
        trusted: further keys that may have signed the published manifest, such as one that is being rotated out.
        clock: returns seconds since the epoch.
        copy: the state directory's copy of the manifest.
        dates: what registries say of the time, None if none is asked.
        start_from: the place whose manifest is continued in any case: ``REPOSITORY``, ``ORIGIN`` or ``STATE`` of
            :mod:`publisher.publish.manifest.manifest_store`; None for the highest revision.
        deadline: seconds that unpacking one sandbox may take.
        grace: seconds that a name which leaves can still be used.
        revision_grace: seconds that earlier revisions of the manifest stay for clients that still read them.
        sweep_interval: seconds after which earlier revisions are looked through for those whose grace is over.
        who: who publishes, for the publication log.
        witness: second place for the log; None for none.
        unpack: makes a sandbox from a SIF; None for :func:`publisher.build.sandbox.unpack.unpack`.
        secrets: files and directories that the programs which make sandboxes must not see.
    """

    def __init__(
        self,
        repository: Repository,
        origin: Origin,
        signer: ManifestSigner,
        *,
        clock: Callable[[], float],
        copy: ManifestCopy,
        dates: ServerDates | None = None,
        start_from: str | None = None,
        trusted: tuple[PublicKey, ...] = (),
        deadline: float = 3600.0,
        grace: float = 14 * 86400.0,
        revision_grace: float = 14 * 86400.0,
        sweep_interval: float = 86400.0,
        who: str = "",
        witness: Witness | None = None,
        unpack: Unpack | None = None,
        secrets: Iterable[Path] = (),
    ) -> None:
        self._repository = repository
        self._origin = origin
        self._clock = clock
        self._deadline = deadline
        self._grace = int(grace)
        self._shield = Shield(secrets)
        self._unpack = unpack or functools.partial(sandbox.unpack, shield=self._shield)
        self._early = EarlySandbox(repository, self._unpack, deadline)
        self._witness = witness
        self._manifests = ManifestStore(
            repository,
            origin,
            signer,
            trusted=trusted,
            clock=SigningClock(clock, dates or ServerDates()),
            grace=revision_grace,
            sweep_interval=sweep_interval,
            copy=copy,
            start_from=start_from,
            who=who,
        )

    @property
    def repository(self) -> Repository:
        """Return the repository, which has sandboxes, links and the manifest."""
        return self._repository

    @property
    def origin(self) -> Origin:
        """Return the origin, which has SIFs and the manifest."""
        return self._origin

    def hold(self) -> AbstractContextManager[None]:
        """Keep other publishers of the repository from running until the block ends, see :meth:`Repository.hold`."""
        return self._repository.hold()

    def open(self) -> tuple[Snapshot, list[str]]:
        """Finish or discard what killed runs left behind; return the published state, and a line for each thing done.

        Raises:
            RepositoryError, OriginError: repository or origin cannot be used.
            PublishedManifestError: the published manifest cannot be trusted.
        """
        recovered = self._repository.recover() + self._origin.recover()
        for line in recovered:
            _log.info("%s", line)
        snapshot, updated = self._manifests.open()
        for line in updated:
            _log.info("%s", line)
        self._inform_witness()
        return snapshot, recovered + updated

    def drop_missing(self, snapshot: Snapshot, *, allowed: bool) -> tuple[Snapshot, list[str]]:
        """Return the published state without data that is named and missing, and a line for each such version.

        SIFs are looked for if a place had another manifest than the others, such as after a restore: that takes a list of the
        origin's objects. Otherwise each run audits a share of them (:mod:`publisher.maintain.lost_sifs`).

        Args:
            snapshot: the published state.
            allowed: whether much may be missing.

        Raises:
            PublisherError: so much is missing that a disk may not be mounted.
            RepositoryError, OriginError: repository or origin cannot be read.
        """
        sifs = sif_names(self._origin.names(paths.SIF_PREFIX)) if self._manifests.places_differed else None
        missing = find_missing(snapshot, self._repository.exists, sifs)
        check_share(missing, allowed=allowed)
        for line in missing.lines:
            _log.warning("%s", line)
        return missing.snapshot, missing.lines

    def restore(self, snapshot: Snapshot) -> tuple[Snapshot, list[str]]:
        """Publish the state again in a repository that a backup left behind: manifest, links, no data of blocked images.

        Returns:
            The published state, and lines about what was done; both as before where the repository is not behind.

        Raises:
            RepositoryError, SpaceError: nothing is published.
        """
        if not self._manifests.is_behind:
            return snapshot, []
        there = self._repository.links()
        wanted = {path: target for record in snapshot.records.values() for path, target in transitions.links(record).items()}
        wrong = {
            path: target
            for path, target in wanted.items()
            if there.get(path) not in {target, f"/cvmfs/{self._repository.name}/{target.rpartition('../')[2]}"}
        }
        stray = [path for path, target in there.items() if path not in wanted and paths.is_own_link(path, target)]
        removals = [*stray, *self.remains_of_blocked(snapshot)]
        result = self.change(snapshot, {}, removals, relink=False, links=wrong)
        lines = [f"the repository has the manifest of serial {snapshot.serial} again, as serial {result.snapshot.serial}"]
        lines += [f"{path}: the link is set again" for path in wrong]
        lines += [f"{path}: removed, because the manifest does not have it" for path in removals if path not in result.stuck]
        lines += [f"{path} could not be removed: {error}" for path, error in result.stuck.items()]
        if result.behind is not None:
            raise result.behind
        return result.snapshot, lines

    def remains_of_blocked(self, snapshot: Snapshot) -> list[str]:
        """Return the paths of blocked versions' data that is in the repository: a block was interrupted, or a backup restored."""
        live_data = retention.count_data_paths(snapshot.records.values())
        versions = (version for record in snapshot.records.values() for _, version in record.versions())
        blocked = {path for version in versions if version.state == BLOCKED for path in retention.data_paths(version)}
        return sorted(path for path in blocked if not live_data[path] and self._repository.exists(path))

    def check_clock(self) -> None:
        """Raise ClockError if a manifest could not be signed now, because the clock is probably wrong."""
        self._manifests.check_clock()

    def require_idle(self) -> None:
        """Raise RepositoryError if somebody else's open transaction would keep built images from being published."""
        self._repository.require_idle()

    def due(self, snapshot: Snapshot) -> str | None:
        """Return why the manifest must be published again even if nothing changed, None where it need not."""
        return self._manifests.due(snapshot)

    def is_origin_current(self, snapshot: Snapshot) -> bool:
        """Return whether the origin's manifest is the one that ``snapshot`` was read from, or that published it."""
        return self._manifests.is_origin_current(snapshot)

    def resend_manifest(self, snapshot: Snapshot) -> None:
        """Store in the origin again what it lacks of the published manifest, which is that of ``snapshot``.

        Raises:
            OriginError, SpaceError: the origin does not take it.
            AnotherRunError: another run has published meanwhile, or is publishing.
        """
        self._manifests.send_all(snapshot)

    @contextlib.contextmanager
    def removal(self, snapshot: Snapshot) -> Iterator[bool]:
        """Keep other publishers from publishing during the block, which removes objects of the origin that nothing names.

        The block gets False, and must not remove anything, if the origin's manifest is not that of ``snapshot``.

        Raises:
            AnotherRunError: another run is publishing.
            RepositoryError, OriginError: repository or origin cannot be used.
        """
        with self._repository.exclusively():
            yield self.is_origin_current(snapshot)

    # --- built images

    def store_sif(self, build: BuiltImage) -> None:
        """Store the SIF of a build in the origin, verified, and its chunk table.

        Raises:
            OriginError, SpaceError: one of them could not be stored.
        """
        if build.source is not None:
            raise AssertionError("a build without a SIF was made for an entry that wants one")
        self._origin.put(paths.sif_path(build.sha256), build.sif, sha256=build.sha256, size=build.size)
        if build.chunk_table is not None and build.chunks is not None:
            table = Chunks.from_json(build.chunks)
            self._origin.put(table.path, build.chunk_table, sha256=table.sha256, size=table.size)

    def earlier_sif(self, snapshot: Snapshot, item: PlanItem, digest: str) -> EarlierSif | None:
        """Return the SIF that an item's name means now, on the platform of a new image; None if this host does not have it.

        Args:
            snapshot: the published state.
            item: the decision on the entry.
            digest: digest of the new image's manifest.

        Raises:
            OriginError: the origin cannot be read.
        """
        for target in item.targets:
            before = predecessor(snapshot, item.entry.name, target) if target.digest == digest else None
            if before is not None and before.sif is not None and before.file_index is not None:
                sif = self._origin.local_path(paths.sif_path(before.sif.sha256))
                return None if sif is None else EarlierSif(sif, self._repository.root / paths.file_index_path(before.content))
        return None

    def stage(self, snapshot: Snapshot, item: PlanItem, builds: Mapping[str, BuiltImage]) -> StagedEntry:
        """Return an entry with stored SIFs as :meth:`publish` takes it, see :func:`publisher.publish.staged.stage`."""
        return stage(self._repository, snapshot, item, builds)

    def unpack_early(self, snapshot: Snapshot, item: PlanItem, sif: UncheckedSif) -> None:
        """Ingest or unpack the sandbox of a run's last image, if it needs one, while its SIF is still checked.

        Args:
            snapshot: the published state.
            item: the decision on its entry.
            sif: its SIF.

        Raises:
            RepositoryError: the repository cannot be read.
        """
        sandbox = early_sandbox_path(self._repository, snapshot, item)
        if sandbox is not None:
            self._early.begin(sandbox, sif)

    def discard_early(self) -> None:
        """Discard what :meth:`unpack_early` began and :meth:`publish` has not published."""
        self._early.discard()

    def publish(self, snapshot: Snapshot, entries: Iterable[StagedEntry], leaving: Iterable[str] = ()) -> PublishResult:
        """Publish entries in one transaction, with the manifest that names them; without entries, the manifest alone.

        An entry of which a sandbox cannot be made is left out and reported; the others are published.

        Args:
            snapshot: the published state.
            entries: staged entries.
            leaving: names to mark as leaving in the manifest; their data stays.

        Raises:
            RepositoryError: nothing is published.
            SpaceError: no space left; nothing is published.
        """
        entries = list(entries)
        result = PublishResult(snapshot)
        revision: Revision | None = None
        with contextlib.suppress(_AllFailedError), self._early.transaction(entries) as (transaction, early):
            sandboxes = SandboxWriter(self._repository, transaction, self._unpack, self._deadline, self._shield, early=early)
            changed = self._write_entries(transaction, sandboxes, snapshot, entries, result.failed)
            now = int(self._clock())
            changed |= {name: transitions.expire(snapshot.records[name], now, now + self._grace) for name in leaving}
            if entries and not changed:
                raise _AllFailedError
            revision = self._manifests.write(transaction, snapshot.with_records(changed))
        return result if revision is None else self._send(revision, result)

    def _write_entries(
        self,
        transaction: Transaction,
        sandboxes: SandboxWriter,
        snapshot: Snapshot,
        entries: list[StagedEntry],
        failed: dict[str, PublisherError],
    ) -> dict[str, Record]:
        """Write the sandboxes and links of entries into a transaction; return their records, and add failures to ``failed``."""
        changed: dict[str, Record] = {}
        for entry in sorted(entries, key=lambda entry: entry.clone is None):  # a clone comes first in its transaction
            try:
                if self._repository.is_shared:
                    self._require_sifs(entry)
                finished = sandboxes.write(entry)
                record = make_record(finished, snapshot, sandboxes.written, now=int(self._clock()), grace=self._grace)
                update_links(transaction, record, snapshot.records.get(entry.name))
                changed[entry.name] = record
                for version in replaced_indexes(record, snapshot, sandboxes.written):
                    changed |= transitions.spread_file_index({**snapshot.records, **changed}.values(), version)
            except SpaceError:
                raise
            except (OSError, PublisherError) as caught:
                error = host_failure(caught) if isinstance(caught, OSError) else caught
                if error is None:
                    raise
                error.image = entry.name
                failed[entry.name] = error
        sandboxes.finish()
        return changed

    def _require_sifs(self, entry: StagedEntry) -> None:
        """Check that the origin has the SIFs of an entry still: they may be old ones, which another host removes as garbage.

        Raises:
            OriginError: it has not; or it cannot be read.
        """
        for build in entry.builds.values() if "sif" in entry.item.entry.formats else ():
            path = paths.sif_path(build.sha256)
            if self._origin.size(path) != build.size:
                raise OriginError(f"{path} is not in the origin any more: another publisher has removed it", hint="run again")

    # --- changes of records

    def change(
        self,
        snapshot: Snapshot,
        changed: Mapping[str, Record],
        removals: Iterable[str] = (),
        *,
        relink: bool = True,
        links: Mapping[str, str] | None = None,
        unblocked: Collection[str] = (),
    ) -> PublishResult:
        """Replace records, update their links and remove paths in one transaction.

        Args:
            snapshot: the published state.
            changed: name -> its new record; a record without versions is removed.
            removals: paths in the repository to remove. A path that cannot be removed does not stop the rest.
            relink: update the links of the changed records too.
            links: path -> target of further links to set, which no record asks for.
            unblocked: digests that the operator unblocks; no other block may be lost.

        Raises:
            RepositoryError, SpaceError: nothing is published.
        """
        result = PublishResult(snapshot)
        after = replace(
            snapshot.with_records(changed), lost=transitions.describe_lost_build(snapshot, changed, int(self._clock()))
        )
        unwanted = list(removals)
        revision: Revision | None = None
        while revision is None:
            try:
                with self._repository.transaction() as transaction:
                    for record in changed.values() if relink else ():
                        update_links(transaction, record, snapshot.records.get(record.name))
                    for path, target in (links or {}).items():
                        transaction.link(path, target)
                    revision = self._manifests.write(transaction, after, unblocked)
                    result.stuck |= _remove_all(transaction, [path for path in unwanted if path not in result.stuck])
            except RemovalError as error:
                if not error.stuck.keys() <= {*unwanted}:  # such as a link, which must not stay
                    raise
                result.stuck |= error.stuck
                revision = revision if error.published else None
        _log.info("changed %d record(s), removed %d path(s)", len(changed), len(unwanted) - len(result.stuck))
        return self._send(revision, result)

    def _send(self, revision: Revision, result: PublishResult) -> PublishResult:
        """Store in the origin the manifest that the repository has already; a failure goes into the result."""
        result.snapshot = revision.snapshot
        try:
            self._manifests.send(revision)
        except PublisherError as error:
            _log.warning("the origin does not have the manifest with serial %d: %s", revision.snapshot.serial, error)
            result.behind = error
        self._inform_witness()
        return result

    def _inform_witness(self) -> None:
        """Send the published index and its log to the witness. A failure is only logged: the next run does it."""
        if self._witness is not None:
            try:
                self._manifests.inform(self._witness)
            except PublisherError as error:
                _log.warning("the witness was not informed: %s", error)


def _remove_all(transaction: Transaction, removals: Iterable[str]) -> dict[str, PublisherError]:
    """Remove paths; return path -> reason, of those that were refused at once."""
    refused: dict[str, PublisherError] = {}
    for path in removals:
        try:
            transaction.remove(path)
        except RepositoryError as error:
            refused[path] = error
    return refused


class _AllFailedError(Exception):
    """An internal signal: every entry of a transaction failed, so discard it and publish nothing."""
