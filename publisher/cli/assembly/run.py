"""Assembles a publishing run from the settings: the image list, the plan, the sync, garbage collection."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from publisher.build.on_demand import OnDemandBuilder
from publisher.caches.popular import popular_sifs
from publisher.cli.state_directory import load_outcomes, save_outcomes
from publisher.contract import files
from publisher.contract.manifest import INDEX_NAME
from publisher.errors import PublisherError, SpaceError, StateDirectoryError, UsageError
from publisher.images import reader
from publisher.maintain import chunk_tables, gc, lost_sifs, verify
from publisher.maintain.adoption.throttle import BatchQuota, throttle_adopted
from publisher.maintain.lost_sifs import SifRestorer
from publisher.page.details import read_config
from publisher.plan import quota
from publisher.plan.backoff import hold_back
from publisher.plan.make import make_plan
from publisher.plan.model import Plan, UnlistedPattern
from publisher.plan.retention import RetentionLimits, expired_note
from publisher.publish.batch import BatchLimits
from publisher.publish.report import ImageResult
from publisher.publish.sync import Sync
from publisher.state.paths import ORIGIN_MANIFEST, SIF_PREFIX
from publisher.status.answer import Known
from publisher.status.lag import run_lags
from publisher.system.durable import failures
from publisher.targets.origins.replicated import OriginPlaces, ReplicatedOrigin, behind_of, warnings_of
from publisher.usage.store import load_usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from publisher.build.builder import Builder
    from publisher.build.parallel import ParallelBuilder
    from publisher.cli.assembly.page import SyncPage
    from publisher.cli.assembly.run_options import RunOptions
    from publisher.images.reader import Entry, ImageList
    from publisher.maintain.gc import GcResult
    from publisher.plan.model import PlanItem
    from publisher.publish.intake import Intake
    from publisher.publish.publication import Publication
    from publisher.publish.report import RunReport
    from publisher.settings.settings import PublisherSettings
    from publisher.state.snapshot import Snapshot
    from publisher.system.progress import Display
    from publisher.targets.origins.base import Origin

_log = logging.getLogger(__name__)


def load_list(settings: PublisherSettings) -> ImageList:
    """Return the image list.

    Raises:
        UsageError: it cannot be read.
        ListError: it is not valid.
    """
    image_list = reader.load(settings.images, settings.name_template)
    _log.info("%s has %d entries and %d patterns", settings.images, len(image_list.entries), len(image_list.patterns))
    return image_list


@dataclass(frozen=True)
class SelectedEntries:
    """The entries of a run.

    Attributes:
        entries: the entries, patterns expanded.
        unlisted: the patterns of which the tags are unknown.
        patterns: each other pattern, as text -> the names that it stands for, the newest first.
    """

    entries: tuple[Entry, ...]
    unlisted: list[UnlistedPattern] = field(default_factory=list)
    patterns: dict[str, tuple[str, ...]] = field(default_factory=dict)


def plan_run(settings: PublisherSettings, image_list: ImageList, snapshot: Snapshot, intake: Intake, options: RunOptions) -> Plan:
    """Return the plan of a run; registries are asked, nothing is changed.

    Raises:
        UsageError: a name in the options is not in the list.
    """
    selected = select_entries(image_list, options.names, intake)
    entries = selected.entries
    _log.info("planning: %d entries, %d published names", len(entries), len(snapshot.records))
    answers = intake.resolve(entries, snapshot.records)
    answers |= quota.refusals(entries, snapshot, settings.quotas)
    now = datetime.now(UTC)
    plan = make_plan(
        entries,
        answers,
        snapshot,
        whole=not options.names,
        rebind=options.rebind,
        unlisted=selected.unlisted,
        allow_mass_removal=options.allow_mass_removal,
        today=now.date(),
        patterns=selected.patterns,
    )
    expired = () if options.names else expired_note(image_list.entries, now.date())
    plan = replace(plan, notes=(*expired, *plan.notes))
    named = {entry.name for entry in entries} if options.names else ()
    plan = hold_back(plan, load_outcomes(settings.state, snapshot), int(now.timestamp()), named)
    plan = throttle_adopted(plan, BatchQuota(settings.adopt_sifs_per_run, now.toordinal()))
    _log.info("the plan: %d image(s) to publish, %d name(s) to remove", len(plan.work), len(plan.leaving))
    return plan


def select_entries(image_list: ImageList, names: Sequence[str], intake: Intake) -> SelectedEntries:
    """Return the entries of ``names``, or all if it is empty.

    Patterns are expanded with the tags of their registries, unless ``names`` has entries of the list only.

    Raises:
        UsageError: a name is not in the list.
    """
    if names:
        with contextlib.suppress(UsageError):
            return SelectedEntries(reader.select(_unexpired(image_list.entries), names))
    expanded: list[Entry] = []
    unlisted: list[UnlistedPattern] = []
    patterns: dict[str, tuple[str, ...]] = {}
    for pattern, tags in zip(image_list.patterns, intake.tags(image_list.patterns), strict=True):
        if isinstance(tags, PublisherError):
            _log.debug("the tags of %s are unknown: %s", pattern, tags)
            unlisted.append(UnlistedPattern(str(pattern), pattern.covers, tags))
        else:
            found = reader.expand(pattern, tags)
            patterns[str(pattern)] = tuple(entry.name for entry in found)
            expanded += found
    return SelectedEntries(reader.select(_unexpired(image_list.merge(expanded)), names), unlisted, patterns)


def _unexpired(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the entries that have not expired. An expired entry's name is not published from a pattern either."""
    today = datetime.now(UTC).date()
    return tuple(entry for entry in entries if entry.expires is None or entry.expires >= today)


def run_sync(
    settings: PublisherSettings,
    plan: Plan,
    snapshot: Snapshot,
    *,
    intake: Intake,
    publication: Publication,
    display: Display,
    collect: bool,
    page: SyncPage | None = None,
    image_list: ImageList | None = None,
) -> RunReport:
    """Carry out a plan, then collect garbage, audit a share of the SIFs, and trim the store of layers to its size.

    Args:
        settings: the settings.
        plan: the plan.
        snapshot: the published state.
        intake: the open connections to registries.
        publication: the open publication.
        display: shows the progress.
        collect: whether garbage is collected and SIFs are audited. Garbage also is if the run stopped because of a full disk,
            because that frees space.
        page: the status page, written at the end; None for no page.
        image_list: the list, for notices at the end; None for no notices.
    """
    with _open_builders(settings, plan, intake, publication.origin) as (builder, here):
        before = load_outcomes(settings.state, snapshot)
        sync = Sync(
            intake,
            builder,
            publication,
            display,
            limits=BatchLimits(settings.batch_size, settings.batch_time),
            free=lambda: shutil.disk_usage(settings.state).free,
            outcomes=before,
        )
        _log.info("publishing: %d image(s)", len(plan.work))
        began = time.monotonic()
        report = sync.run(plan, snapshot)
        builder.close()
        built = time.monotonic()
        save_outcomes(settings.state, sync.outcomes)
        report.lags = run_lags(plan, report, before, partial(_created, sync.configs), int(time.time()))
        published = sync.snapshot
        if collect and (report.stopped is None or isinstance(report.stopped, SpaceError)):
            collected = collect_garbage(settings, publication, sync.snapshot)
            report.cleared, published = collected.lines, collected.snapshot
            report.stopped = report.stopped or collected.error
            if report.stopped is None:
                restorer = SifRestorer(publication, collected.snapshot, intake, here, display)
                report.restored, report.lost = _audit_share(settings, publication.origin, restorer)
                added = chunk_tables.add_tables(publication, restorer.snapshot, settings.chunk_tables_per_run)
                published = added.snapshot
                report.notes += added.lines
                report.lost += added.failures
            report.serial = published.serial
    report.notes += [*builder.take_notes(), *intake.warnings(), *publication.repository.take_warnings()]
    report.behind = behind_of(publication.origin)
    report.notes += warnings_of(publication.origin)
    intake.store.trim(settings.blob_cache, keep=())
    if page is not None:
        report.notes += page.finish(published, sync.outcomes, sync.configs)
    report.notes += warm_caches(settings, report, published, sync.started)
    if image_list is not None:
        from publisher.cli.assembly.notices import send_notices  # noqa: PLC0415 - it needs HTTP, and most commands do not

        known = Known(replace(published, outcomes=sync.outcomes), image_list, datetime.now(UTC).date())
        report.notes += send_notices(settings, known)
    report.phases = {"publish": built - began, "maintain": time.monotonic() - built}
    _log.info("the run ends with manifest serial %d", report.serial)
    return report


@contextlib.contextmanager
def _open_builders(settings: PublisherSettings, plan: Plan, intake: Intake, origin: Origin) -> Iterator[tuple[Builder, Builder]]:
    """Yield the builder of a run, and the one of this host for SIFs that the origin has lost.

    Raises:
        PublisherError: as :func:`publisher.cli.assembly.builder.open_builder`, if there is something to build or to delete.
    """
    with contextlib.ExitStack() as stack:

        def open_here() -> ParallelBuilder:
            from publisher.cli.assembly.builder import open_builder  # noqa: PLC0415 - most runs build nothing

            return stack.enter_context(open_builder(settings))

        if plan.work or settings.builder != "local" or _has_builds(settings.state / "builds"):
            from publisher.cli.assembly.builder import choose_builder  # noqa: PLC0415 - see above

            here = open_here()
            chosen = choose_builder(settings, here, intake, origin)
            if chosen is here:
                here.start(len(plan.work))
            yield chosen, here
        else:
            idle = OnDemandBuilder(open_here)
            yield idle, idle


def _has_builds(work: Path) -> bool:
    """Return whether a directory has finished builds, or what killed runs left of others."""
    with failures(StateDirectoryError, f"{work} cannot be read"):
        return work.is_dir() and any(path.is_dir() for path in work.iterdir())


def warm_caches(
    settings: PublisherSettings, report: RunReport, published: Snapshot, since: int, now: float | None = None
) -> list[str]:
    """Ask the caches of the settings to fetch the SIFs that a run has published and jobs will want.

    Args:
        settings: the settings.
        report: the report of the run.
        published: the published state.
        since: when the run began, seconds since the epoch.
        now: the time, None for that of this host.

    Returns:
        lines about caches that did not.
    """
    if not settings.caches:
        return []
    from publisher.cli.assembly.caches import prestage  # noqa: PLC0415 - it needs HTTP, and most commands do not

    try:
        usage = load_usage(settings.state)
    except PublisherError as error:
        return [str(error)]
    names = [name for name, outcome in report.outcomes.items() if outcome.result is ImageResult.PUBLISHED]
    sifs = popular_sifs(published, names, usage, since=since, now=int(now or time.time()), most=settings.prestaged_per_run)
    return prestage(settings, [sif.path for sif in sifs])


def _created(configs: Mapping[str, bytes], item: PlanItem) -> int:
    """Return when the image of an item was built, by the configs that this run has read; 0 if that is not known."""
    with contextlib.suppress(ValueError, RecursionError):
        return max(
            (read_config(configs[target.digest]).created for target in item.targets if target.digest in configs), default=0
        )
    return 0


def _audit_share(settings: PublisherSettings, origin: Origin, restorer: SifRestorer) -> tuple[list[str], list[PublisherError]]:
    """Look for the next SIFs in the origin and restore those that it has lost; a file remembers where the next run goes on.

    Returns:
        A line for each SIF that was restored, and an error for each that was not.
    """
    cursor = settings.state / "audited"
    try:
        with failures(StateDirectoryError, f"{cursor} cannot be used"):
            after = cursor.read_bytes().decode("utf-8", "replace") if cursor.exists() else ""
            share = lost_sifs.select_share(restorer.snapshot, after, settings.audited_per_run)
            lost = lost_sifs.find_lost(origin, share)
            copied = follow(origin, restorer.snapshot, limit=settings.audited_per_run)
            if share and share[-1].version.sif is not None:
                files.replace(str(cursor), share[-1].version.sif.path.encode())
    except PublisherError as error:
        return [], [error]
    restored, unrestored = lost_sifs.restore_all(restorer, lost)
    return [*copied, *restored], unrestored


def follow(origin: Origin, snapshot: Snapshot, *, limit: int | None = None, deep: bool = False) -> list[str]:
    """Make the origins that follow another one like it, see :meth:`ReplicatedOrigin.catch_up`; return a line for each object."""
    if not isinstance(origin, ReplicatedOrigin):
        return []
    places = OriginPlaces(SIF_PREFIX, ORIGIN_MANIFEST, f"{ORIGIN_MANIFEST}/{INDEX_NAME}")
    return origin.catch_up(verify.objects(verify.select_builds(snapshot, ())), places, limit=limit, deep=deep)


def collect_garbage(
    settings: PublisherSettings, publication: Publication, snapshot: Snapshot, *, dry_run: bool = False
) -> GcResult:
    """Remove what was superseded or ended longer than its grace ago, within the limits of one run."""
    limits = RetentionLimits(settings.superseded_grace, settings.removals_per_run, settings.removed_size_per_run)
    return gc.collect(publication, snapshot, int(time.time()), limits, dry_run=dry_run)
