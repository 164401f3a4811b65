"""Keeps the manifest in the repository and in the origin: reads it, writes its next revision, and sends that to the origin.

A run continues from the highest revision in any place: the repository, the origin, and the copy in the state directory
(:mod:`publisher.state.lineage`). Where a kill left the origin with an older one, :meth:`ManifestStore.open` updates it; where a
backup left the repository with an older one, the next revision is written there in full.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.errors import AnotherRunError, PublishedManifestError, PublisherError, RepositoryError
from publisher.publish.manifest import history
from publisher.publish.manifest.witness import bring_up_to_date
from publisher.state import lineage, paths
from publisher.state import snapshot as snapshots
from publisher.state.authorization import check_published
from publisher.state.lineage import FoundIndex
from publisher.state.publication_log import LogEntry, entry_name
from publisher.state.snapshot import Snapshot
from publisher.system.concurrent_calls import call_concurrently

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from publisher.publish.manifest.manifest_copy import ManifestCopy
    from publisher.publish.manifest.witness import Witness
    from publisher.state.authorization import ManifestSigner
    from publisher.state.publication_log import LogHead
    from publisher.state.signing import PublicKey
    from publisher.state.signing_clock import SigningClock
    from publisher.state.snapshot import Revision
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository, Transaction

REPOSITORY, ORIGIN, STATE = "the repository", "the origin", "the state directory"
"""The places of a manifest, for messages."""
_log = logging.getLogger(__name__)


class ManifestStore:
    """The manifest of a repository and its origin.

    Args:
        repository: the repository.
        origin: the origin.
        signer: signs new revisions.
        trusted: further keys of which each may have signed the published manifest alone.
        clock: the clock to sign by.
        grace: seconds that earlier revisions stay for clients that still read them.
        who: who publishes, for the publication log.
        sweep_interval: seconds after which earlier revisions are looked through for those whose grace is over, 0 to do it each
            time; that takes reading all of them.
        copy: the state directory's copy of the manifest.
        start_from: the place whose manifest is continued in any case, as the operator wants; None to choose it.

    Attributes:
        places_differed: whether the places had not all the same manifest when it was opened.
    """

    def __init__(
        self,
        repository: Repository,
        origin: Origin,
        signer: ManifestSigner,
        *,
        trusted: tuple[PublicKey, ...],
        clock: SigningClock,
        grace: float,
        sweep_interval: float,
        copy: ManifestCopy,
        start_from: str | None = None,
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
        self._copy = copy
        self._start_from = start_from
        self._highest_serial = 0  # of all that can have been published anywhere
        self._highest_generated = 0  # when the newest of all found indexes was signed
        self._base_index: bytes | None = None  # the repository's index that was read or written last
        self._replaced_index: bytes | None = b""  # the one before the last published revision of ours; empty if none is
        self._continued: bytes | None = None  # the index of another place that the next revision continues instead of that one
        self._blocked: frozenset[str] = frozenset()  # digests that the published manifest blocks
        self._repository_lacks_shards = False
        self._origin_complete = False  # whether the origin is known to have all that the repository's index names
        self._signed_otherwise = False
        self.places_differed = False

    def open(self) -> tuple[Snapshot, list[str]]:
        """Read the published state; return it, and a line for each place that had another one.

        Raises:
            RepositoryError, OriginError, StateDirectoryError: a place cannot be read.
            PublishedManifestError: the published manifest cannot be trusted or is not complete anywhere, or it has forked.
        """
        self._base_index = self._read_repository(manifest.INDEX_NAME)
        found = self._find_indexes()
        base, others = lineage.choose(found, self._start_from)
        self._highest_serial = max([self._copy.highest_serial(), *(one.index.serial for one in found)])
        self._highest_generated = max((one.index.generated for one in found), default=0)
        if base is None:
            return Snapshot(self._repository.name), []
        self._repository_lacks_shards = False
        snapshot = self._load(base)
        self._signed_otherwise = not snapshots.is_signed_by(base.content, self._signer)
        lines = self._compare_places(base, found, snapshot)
        for other in others:
            snapshot, line = self._carry_blocks(snapshot, other)
            lines.append(line)
        self._blocked = snapshot.blocked_digests()
        return snapshot, lines

    def _find_indexes(self) -> list[FoundIndex]:
        """Return the indexes of all places. A copy in the state directory that cannot be used does not count."""
        contents = {REPOSITORY: self._base_index, ORIGIN: self._read_origin(manifest.INDEX_NAME)}
        found = [FoundIndex(place, content, self._check(content)) for place, content in contents.items() if content is not None]
        copy = self._copy.read(manifest.INDEX_NAME)
        if copy is not None:
            try:
                found.append(FoundIndex(STATE, copy, self._check(copy)))
            except PublishedManifestError as error:
                _log.warning("the copy of the manifest in the state directory is not used: %s", error)
        return found

    def _check(self, content: bytes) -> manifest.Index:
        index = snapshots.read_index(content, self._repository.name, self._trusted)
        check_published(content, self._signer.authorization, self._exempt)
        return index

    def _load(self, found: FoundIndex) -> Snapshot:
        """Return the state that an index describes; each shard is read from the first place that has it undamaged."""

        def read(name: str) -> bytes | None:
            if name == manifest.INDEX_NAME:
                return found.content
            shard = self._read_repository(name)
            if shard is not None and manifest.has_shard_name(shard, name):
                return shard
            self._repository_lacks_shards = True
            return self._read_shard(name)

        try:
            snapshot = snapshots.load(read, self._repository.name, self._trusted)
        except PublishedManifestError as error:
            raise PublishedManifestError(
                f"the manifest with serial {found.index.serial} of {found.place} is not complete in any place: {error.reason}",
                hint="nothing was changed; restore that file from a backup of any place. If there is none, note the blocks that "
                f"publisher log show lists, delete {manifest.INDEX_NAME} in the place that has this serial, and repeat them",
            ) from error
        if snapshot is None:
            raise AssertionError("an index that was found can be read")
        return snapshot

    def _compare_places(self, base: FoundIndex, found: Iterable[FoundIndex], snapshot: Snapshot) -> list[str]:
        """Bring origin and state directory up to date, and note whether the repository is behind; return what to report."""
        serials = {one.place: one.index.serial for one in found}
        has_base = {one.place: one.content == base.content for one in found}
        self._continued = None if has_base.get(REPOSITORY) and not self._repository_lacks_shards else base.content
        self._origin_complete = has_base.get(ORIGIN, False)
        self.places_differed = not all(has_base.get(place, False) for place in (REPOSITORY, ORIGIN, STATE))
        lines = []
        if self._continued is not None:
            serial = serials.get(REPOSITORY)
            own = "no manifest" if serial is None else f"the manifest with serial {serial}"
            own += ", of which shards are missing or damaged" if has_base.get(REPOSITORY) else ""
            lines.append(f"the repository has {own}; this run continues from serial {snapshot.serial}, which {base.place} has")
        elif not self._origin_complete and serials.get(ORIGIN, 0) <= snapshot.serial:
            self.send_all(snapshot)
            lines.append(f"updated the origin's manifest from serial {serials.get(ORIGIN, 0)} to {snapshot.serial}")
        if not has_base.get(STATE):
            if STATE not in serials and not self._copy.highest_serial():
                day = time.strftime("%Y-%m-%d", time.gmtime(snapshot.generated))
                lines.append(
                    f"the state directory knows no earlier manifest; if repository and origin were restored from a backup, "
                    f"blocks made after {day} are not in it"
                )
            self._save_copy(base.content, snapshot)
        return lines

    def _carry_blocks(self, snapshot: Snapshot, other: FoundIndex) -> tuple[Snapshot, str]:
        """Return the snapshot with the blocks of another branch, and the line that reports the fork."""
        line = f"{other.place} has a manifest (serial {other.index.serial}) that serial {snapshot.serial} does not continue"
        merged = lineage.carry_blocks(snapshot, self._load(other))
        carried = sorted(
            name
            for name, record in merged.records.items()
            if any(version.digest in merged.blocked_digests() - snapshot.blocked_digests() for _, version in record.versions())
        )
        if not carried:
            return merged, line
        return merged, f"{line}; its blocks are kept ({', '.join(carried)}); publisher unblock NAME lifts one"

    def _save_copy(self, index: bytes, snapshot: Snapshot, shards: Mapping[str, bytes] | None = None) -> None:
        """Store a published revision in the state directory. A failure is only logged: the next run does it."""
        names = snapshot.files
        try:
            if shards is None:
                shards = {name: shard for name in names if (shard := self._read_shard(name)) is not None}
            self._copy.save(shards, index, names)
        except PublisherError as error:
            _log.warning("the state directory has no copy of the manifest with serial %d: %s", snapshot.serial, error)

    def _read_shard(self, name: str) -> bytes | None:
        """Return an undamaged shard from the first place that has it, None if none has."""
        contents = (read(name) for read in (self._copy.read, self._read_repository, self._read_origin))
        return next((content for content in contents if content is not None and manifest.has_shard_name(content, name)), None)

    @property
    def is_behind(self) -> bool:
        """Return whether the repository has not the manifest that the published state was read from."""
        return self._continued is not None

    def due(self, snapshot: Snapshot) -> str | None:
        """Return why the manifest must be published again even if nothing changed, None where it need not."""
        if self._continued is not None:
            return f"the repository does not have serial {snapshot.serial}"
        if snapshot.touched:
            return "it names data that is missing, or lacks blocks of another revision"
        if self._signed_otherwise:
            return "it was signed by other keys than this publisher's, or with another keys document"
        if self._highest_serial > snapshot.serial and not self._origin_complete:
            return f"the origin has serial {self._highest_serial}, but the repository has {snapshot.serial}"
        return snapshots.due_for_signing(snapshot, self._clock.unchecked())

    def check_clock(self) -> None:
        """Raise ClockError if the clock is probably wrong."""
        self._clock.now(self._highest_generated)

    def is_origin_current(self, snapshot: Snapshot) -> bool:
        """Return whether the origin's manifest is the one that ``snapshot`` was read from, or that :meth:`write` made of it."""
        index = self._read_origin(manifest.INDEX_NAME)
        is_same = index is not None and index == self._read_repository(manifest.INDEX_NAME)
        return is_same and index is not None and _serial_of(index) == snapshot.serial

    def write(self, transaction: Transaction, snapshot: Snapshot, unblocked: Collection[str] = ()) -> Revision:
        """Write a snapshot as the next revision; only shards that changed are written, and the replaced index is kept.

        See :mod:`publisher.publish.manifest.history` for the replaced indexes.

        Args:
            transaction: an open transaction of the repository.
            snapshot: the state to publish.
            unblocked: digests that the operator unblocks; any other block must be in the snapshot.

        Raises:
            RepositoryError, SpaceError: the manifest cannot be written.
            AnotherRunError: another run has published since the state was read, and its changes would be undone: a publisher on
                another host, since those of one host take turns.
            StateDirectoryError: the serial cannot be recorded.
            ClockError: the clock is probably wrong.
        """
        replaced = self._read_repository(manifest.INDEX_NAME)
        if replaced != self._base_index:
            self._require_new_mount(replaced)
            raise AnotherRunError(
                f"another run has published since serial {snapshot.serial} of the manifest was read",
                hint="nothing was published, and finished builds are kept; run again",
            )
        lost = self._blocked - snapshot.blocked_digests() - set(unblocked)
        if lost:
            raise AssertionError(f"the blocks of {', '.join(sorted(lost))} would be lost")
        now = self._clock.now(self._highest_generated)
        serial = self._next_serial(now)
        self._copy.record_serial(serial)
        whole = snapshot if self._continued is None else snapshot.in_full()
        revision = snapshots.make_revision(whole, self._signer, serial=serial, now=now, who=self._who)
        for name, content in revision.shards.items():
            transaction.write(f"{paths.REPOSITORY_MANIFEST}/{name}", content)
        transaction.write(f"{paths.REPOSITORY_MANIFEST}/{entry_name(serial)}", revision.log)
        for name, content in self._entries_missing(snapshot.log, self._read_repository, self._read_origin):
            transaction.write(f"{paths.REPOSITORY_MANIFEST}/{name}", content)
        for former in (self._continued, replaced):
            if former is not None:
                transaction.write(paths.revision_path(_serial_of(former)), former)
        if self._is_sweep_due(now, snapshot):
            self._sweep(transaction, revision.snapshot)
        transaction.write(f"{paths.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}", revision.index)
        return revision

    def _next_serial(self, now: int) -> int:
        """Return a serial above all that can have been given out.

        It grows by the seconds since the newest index that was found. So even if all places were restored from one backup, it is
        above the serials that were given out after the backup was made: there was not more than one a second.
        """
        return self._highest_serial + max(1, now - self._highest_generated if self._highest_generated else 1)

    def _is_sweep_due(self, now: int, snapshot: Snapshot) -> bool:
        return not self._sweep_interval or now // self._sweep_interval > snapshot.generated // self._sweep_interval

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
            AnotherRunError: another run has published meanwhile, or is publishing.
        """
        self._replaced_index, self._base_index = self._base_index, revision.index
        self._continued = None
        self._highest_serial = revision.snapshot.serial
        self._highest_generated = revision.snapshot.generated
        self._signed_otherwise = False
        self._blocked = revision.snapshot.blocked_digests()
        self._save_copy(revision.index, revision.snapshot, revision.shards)
        if self._origin_complete and len(revision.shards) < len(revision.snapshot.files):
            log = {entry_name(revision.snapshot.serial): revision.log}
            self._send_files({**revision.shards, **log, manifest.INDEX_NAME: revision.index})
        else:
            self.send_all(revision.snapshot)

    def send_all(self, snapshot: Snapshot) -> None:
        """Store the repository's manifest in the origin: the shards that it lacks, and the index.

        Raises:
            OriginError, SpaceError: the origin does not take it.
            AnotherRunError: another run has published meanwhile, or is publishing.
        """
        index = self._read_repository(manifest.INDEX_NAME)
        self._require_new_mount(index)
        if index is None:
            raise AssertionError(f"serial {snapshot.serial} was read from an index, or written as one")
        shards = {name: shard for name in snapshot.files if (shard := self._read_repository(name)) is not None}
        log = dict(self._entries_missing(snapshot.log, self._read_origin, self._read_repository))
        self._send_files({**shards, **log, manifest.INDEX_NAME: index})

    def _send_files(self, files: Mapping[str, bytes]) -> None:
        """Store files in the origin, shards first, the index last and only if the repository still has the same one.

        Several shards are stored at the same time, because each takes the origin some round trips or waits for its disk.
        """
        self._origin_complete = False
        call_concurrently(self._send, [file for file in files.items() if file[0] != manifest.INDEX_NAME])
        index = files[manifest.INDEX_NAME]
        with self._repository.exclusively():  # or a later revision could be replaced by this one
            self._require_current(index)
            self._origin.replace(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}", index)
        self._origin_complete = True

    def _send(self, file: tuple[str, bytes]) -> None:
        """Store a file in the origin, unless it is there."""
        name, content = file
        path = f"{paths.ORIGIN_MANIFEST}/{name}"
        if self._origin.size(path) is None:
            self._origin.put_bytes(path, content)

    def _require_current(self, index: bytes) -> None:
        """Raise AnotherRunError if another index than this one is published by now."""
        current = self._read_repository(manifest.INDEX_NAME)
        if current != index:
            self._require_new_mount(current)
            raise AnotherRunError(
                "another run has published while this one sent the manifest to the origin",
                hint="nothing is lost; the next run continues from there",
            )

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

    def _read_origin(self, name: str) -> bytes | None:
        return self._origin.read(f"{paths.ORIGIN_MANIFEST}/{name}")


def _serial_of(content: bytes) -> int:
    """Return the serial of an index that was checked."""
    return manifest.Index.parse(manifest.unseal(content)[0]).serial
