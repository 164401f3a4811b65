"""Writes the files of the page that have changed since the last time, and removes those of images that nothing knows any more.

A sync that changes one image writes its page and badge, one shard of rows, and the few files about the whole publication.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.page import places, plots, render
from publisher.page.learn import DAY, Sources, build_pairs, learn
from publisher.page.rows import active_versions, make_rows, patterns_json
from publisher.page.usage import usage_lines
from publisher.status.answer import ImageState
from publisher.status.overview import make_overview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from publisher.page.memory import PageMemory
    from publisher.page.rows import Row
    from publisher.page.targets import PageTarget
    from publisher.status.answer import Known
    from publisher.status.overview import Overview
    from publisher.usage.records import NameUsage

_log = logging.getLogger(__name__)
_YEAR, _MONTH = 365 * DAY, 30 * DAY
_IN_FEED, _IN_HISTORY = 100, 50
DEADLINE = 600.0
"""Seconds after which the pages of further images wait for the next sync: an origin may take long for each file."""


@dataclass(frozen=True)
class PageContent:
    """What the page is made from.

    Attributes:
        known: all that is known of the images.
        now: seconds since the epoch.
        interval: seconds between two syncs, None if that is not known.
        origin: the URL of the origin with ``/`` at its end, empty if it has none.
        sources: where history and details come from.
        usage: name -> its use, as far as it is known.
    """

    known: Known
    now: int
    interval: float | None
    origin: str
    sources: Sources
    usage: Mapping[str, NameUsage] = field(default_factory=dict)


@dataclass
class PageReport:
    """What was written.

    Attributes:
        written: paths of the files.
        removed: paths of files that were removed.
        waiting: number of files that have to wait for the next sync.
        error: why writing ended early, None if it did not.
    """

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    waiting: int = 0
    error: PublisherError | None = None


@dataclass(frozen=True)
class _File:
    """A file of the page: a text that changes whenever its content does, and a function that makes the content."""

    path: str
    fingerprint: str
    content: Callable[[], bytes]


def write_page(target: PageTarget, memory: PageMemory, content: PageContent, clock: Callable[[], float]) -> PageReport:
    """Write what has changed. A failure of the target is in the report; what was written before is remembered.

    Args:
        target: where to write.
        memory: what was written before; open.
        content: what the page is made from.
        clock: returns seconds, monotonic.
    """
    if memory.get("target") != target.name:
        memory.forget_files()
        memory.put("target", target.name)
    rows = make_rows(content.known, content.usage)
    learn(memory, content.known, rows, content.sources, content.now)
    report = PageReport()
    try:
        _write_files(target, memory, _Pages(memory, content, rows), report, clock)
    except PublisherError as error:
        report.error = error
    return report


def write_running(target: PageTarget, steps: Mapping[str, str], now: int) -> None:
    """Write which images the run under way publishes (name -> step). Raise PublisherError."""
    target.write(places.RUNNING, render.script("publisherRunning", {"started": now, "steps": dict(steps)}))


def _write_files(target: PageTarget, memory: PageMemory, pages: _Pages, report: PageReport, clock: Callable[[], float]) -> None:
    before, end = memory.files(), clock() + DEADLINE
    wanted = set()

    def write(file: _File) -> None:
        target.write(file.path, file.content())
        memory.wrote(file.path, file.fingerprint)
        report.written.append(file.path)

    for file in pages.of_images():
        wanted.add(file.path)
        if before.get(file.path) != file.fingerprint:
            if clock() < end:
                write(file)
            else:
                report.waiting += 1
    for file in pages.of_all():
        wanted.add(file.path)
        if before.get(file.path) != file.fingerprint:
            write(file)
    write_running(target, {}, 0)
    report.written.append(places.RUNNING)
    for path in sorted(before.keys() - wanted):
        target.remove(path)
        memory.removed(path)
        report.removed.append(path)


class _Pages:
    """The files of the page, made when they are needed."""

    def __init__(self, memory: PageMemory, content: PageContent, rows: Sequence[Row]) -> None:
        self._memory = memory
        self._content = content
        self._known = content.known
        self._repository = content.known.snapshot.repository
        self._rows = rows

    # --- two files for each image

    def of_images(self) -> Iterator[_File]:
        """Yield page and badge of every image."""
        newest, details, compared = self._memory.newest_events(), self._memory.known_details(), self._memory.compared()
        for row in self._rows:
            record = self._known.snapshot.records.get(row.name)
            builds = active_versions(record)
            pairs = [(current.digest, previous.digest) for current, previous in build_pairs(self._known.snapshot, row.name)]
            facts = [
                row.to_json(),
                None if record is None else record.to_json(),
                newest.get(row.name),
                [version.digest in details for _, version in builds],
                [pair in compared for pair in pairs],
                self._content.origin,
            ]
            yield _File(places.image_path(row.name), _fingerprint(facts), partial(self._image, row))
            facts = [row.name, row.state, row.since]
            yield _File(places.badge_path(row.name), _fingerprint(facts), partial(render.badge, row))

    def _image(self, row: Row) -> bytes:
        record = self._known.snapshot.records.get(row.name)
        builds = active_versions(record)
        pair = next(iter(build_pairs(self._known.snapshot, row.name)), None)
        root = places.root_of(places.image_path(row.name))
        return self._render(
            "image.html",
            root=root,
            page="image",
            row=row,
            usage=usage_lines(record, self._repository, self._content.origin) if record is not None and row.usable else [],
            builds=builds,
            signatures=render.signature_lines(builds),
            details=self._memory.details(builds[0][1].digest) if builds else None,
            changes=None if pair is None else self._memory.build_changes(pair[0].digest, pair[1].digest),
            events=self._memory.events(row.name, _IN_HISTORY),
            badge=root + places.url(places.badge_path(row.name)),
        )

    # --- the files about all

    def of_all(self) -> Iterator[_File]:
        """Yield all other files; what names others comes last."""
        for name in render.ASSETS:
            yield _file(name, render.asset(name))
        versions = []
        by_shard: dict[int, list[Row]] = {}
        shards = places.shard_count(len(self._rows))
        for row in self._rows:
            by_shard.setdefault(places.shard_number(row.name, shards), []).append(row)
        for number in range(shards):
            if number in by_shard:
                file = _file(places.shard_path(number), render.shard(by_shard[number]))
                yield file
                versions.append(file.fingerprint[:8])
            else:
                versions.append("")
        overview = make_overview(self._known, self._content.now, self._content.interval)
        yield _file(places.IMAGES, render.images_json(self._rows, self._repository))
        yield _file(places.FEED, self._feed())
        yield _file(places.HEALTH, self._health(overview))
        yield _file(places.STATUS, self._status(overview, versions))
        yield _file(places.INDEX, self._index(overview))

    def _status(self, overview: Overview, versions: Sequence[str]) -> bytes:
        value = {
            "repository": self._repository,
            "started": overview.started,
            "finished": overview.finished,
            "next": overview.next_run,
            "serial": overview.serial,
            "expires": overview.expires,
            "counts": render.counts(overview.counts),
            "shards": versions,
            "patterns": patterns_json(self._known),
        }
        return render.script("publisherStatus", value)

    def _index(self, overview: Overview) -> bytes:
        rows = self._rows
        return self._render(
            "index.html",
            root="",
            page="index",
            overview=overview,
            counts=render.counts(overview.counts),
            total=len(rows),
            rows=rows[: render.TABLE_ROWS],
            platforms=sorted({platform for row in rows for platform in row.platforms}),
            registries=sorted({row.registry for row in rows if row.registry}),
            owners=sorted({row.owner for row in rows if row.owner}),
        )

    def _feed(self) -> bytes:
        events = self._memory.events(limit=_IN_FEED)
        return self._render("feed.xml", events=events, updated=max((event.time for event in events), default=0))

    def _health(self, overview: Overview) -> bytes:
        totals, now = self._memory.totals(), self._content.now
        made = [
            plots.line_plot("Number of images", {"images": [(one.day * DAY, one.images) for one in totals]}, plots.count_text),
            plots.line_plot(
                "Size of what is published",
                {
                    "sandboxes": [(one.day * DAY, one.sandboxes) for one in totals],
                    "SIFs": [(one.day * DAY, one.sifs) for one in totals],
                },
                plots.size_text,
            ),
            plots.line_plot(
                "Time from the change of a tag to its publication, by week",
                plots.lag_series(self._memory.lags(now - _YEAR)),
                plots.time_text,
            ),
        ]
        failing = Counter(row.registry for row in self._rows if row.state == ImageState.FAILING.value)
        return self._render(
            "health.html",
            root="",
            page="health",
            overview=overview,
            counts=render.counts(overview.counts),
            total=totals[-1] if totals else None,
            plots=[plot for plot in made if plot is not None],
            failing_now=plots.bars(failing),
            failed_lately=plots.bars(self._memory.failures_by_registry(now - _MONTH)),
        )

    def _render(self, template: str, **values: object) -> bytes:
        return render.render(template, repository=self._repository, **values)


def _file(path: str, content: bytes) -> _File:
    return _File(path, hashlib.sha256(content).hexdigest(), lambda: content)


def _fingerprint(facts: object) -> str:
    text = json.dumps([render.assets_version(), facts])
    return hashlib.sha256(text.encode()).hexdigest()
