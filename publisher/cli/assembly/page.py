"""Assembles the status page from the settings, and writes it at the beginning and the end of a sync; it never fails the sync."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.fileindex.difference import difference
from publisher.fileindex.external_sort import by_path
from publisher.page.details import summarize
from publisher.page.learn import Sources
from publisher.page.memory import PageMemory
from publisher.page.render import keep_compiled
from publisher.page.targets import PageDirectory, PageInOrigin
from publisher.page.writer import PageContent, write_page, write_running
from publisher.settings.targets import NO_PAGE
from publisher.state.paths import REPOSITORY_MANIFEST
from publisher.status.answer import Known
from publisher.targets import published_index
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.published_table import compare_sifs
from publisher.usage.store import load_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from publisher.contract.records import Version
    from publisher.images.reader import ImageList
    from publisher.page.details import BuildChanges
    from publisher.page.targets import PageTarget
    from publisher.page.writer import PageReport
    from publisher.settings.settings import PublisherSettings
    from publisher.state.outcomes import Outcomes
    from publisher.state.snapshot import Snapshot
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository

_log = logging.getLogger(__name__)
_MEMORY, _TEMPLATES = "page.sqlite", "templates"
_WAITING = "waiting"


class SyncPage:
    """The status page as a sync writes it; nothing is written if the settings have no place for it.

    Args:
        settings: the settings.
        image_list: the list, None if it cannot be read.
        repository: the repository, for the publication log and the file indexes.
        origin: the origin, in which the page is by default.
    """

    def __init__(self, settings: PublisherSettings, image_list: ImageList | None, repository: Repository, origin: Origin) -> None:
        self._settings = settings
        self._image_list = image_list
        self._repository = repository
        self._origin = origin
        self._target = _page_target(settings, origin)

    def begin(self, names: Iterable[str]) -> list[str]:
        """Say on the page which images the run will publish; return a line for the report if that failed."""
        target, steps = self._target, dict.fromkeys(names, _WAITING)
        if target is None or not steps:
            return []
        return _reported(lambda: write_running(target, steps, int(time.time())))

    def finish(self, snapshot: Snapshot, outcomes: Outcomes, configs: Mapping[str, bytes]) -> list[str]:
        """Write the page; return lines for the report about what could not be written.

        Args:
            snapshot: the published state.
            outcomes: what is known of the images.
            configs: digest -> image config of the images that were built.
        """
        target = self._target
        if target is None:
            return []
        reports: list[PageReport] = []
        lines = _reported(lambda: reports.append(self._write(target, replace(snapshot, outcomes=outcomes), configs)))
        for report in reports:
            _log.info("the status page: wrote %d file(s), removed %d", len(report.written), len(report.removed))
            if report.error is not None:
                lines.append(f"the status page is not complete; the next sync goes on: {report.error}")
            elif report.waiting:
                lines.append(
                    f"{report.waiting} file(s) of the status page wait for the next sync, because writing them takes long"
                )
        return lines

    def _write(self, target: PageTarget, snapshot: Snapshot, configs: Mapping[str, bytes]) -> PageReport:
        repository, settings = self._repository, self._settings
        keep_compiled(settings.state / _TEMPLATES)
        sources = Sources(
            lambda name: repository.read(f"{REPOSITORY_MANIFEST}/{name}"),
            repository.read,
            partial(_compare, repository, self._origin, settings.state / "tmp"),
            configs,
        )
        now = datetime.now(UTC)
        content = PageContent(
            Known(snapshot, self._image_list, now.date()),
            int(now.timestamp()),
            settings.sync_interval,
            _origin_url(settings),
            sources,
            load_usage(settings.state),
        )
        with PageMemory(settings.state / _MEMORY) as memory:
            return write_page(target, memory, content, time.monotonic)


def _page_target(settings: PublisherSettings, origin: Origin) -> PageTarget | None:
    if settings.page == NO_PAGE:
        return None
    if isinstance(settings.page, Path):
        return PageDirectory(settings.page)
    return PageInOrigin(origin, f"page in {settings.targets().origin}")


def _origin_url(settings: PublisherSettings) -> str:
    """Return the URL of the origin with ``/`` at its end; empty for a directory, which has none."""
    target = settings.targets().origin
    return f"{target}/" if isinstance(target, OriginAddress) else ""


def _compare(repository: Repository, origin: Origin, scratch: Path, previous: Version, current: Version) -> BuildChanges | None:
    """Return what changed between two builds, None if a file index is missing or damaged."""
    try:
        for version in (previous, current):
            published_index.check(repository, version)
    except PublisherError as error:
        _log.debug("the last two builds are not compared: %s", error)
        return None
    scratch.mkdir(exist_ok=True)
    before, after = (published_index.lines(repository, version) for version in (previous, current))
    changes = summarize(previous.digest, difference(before, after, ordered=partial(by_path, scratch=scratch)))
    try:
        found = compare_sifs(origin, previous.sif, current.sif)
    except PublisherError as error:
        _log.debug("the SIFs of the last two builds are not compared: %s", error)
        return changes
    return changes if found is None else replace(changes, sif_size=found.size, sif_needed=found.needed)


def _reported(write: Callable[[], None]) -> list[str]:
    """Write something of the page; return a line if that failed. Even a bug in the page must not fail a sync that succeeded."""
    try:
        write()
    except PublisherError as error:
        return [f"the status page could not be written: {error}"]
    except Exception as error:  # noqa: BLE001 - see above
        _log.error("the status page could not be written", exc_info=error)
        return [f"the status page could not be written, because of a bug: please report it: {error!r}"]
    return []
