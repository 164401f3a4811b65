"""Carries out a plan: fetches the next image while one is built, stores its SIF, and publishes in batches.

A failure of one image becomes its outcome in the report and does not stop the others. The run stops for what the next image would
meet as well: a full disk, a repository that cannot be published to. After a kill, the next run finds fetched layers and finished
builds again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.errors import BuildError, PublisherError, RepositoryError, SpaceError
from publisher.plan.model import Action
from publisher.publish.batch import BatchLimits, BatchPublisher, RunStoppedError
from publisher.publish.remember import remember
from publisher.publish.report import ImageResult, RunReport
from publisher.system.durable import host_failure
from publisher.system.progress import BUILT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from publisher.build.builder import Builder, BuildRequest
    from publisher.images.reader import Entry
    from publisher.plan.model import Plan, PlanItem
    from publisher.publish.intake import Intake
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
        clock: returns seconds, monotonic.
        now: returns seconds since the epoch.
        outcomes: what became of the images in the last runs; None for what is published of it.

    Attributes:
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
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        outcomes: Outcomes | None = None,
    ) -> None:
        self._intake = intake
        self._builder = builder
        self._publication = publication
        self._display = display
        self._limits = limits
        self._clock = clock
        self._now = now
        self._started = int(now())
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
        self._builder.sweep({target.content for item in plan.work for target in item.targets})
        batches = BatchPublisher(
            self._publication, self._builder, self._display, report, snapshot, limits=self._limits, clock=self._clock
        )
        try:
            self._carry_out(plan, batches, report)
            outcomes = self._remember(plan, snapshot, report)
            due = None if outcomes.says_the_same(snapshot.outcomes) else "what is known of the images of the list has changed"
            batches.flush(plan.leaving, self._publication.due(batches.snapshot) or due, outcomes)
        except RunStoppedError as stop:
            _log.warning("the run stops: %s", stop.error)
            report.stopped = stop.error
        for item in plan.work:
            if item.entry.name not in report.outcomes:
                report.add(item.entry.name, ImageResult.SKIPPED, f"the run stopped before it: {report.stopped}")
        report.outcomes = {item.entry.name: report.outcomes[item.entry.name] for item in plan.items}
        report.serial = batches.snapshot.serial
        self.snapshot = batches.snapshot
        self.outcomes = self._remember(plan, snapshot, report)
        return report

    def _remember(self, plan: Plan, snapshot: Snapshot, report: RunReport) -> Outcomes:
        known = snapshot.outcomes if self._known is None else self._known
        return remember(known, plan, report, started=self._started, now=int(self._now()))

    def _report_items_without_work(self, plan: Plan, report: RunReport) -> None:
        for item in plan.items:
            if item.action in _WITHOUT_WORK:
                report.add(item.entry.name, _WITHOUT_WORK[item.action], item.reason)
            elif item.action is Action.FAILED:
                report.add(item.entry.name, ImageResult.FAILED, item.explanation, item.error)
                self._display.say(f"{item.entry.name}: failed: {item.reason}")

    def _carry_out(self, plan: Plan, batches: BatchPublisher, report: RunReport) -> None:
        """Publish what the plan asks for.

        Raises:
            RunStoppedError: the run ends early; entries that were finished before are published where that is possible.
        """
        try:
            if plan.work:
                self._require_idle()
                self._display.begin("publishing images", len(plan.work))
            for item, fetched in self._fetch_ahead(plan.work):
                self._process(item, fetched, batches, report)
                batches.flush_if_full()
        except SpaceError as error:
            with contextlib.suppress(RunStoppedError):  # the full disk is reported, not what follows from it
                batches.flush()
            raise RunStoppedError(error) from error

    def _require_idle(self) -> None:
        """Raise RunStoppedError before anything is fetched or built if somebody else's transaction is open."""
        try:
            self._publication.require_idle()
        except RepositoryError as error:
            raise RunStoppedError(error) from error

    def _fetch_ahead(self, work: tuple[PlanItem, ...]) -> Iterator[tuple[PlanItem, Future[list[BuildRequest]]]]:
        """Yield every item with its fetch, while the fetch of the next item is under way."""
        layers = self._builder.wants_layers
        futures = [self._intake.fetch(item, layers=layers) for item in work[:1]]
        for position, item in enumerate(work):
            future = futures.pop()
            futures += [self._intake.fetch(following, layers=layers) for following in work[position + 1 : position + 2]]
            try:
                yield item, future
            except BaseException:
                for waiting in futures:
                    waiting.cancel()
                raise

    def _process(self, item: PlanItem, fetched: Future[list[BuildRequest]], batches: BatchPublisher, report: RunReport) -> None:
        """Build the platforms of one item, store their SIFs and add the entry to the batch; a failure becomes its outcome."""
        batches.in_progress = {digest for target in item.targets for digest in target.identities}
        builds = {}
        try:
            requests = self._wait_for(fetched, batches)
            for request in requests:
                batches.flush_if_full()
                build = self._build(request, item.entry)
                builds[request.image.manifest.digest] = build
                report.stored_size += build.size if "sif" in item.entry.formats else 0
                self.configs[request.image.manifest.digest] = request.image.config.raw
        except SpaceError:
            raise
        except (OSError, PublisherError) as caught:
            error = host_failure(caught) if isinstance(caught, OSError) else caught
            if error is None:
                raise
            if isinstance(error, SpaceError):
                raise error from caught
            error.image = item.entry.name
            self._display.finish(item.entry.name, f"failed: {report.fail(item.entry.name, error)}")
            batches.in_progress = set()
            return
        for name in [request.name for request in requests] or [item.entry.name]:
            self._display.step(name, BUILT, 0, 1)
        batches.add(self._publication.stage(batches.snapshot, item, builds), requests)

    def _wait_for(self, fetched: Future[list[BuildRequest]], batches: BatchPublisher) -> list[BuildRequest]:
        """Return the fetched requests; publish the batch if its entries would wait for them longer than they may."""
        if not batches.is_empty:
            try:
                return fetched.result(timeout=batches.time_left)
            except TimeoutError:
                batches.flush()
        return fetched.result()

    def _build(self, request: BuildRequest, entry: Entry) -> BuiltImage:
        """Return the build of one platform; its SIF is in the origin if the entry asks for SIFs."""
        build = self._builder.build(request, lambda step, done, total: self._display.step(request.name, step, done, total))
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
