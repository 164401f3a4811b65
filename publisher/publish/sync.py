"""Carries out a plan: fetch the next image while this one is built, store its SIF, publish in batches.

One image's failure is a value in the report and stops nobody else. What stops the run is a wall that the next image would meet
as well: a full disk, a repository that cannot be published to. A repository without room for one image may have room for others:
what does not fit together is published in halves, and only several in a row that do not fit alone are a wall. A killed run loses
nothing that was finished: fetched layers and built SIFs are found again by the next one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.errors import BuildError, OriginError, PublisherError, RepositoryError, SpaceError
from publisher.plan.model import Action
from publisher.publish.report import ImageResult, RunReport
from publisher.publish.staged import BuiltTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from publisher.build.builder import Builder, BuildRequest
    from publisher.images.reader import Entry
    from publisher.plan.model import Plan, PlanItem, Removal
    from publisher.publish.intake import Intake
    from publisher.publish.publication import Publication
    from publisher.publish.staged import StagedEntry
    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot
    from publisher.system.progress import Display


_WALL = 5
"""So many images in a row that do not fit into the repository, each alone: its disk is full."""


@dataclass(frozen=True)
class BatchLimits:
    """How much one transaction may hold: bytes of all its sandboxes, and seconds that a finished image waits for others."""

    size: int = 20 << 30
    seconds: float = 600.0


@dataclass
class _Batch:
    """Images that wait for their transaction."""

    limits: BatchLimits
    clock: Callable[[], float]
    ready: list[StagedEntry] = field(default_factory=list)
    requests: list[BuildRequest] = field(default_factory=list)
    since: float = 0.0

    def add(self, ready: StagedEntry, requests: list[BuildRequest]) -> None:
        if not self.ready:
            self.since = self.clock()
        self.ready.append(ready)
        self.requests += requests

    @property
    def clones(self) -> bool:
        """Whether its transaction begins with a clone already: there is no place for a second one."""
        return any(one.clone is not None for one in self.ready)

    @property
    def left(self) -> float:
        """Seconds that its images may go on waiting."""
        return max(0.0, self.since + self.limits.seconds - self.clock())

    @property
    def full(self) -> bool:
        if not self.ready:
            return False
        return self.left <= 0 or sum(one.unpacked_size for one in self.ready) >= self.limits.size


class Sync:
    """One run.

    Args:
        intake: gives fetched images.
        builder: makes SIFs of them.
        publication: makes them public.
        display: where progress goes.
        limits: of one transaction.
        clock: seconds, monotonic.

    Attributes:
        snapshot: what is published once :meth:`run` has returned.
    """

    snapshot: Snapshot

    def __init__(
        self,
        intake: Intake,
        builder: Builder,
        publication: Publication,
        display: Display,
        *,
        limits: BatchLimits = BatchLimits(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._builder = builder
        self._publication = publication
        self._display = display
        self._limits = limits
        self._clock = clock

    def run(self, plan: Plan, snapshot: Snapshot) -> RunReport:
        """Carry out a plan against what is published; never raises for an image's sake."""
        report = RunReport(serial=snapshot.serial, removals=plan.removals, withheld=plan.withheld, unlisted=plan.unlisted)
        report.notes += plan.notes
        self._report_rest(plan, report)
        self._builder.sweep({target.digest for item in plan.work for target in item.targets})
        run = _Run(snapshot, report, _Batch(self._limits, self._clock))
        try:
            self._work(plan, run)
        except _Stopped as stop:
            report.stopped = stop.error
        for item in plan.work:
            if item.entry.name not in report.outcomes:
                report.add(item.entry.name, ImageResult.SKIPPED, "the run was stopped before it")
        report.outcomes = {item.entry.name: report.outcomes[item.entry.name] for item in plan.items}
        report.serial = run.snapshot.serial
        self.snapshot = run.snapshot
        return report

    def _report_rest(self, plan: Plan, report: RunReport) -> None:
        for item in plan.items:
            if item.action is Action.UNCHANGED:
                report.add(item.entry.name, ImageResult.UNCHANGED, item.reason)
            elif item.action is Action.GONE:
                report.add(item.entry.name, ImageResult.GONE, item.reason)
            elif item.action is Action.FAILED:
                report.add(item.entry.name, ImageResult.FAILED, _with_hint(item.reason, item.error))
                self._display.say(f"{item.entry.name}: failed: {item.reason}")

    def _work(self, plan: Plan, run: _Run) -> None:
        try:
            if plan.work:
                self._display.begin("publishing images", len(plan.work))
            for item, fetched in self._fetched(plan.work):
                self._one(item, fetched, run)
                if run.batch.full:
                    self._flush(run)
        except SpaceError as error:
            run.batch_or_nothing(self._flush)
            raise _Stopped(error) from error
        self._flush(run, plan.leaving, self._publication.due(run.snapshot))

    def _fetched(self, work: tuple[PlanItem, ...]) -> Iterator[tuple[PlanItem, Future[list[BuildRequest]]]]:
        """Every item with its fetch, the next one's under way already."""
        futures = [self._intake.fetch(item) for item in work[:1]]
        for position, item in enumerate(work):
            future = futures.pop()
            futures += [self._intake.fetch(following) for following in work[position + 1 : position + 2]]
            try:
                yield item, future
            except BaseException:
                for waiting in futures:
                    waiting.cancel()
                raise

    def _one(self, item: PlanItem, fetched: Future[list[BuildRequest]], run: _Run) -> None:
        """Build one entry's platforms and store their SIFs; a failure becomes its outcome."""
        name = item.entry.name
        run.in_hand = {target.digest for target in item.targets}
        try:
            requests, built = self._arrived(fetched, run), {}
            for request in requests:
                if run.batch.full:
                    self._flush(run)
                built[request.image.manifest.digest] = self._build(request, item.entry)
        except SpaceError:
            raise
        except PublisherError as error:
            error.image = name
            self._failed(name, error, run)
            run.in_hand = set()
            return
        made = tuple(BuiltTarget(target, built.get(target.digest)) for target in item.targets)
        one = self._publication.ready(run.snapshot, item, made)
        if one.clone is not None and run.batch.clones:
            if one.clone.pays:
                self._flush(run)
            else:
                one = one.whole()
        run.in_hand = set()
        run.batch.add(one, requests)

    def _arrived(self, fetched: Future[list[BuildRequest]], run: _Run) -> list[BuildRequest]:
        """What was fetched. Finished images do not wait for it longer than they may."""
        if run.batch.ready:
            try:
                return fetched.result(timeout=run.batch.left)
            except TimeoutError:
                self._flush(run)
        return fetched.result()

    def _build(self, request: BuildRequest, entry: Entry) -> BuiltImage:
        name = request.name
        built = self._builder.build(request, lambda step, done, total: self._display.step(name, step, done, total))
        if entry.max_size is not None and built.unpacked_size > entry.max_size:
            self._builder.discard(request)
            raise BuildError(
                f"its files have {built.unpacked_size} bytes, the list allows {entry.max_size}", hint="raise its max_size"
            )
        if "sif" in entry.formats:
            self._display.step(name, "store", 0, 1)
            self._publication.store(built)
        return built

    def _flush(self, run: _Run, leaving: Sequence[Removal] = (), due: str | None = None) -> None:
        """Publish what is ready, and what else there is to say in the manifest."""
        batch = run.batch
        if not batch.ready and not leaving and due is None:
            return
        for one in batch.ready:
            self._display.step(one.item.entry.name, "publish", 0, 1)
        try:
            try:
                self._publish(batch.ready, run, leaving, due)
            except SpaceError as error:
                self._publish_in_halves(batch.ready, run, error)
                if leaving or due is not None:
                    self._publish([], run, leaving, due)
        except (RepositoryError, OriginError, SpaceError) as error:
            raise _Stopped(error) from error
        for request in batch.requests:
            if request.image.manifest.digest not in run.unfit | run.in_hand:
                self._builder.discard(request)
        run.batch = _Batch(self._limits, self._clock)
        self._behind(run)

    def _publish_in_halves(self, ready: list[StagedEntry], run: _Run, error: SpaceError) -> None:
        """Publish those that fit, of images for which there is no room together."""
        if not ready:
            raise error
        if len(ready) == 1:
            self._does_not_fit(ready[0], error, run)
            return
        half = len(ready) // 2
        for part in (ready[:half], ready[half:]):
            try:
                self._publish(part, run)
            except SpaceError as again:
                self._publish_in_halves(part, run, again)

    def _does_not_fit(self, one: StagedEntry, error: SpaceError, run: _Run) -> None:
        """Its build is kept: it is published once there is room."""
        self._failed(one.item.entry.name, error, run)
        run.unfit |= {made.target.digest for made in one.made}
        run.refused += 1
        if run.refused >= _WALL:
            raise error

    def _publish(self, ready: list[StagedEntry], run: _Run, leaving: Sequence[Removal] = (), due: str | None = None) -> None:
        """One transaction. Raises RepositoryError, OriginError, SpaceError."""
        published = self._publication.publish(run.snapshot, ready, [removal.name for removal in leaving])
        run.snapshot = published.snapshot
        if due is not None:
            run.report.notes.append(f"manifest published anew: {due}")
        for one in ready:
            name = one.item.entry.name
            if name in published.failed:
                self._failed(name, published.failed[name], run)
            else:
                run.refused = 0
                run.report.add(name, ImageResult.PUBLISHED, one.item.reason)
                self._display.finish(name, f"published: {one.item.reason}")
        run.behind = published.behind

    def _behind(self, run: _Run) -> None:
        """An origin that does not take the manifest would not take the next one either."""
        if run.behind is not None:
            run.report.notes.append("the origin's manifest is behind; the next run brings it up to date")
            raise _Stopped(run.behind)

    def _failed(self, name: str, error: PublisherError, run: _Run) -> None:
        run.report.add(name, ImageResult.FAILED, _with_hint(error.reason, error))
        self._display.finish(name, f"failed: {_with_hint(error.reason, error)}")


@dataclass
class _Run:
    """What changes while a run lasts.

    Attributes:
        snapshot: what is published.
        report: what became of the images so far.
        batch: those that wait.
        in_hand: manifests of the entry that is being built: another name's builds of these are not let go of.
        unfit: manifests of images for which there was no room.
        refused: how many of those there were since one was published.
        behind: why the origin does not have what was published last.
    """

    snapshot: Snapshot
    report: RunReport
    batch: _Batch
    in_hand: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)
    refused: int = 0
    behind: PublisherError | None = None

    def batch_or_nothing(self, flush: Callable[[_Run], None]) -> None:
        """Publish what is finished before a wall ends the run; the wall is what is reported, not what follows from it."""
        try:
            flush(self)
        except _Stopped:
            return


class _Stopped(Exception):  # noqa: N818 - not an error of its own: it carries one
    """The run ends here."""

    def __init__(self, error: PublisherError) -> None:
        super().__init__(str(error))
        self.error = error


def _with_hint(reason: str, error: PublisherError | None) -> str:
    return reason if error is None or error.hint is None else f"{reason} ({error.hint})"
