"""Collects finished entries and publishes them in batches, one transaction of the repository for each.

A batch that does not fit into the repository is published in halves: an image without space leaves space for others. Several
images in a row that do not fit alone mean that the repository's disk is full, which stops the run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from publisher.errors import (
    ClockError,
    OriginError,
    PublisherError,
    RepositoryError,
    SigningError,
    SpaceError,
    StateDirectoryError,
)
from publisher.publish.report import ImageResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from publisher.build.builder import Builder, BuildRequest, UncheckedSif
    from publisher.plan.model import PlanItem, Removal
    from publisher.publish.publication import Publication
    from publisher.publish.report import RunReport
    from publisher.publish.staged import StagedEntry
    from publisher.state.outcomes import Outcomes
    from publisher.state.snapshot import Snapshot
    from publisher.system.progress import Display

_log = logging.getLogger(__name__)

_MAX_UNFIT = 5
"""Number of images in a row that may not fit into the repository, each alone, before its disk counts as full."""


@dataclass(frozen=True)
class BatchLimits:
    """The limits of one transaction: bytes of all its sandboxes, and seconds that a finished image waits for others."""

    size: int = 20 << 30
    seconds: float = 600.0


class RunStoppedError(Exception):
    """A signal that the run ends here, with the error that ends it."""

    def __init__(self, error: PublisherError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class _Batch:
    """Entries that wait for their transaction.

    Attributes:
        started: when the first entry was added, in seconds of the clock.
        entries: the entries.
        requests: the builds of the entries, to discard once they are published.
    """

    started: float = 0.0
    entries: list[StagedEntry] = field(default_factory=list)
    requests: list[BuildRequest] = field(default_factory=list)


class BatchPublisher:
    """The transactions of one run.

    Args:
        publication: publishes batches.
        builder: discards builds that are published.
        display: shows progress.
        report: gets the outcome of every entry.
        snapshot: the published state.
        limits: the limits of one transaction.
        order: the names of all entries; a transaction, and what is said of it, has its entries in this order.
        clock: returns seconds, monotonic.

    Attributes:
        snapshot: the published state now.
        unfinished: returns the entries that are still to be added: their builds are not discarded, even if an entry that shares
            them is published meanwhile.
    """

    def __init__(
        self,
        publication: Publication,
        builder: Builder,
        display: Display,
        report: RunReport,
        snapshot: Snapshot,
        *,
        limits: BatchLimits,
        order: Iterable[str] = (),
        clock: Callable[[], float],
    ) -> None:
        self.snapshot = snapshot
        self.unfinished: Callable[[], Iterable[PlanItem]] = tuple
        self._order = {name: number for number, name in enumerate(order)}
        self._publication = publication
        self._builder = builder
        self._display = display
        self._report = report
        self._limits = limits
        self._clock = clock
        self._batch = _Batch()
        self._unfit: set[str] = set()  # digests of images that did not fit into the repository
        self._unfit_in_a_row = 0
        self._origin_error: PublisherError | None = None  # why the origin lacks the manifest that was published last

    @property
    def is_empty(self) -> bool:
        """Return whether no entry waits."""
        return not self._batch.entries

    @property
    def time_left(self) -> float:
        """Return the seconds that the waiting entries may go on waiting."""
        return max(0.0, self._batch.started + self._limits.seconds - self._clock())

    def unpack_early(self, item: PlanItem, sif: UncheckedSif) -> None:
        """Let the transaction of a run's last image begin while its SIF is checked, unless others wait for the transaction.

        Raises:
            RunStoppedError: the repository cannot be read.
        """
        if self.is_empty:
            try:
                self._publication.unpack_early(self.snapshot, item, sif)
            except RepositoryError as error:
                raise RunStoppedError(error) from error

    def add(self, entry: StagedEntry, requests: Sequence[BuildRequest]) -> None:
        """Add a finished entry; ``requests`` are its builds.

        A transaction has one clone: a second one that is worthwhile begins a new batch, and any other is unpacked instead.

        Raises:
            RunStoppedError: the batch before it could not be published.
        """
        if entry.clone is not None and any(waiting.clone is not None for waiting in self._batch.entries):
            if entry.clone.is_worthwhile:
                self.flush()
            else:
                entry = entry.without_clone()
        if self.is_empty:
            self._batch.started = self._clock()
        self._batch.entries.append(entry)
        self._batch.requests += requests

    def flush_if_full(self) -> None:
        """Publish the batch if it has reached a limit.

        Raises:
            RunStoppedError: as :meth:`flush`.
        """
        size = sum(entry.unpacked_size for entry in self._batch.entries)
        if not self.is_empty and (self.time_left <= 0 or size >= self._limits.size):
            self.flush()

    def flush(self, leaving: Sequence[Removal] = (), due: str | None = None, outcomes: Outcomes | None = None) -> None:
        """Publish the batch; with ``leaving`` or ``due`` also the names that leave, or the manifest alone.

        Args:
            leaving: names to mark as leaving.
            due: why the manifest must be published again even if nothing changed, None where it need not.
            outcomes: what is known of the images, published with the manifest; None for what was known before.

        Raises:
            RunStoppedError: repository, origin or state directory cannot be used, the disk is full, or the clock is wrong.
        """
        batch = self._batch
        if outcomes is not None:
            self.snapshot = replace(self.snapshot, outcomes=outcomes)
        if not batch.entries and not leaving and due is None:
            return
        batch.entries.sort(key=lambda entry: self._order.get(entry.name, 0))
        for entry in batch.entries:
            self._display.step(entry.name, "publish", 0, 1)
        try:
            try:
                self._publish(batch.entries, leaving, due)
            except SpaceError as error:
                self._publish_halves(batch.entries, error)
                if leaving or due is not None:
                    self._publish([], leaving, due)
        except (RepositoryError, OriginError, SpaceError, StateDirectoryError, ClockError, SigningError) as error:
            raise RunStoppedError(error) from error
        self._discard(batch.requests)
        self._batch = _Batch()
        self._check_origin()

    def _publish(self, entries: Sequence[StagedEntry], leaving: Sequence[Removal] = (), due: str | None = None) -> None:
        """Publish entries in one transaction; raise RepositoryError, OriginError or SpaceError where nothing was published."""
        began = self._clock()
        result = self._publication.publish(self.snapshot, entries, [removal.name for removal in leaving])
        self._report.transactions.append(self._clock() - began)
        self.snapshot = result.snapshot
        self._origin_error = result.behind
        if due is not None:
            self._report.notes.append(f"manifest published again: {due}")
        for entry in entries:
            if entry.name in result.failed:
                self._fail(entry.name, result.failed[entry.name])
            else:
                self._unfit_in_a_row = 0
                self._report.add(entry.name, ImageResult.PUBLISHED, entry.item.reason)
                self._report.published_size += entry.unpacked_size
                self._display.finish(entry.name, f"published: {entry.item.reason}")
        names = [entry.name for entry in entries if entry.name not in result.failed]
        _log.info("published a batch with serial %d: %s", self.snapshot.serial, ", ".join(names) or "no new image")
        for removal in leaving:
            _log.info("%s leaves: %s", removal.name, removal.reason)

    def _publish_halves(self, entries: Sequence[StagedEntry], error: SpaceError) -> None:
        """Publish those entries that fit, out of some that do not fit together.

        Raises:
            SpaceError: the disk is full.
        """
        if not entries:
            raise error
        if len(entries) == 1:
            self._refuse(entries[0], error)
            return
        middle = len(entries) // 2
        for half in (entries[:middle], entries[middle:]):
            try:
                self._publish(half)
            except SpaceError as half_error:
                self._publish_halves(half, half_error)

    def _refuse(self, entry: StagedEntry, error: SpaceError) -> None:
        """Report an entry that does not fit. Its build is kept, to be published once there is space."""
        self._fail(entry.name, error)
        self._unfit |= {digest for target in entry.item.targets for digest in target.identities}
        self._unfit_in_a_row += 1
        if self._unfit_in_a_row >= _MAX_UNFIT:
            raise error

    def _fail(self, name: str, error: PublisherError) -> None:
        self._display.finish(name, f"failed: {self._report.fail(name, error)}")

    def _discard(self, requests: Sequence[BuildRequest]) -> None:
        needed = {digest for item in self.unfinished() for target in item.targets for digest in target.identities}
        for request in requests:
            if request.image.identities.isdisjoint(self._unfit | needed):
                self._builder.discard(request)

    def _check_origin(self) -> None:
        """Stop the run if the origin refused the manifest: it would refuse the next one too."""
        if self._origin_error is not None:
            self._report.notes.append("the origin's manifest is behind the repository's; the next run updates it")
            raise RunStoppedError(self._origin_error)
