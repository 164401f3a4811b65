"""Carries out a plan: fetches and builds several images at a time, stores their SIFs, and publishes in batches.

A failure of one image becomes its outcome in the report and does not stop the others. The run stops for what the next image would
meet as well: a full disk, a repository that cannot be published to. After a kill, the next run finds fetched layers and finished
builds again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.errors import BuildError, PublisherError, RepositoryError, SpaceError
from publisher.plan.model import Action
from publisher.plan.priority import by_priority
from publisher.publish.batch import BatchLimits, BatchPublisher, RunStoppedError
from publisher.publish.pipeline.pipeline import Pipeline, Squashed
from publisher.publish.pipeline.threads import WorkThreads
from publisher.publish.remember import remember
from publisher.publish.report import ImageResult, RunReport
from publisher.system.durable import host_failure
from publisher.system.progress import BUILT, READ_BACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from publisher.build.builder import Builder, BuildRequest
    from publisher.images.reader import Entry
    from publisher.plan.model import Plan, PlanItem
    from publisher.publish.intake import Intake
    from publisher.publish.pipeline.pipeline import Finished, Workers
    from publisher.publish.publication import Publication
    from publisher.state.built import BuiltImage
    from publisher.state.outcomes import Outcomes
    from publisher.state.snapshot import Snapshot
    from publisher.system.progress import Display

_log = logging.getLogger(__name__)

_WITHOUT_WORK = {
    Action.UNCHANGED: ImageResult.UNCHANGED,
    Action.HELD: ImageResult.HELD,
    Action.BLOCKED: ImageResult.BLOCKED,
    Action.GONE: ImageResult.GONE,
}
"""Decisions that need no work -> the result of the image."""


class Sync:
    """One run.

    Args:
        intake: fetches images.
        builder: makes SIFs from them.
        publication: publishes them.
        display: shows progress.
        limits: the limits of one transaction.
        free: returns the free bytes of the disk that has layers and builds.
        workers: returns as many threads as it is asked for, or what a test has in their place.
        clock: returns seconds, monotonic.
        now: returns seconds since the epoch.
        outcomes: what became of the images in the last runs; None for what is published of it.

    Attributes:
        started: when the run began, seconds since the epoch.
        snapshot: the published state once :meth:`run` has returned.
        outcomes: what is known of the images once :meth:`run` has returned.
        configs: digest -> image config of the images that were built.
    """

    snapshot: Snapshot
    outcomes: Outcomes
    configs: dict[str, bytes]

    def __init__(
        self,
        intake: Intake,
        builder: Builder,
        publication: Publication,
        display: Display,
        *,
        limits: BatchLimits,
        free: Callable[[], int],
        workers: Callable[[int], Workers] = WorkThreads["Finished | Squashed"],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        outcomes: Outcomes | None = None,
    ) -> None:
        self._intake = intake
        self._builder = builder
        self._publication = publication
        self._display = display
        self._limits = limits
        self._free = free
        self._workers = workers
        self._clock = clock
        self._now = now
        self.started = int(now())
        self._known = outcomes
        self.configs = {}

    def run(self, plan: Plan, snapshot: Snapshot) -> RunReport:
        """Carry out a plan on the published state; failures, also those that stop the run, are in the report."""
        report = RunReport(
            serial=snapshot.serial,
            notes=list(plan.notes),
            removals=plan.removals,
            withheld=plan.withheld,
            unlisted=plan.unlisted,
        )
        self._report_items_without_work(plan, report)
        if plan.whole:  # the plan of some names does not say which builds the others still want
            failed = {item.entry.name for item in plan.items if item.action is Action.FAILED}
            self._builder.sweep({target.content for item in plan.work for target in item.targets}, failed)
        batches = BatchPublisher(
            self._publication,
            self._builder,
            self._display,
            report,
            snapshot,
            limits=self._limits,
            order=(item.entry.name for item in plan.items),
            clock=self._clock,
        )
        try:
            self._carry_out(plan, snapshot, batches, report)
            outcomes = self._remember(plan, snapshot, report)
            due = None if outcomes.says_the_same(snapshot.outcomes) else "what is known of the images of the list has changed"
            batches.flush(plan.leaving, self._publication.due(batches.snapshot) or due, outcomes)
        except RunStoppedError as stop:
            _log.warning("the run stops: %s", stop.error)
            report.stopped = stop.error
        finally:
            self._publication.discard_early()
        for item in plan.work:
            if item.entry.name not in report.outcomes:
                report.add(item.entry.name, ImageResult.SKIPPED, f"the run stopped before it: {report.stopped}")
        report.outcomes = {item.entry.name: report.outcomes[item.entry.name] for item in plan.items}
        report.serial = batches.snapshot.serial
        self.snapshot = batches.snapshot
        self.outcomes = self._remember(plan, snapshot, report)
        return report

    def _remember(self, plan: Plan, snapshot: Snapshot, report: RunReport) -> Outcomes:
        return remember(self._known_outcomes(snapshot), plan, report, started=self.started, now=int(self._now()))

    def _known_outcomes(self, snapshot: Snapshot) -> Outcomes:
        return snapshot.outcomes if self._known is None else self._known

    def _report_items_without_work(self, plan: Plan, report: RunReport) -> None:
        for item in plan.items:
            if item.action in _WITHOUT_WORK:
                report.add(item.entry.name, _WITHOUT_WORK[item.action], item.reason)
            elif item.action is Action.FAILED:
                report.add(item.entry.name, ImageResult.FAILED, item.explanation, item.error)
                self._display.say(f"{item.entry.name}: failed: {item.reason}")

    def _carry_out(self, plan: Plan, snapshot: Snapshot, batches: BatchPublisher, report: RunReport) -> None:
        """Publish what the plan asks for.

        Raises:
            RunStoppedError: the run ends early; entries that were finished before are published where that is possible.
        """
        if not plan.work:
            return
        self._require_idle()
        self._display.begin("publishing images", len(plan.work))
        sizes = self._intake.sizes(plan.work)
        try:
            with self._pipeline(sizes, snapshot) as pipeline:
                batches.unfinished = lambda: pipeline.unfinished
                pipeline.start(by_priority(plan, self._known_outcomes(snapshot), sizes))
                while not pipeline.is_done:
                    news = pipeline.wait(None if batches.is_empty else batches.time_left)
                    batches.flush_if_full()
                    if isinstance(news, Squashed):
                        self._unpack_early(news, pipeline, batches)
                    elif news is not None:
                        self._take(news, pipeline, batches, report)
                        batches.flush_if_full()
        except SpaceError as error:
            with contextlib.suppress(RunStoppedError):  # the full disk is reported, not what follows from it
                batches.flush()
            raise RunStoppedError(error) from error

    @contextlib.contextmanager
    def _pipeline(self, sizes: Mapping[str, int], snapshot: Snapshot) -> Iterator[Pipeline]:
        """Yield the pipeline of the run; on the way out because of an error, what is under way is ended."""
        workers = self._workers(self._builder.parallel)
        pipeline = Pipeline(
            partial(self._intake.fetch, layers=self._builder.wants_layers),
            partial(self._make, snapshot),
            workers,
            self._display,
            parallel=self._builder.parallel,
            sizes=sizes,
            free=self._free,
        )
        try:
            yield pipeline
        except BaseException as error:
            pipeline.stop()
            self._builder.stop()
            if isinstance(error, RunStoppedError | SpaceError):  # what was built may be on its way to the origin
                workers.join()
            raise
        workers.join()

    def _require_idle(self) -> None:
        """Raise RunStoppedError before anything is fetched or built if somebody else's transaction is open."""
        try:
            self._publication.require_idle()
        except RepositoryError as error:
            raise RunStoppedError(error) from error

    def _unpack_early(self, squashed: Squashed, pipeline: Pipeline, batches: BatchPublisher) -> None:
        """Let the transaction begin if nothing else is under way that it would have to wait for, or that would wait for it."""
        if not pipeline.is_last(squashed.item):
            return
        sif = self._builder.unchecked(squashed.request)
        if sif is not None:
            batches.unpack_early(squashed.item, sif)

    def _take(self, finished: Finished, pipeline: Pipeline, batches: BatchPublisher, report: RunReport) -> None:
        """Add a finished entry to the batch; a failure becomes its outcome.

        Raises:
            SpaceError: the disk has no space for the image, although nothing else was under way.
            RunStoppedError: there is no space, or the batch could not be published.
        """
        item, name = finished.item, finished.item.entry.name
        error = finished.error if finished.error is None else _expected(finished.error)
        if isinstance(error, SpaceError):
            if finished.alone:
                raise error
            try:
                batches.flush()  # makes room
            except RunStoppedError:
                raise RunStoppedError(error) from error
            pipeline.repeat(finished)
            return
        if error is not None:
            error.image = name
            self._display.finish(name, f"failed: {report.fail(name, error)}")
        else:
            for request in finished.requests:
                self.configs[request.image.manifest.digest] = request.image.config.raw
            report.stored_size += sum(build.size for build in finished.builds.values()) if "sif" in item.entry.formats else 0
            for label in [request.name for request in finished.requests] or [name]:
                self._display.step(label, BUILT, 0, 1)
            batches.add(self._publication.stage(batches.snapshot, item, finished.builds), finished.requests)
        pipeline.release(item)

    def _make(
        self, snapshot: Snapshot, item: PlanItem, requests: list[BuildRequest], squashed: Callable[[BuildRequest], None]
    ) -> dict[str, BuiltImage]:
        """Build the platforms of one item and store their SIFs; in any thread. ``squashed`` gets each whose SIF is made."""
        builds = {}
        for request in requests:
            digest = request.image.manifest.digest
            earlier = self._publication.earlier_sif(snapshot, item, digest) if request.sif else None
            builds[digest] = self._build(replace(request, earlier=earlier), item.entry, squashed)
        return builds

    def _build(self, request: BuildRequest, entry: Entry, squashed: Callable[[BuildRequest], None]) -> BuiltImage:
        """Return the build of one platform; its SIF is in the origin if the entry asks for SIFs."""

        def show(step: str, done: int, total: int) -> None:
            self._display.step(request.name, step, done, total)
            if step == READ_BACK:
                squashed(request)

        build = self._builder.build(request, show)
        if entry.max_size is not None and build.unpacked_size > entry.max_size:
            self._builder.discard(request)
            raise BuildError(
                f"its files have {format_size(build.unpacked_size)}, but its entry allows {format_size(entry.max_size)}",
                hint="raise its max_size",
            )
        if "sif" in entry.formats:
            self._display.step(request.name, "store", 0, 1)
            self._publication.store_sif(build)
        return build


def _expected(caught: BaseException) -> PublisherError:
    """Return an expected failure, or that of the host behind an OSError; raise what may be a bug."""
    error = host_failure(caught) if isinstance(caught, OSError) else caught
    if not isinstance(error, PublisherError):
        raise caught
    return error
