"""Carries out an adoption (see :mod:`publisher.maintain.adoption.judge`) in batches; an interrupted run continues in the next."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from publisher.maintain.adoption import judge
from publisher.maintain.adoption.judge import AdoptionReport, JudgedLink, LinkVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from publisher.images.reader import Entry
    from publisher.maintain.adoption.judge import OldLink
    from publisher.plan.model import UnlistedPattern
    from publisher.publish.intake import Intake
    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository

_BATCH = 200
"""Number of links that are looked up in registries and then published together."""
_log = logging.getLogger(__name__)


class Adopter:
    """An adoption of one repository.

    Args:
        repository: the repository that has the older tool's links.
        intake: the connections to registries.
        entries: the entries of the image list.
        unlisted: patterns of which the tags are unknown.
        clock: returns seconds since the epoch.
        anyway: whether links that could not be judged are adopted too, as not current.
    """

    def __init__(
        self,
        repository: Repository,
        intake: Intake,
        entries: Iterable[Entry],
        unlisted: Sequence[UnlistedPattern],
        *,
        clock: Callable[[], float],
        anyway: bool = False,
    ) -> None:
        self._repository = repository
        self._intake = intake
        self._entries: Mapping[str, Entry] = {entry.name: entry for entry in entries}
        self._unlisted = unlisted
        self._clock = clock
        self._anyway = anyway

    def run(self, snapshot: Snapshot, publication: Publication | None) -> AdoptionReport:
        """Judge the links that have no record in the manifest yet, and publish records for them.

        Args:
            snapshot: the published state.
            publication: an open publication; None to judge only.

        Raises:
            RepositoryError, OriginError, SpaceError: the current batch failed; earlier batches stay published.
        """
        report = AdoptionReport()
        links = judge.find_old_links(self._repository.links(), self._repository.name)
        pending = [link for link in links if link.name not in snapshot.records]
        _log.info("adopting %d of %d links of the older tool; the others have a record already", len(pending), len(links))
        remaining = iter(pending)
        while batch := list(itertools.islice(remaining, _BATCH)):
            judged = self._judge(batch, snapshot)
            report.add(judged)
            records = {link.link.name: link.record for link in judged if link.record is not None}
            if publication is not None and records:
                published = publication.change(snapshot, records, relink=False)
                snapshot = published.snapshot
                if published.behind is not None:
                    raise published.behind
        return report

    def _judge(self, links: list[OldLink], snapshot: Snapshot) -> list[JudgedLink]:
        """Return the verdicts on a batch of links."""
        existing = [link for link in links if self._repository.exists(link.sandbox)]
        entries = [self._entries[link.name] for link in existing if link.name in self._entries]
        answers = self._intake.resolve(entries, snapshot.records)
        images = self._intake.image_manifests(entries, answers)
        now = int(self._clock())
        judged = [JudgedLink(link, LinkVerdict.DANGLING, link.sandbox) for link in links if link not in existing]
        for link in existing:
            entry = self._entries.get(link.name)
            if entry is None:
                verdict = judge.judge_unlisted(link, self._unlisted, now)
            else:
                verdict = judge.judge_listed(link, entry, answers[link.name], images.get(link.name, {}), now)
            if self._anyway and verdict.record is None:
                verdict = judge.adopt_unresolved(verdict, entry, now)
            _log.debug("%s: %s %s", link.name, verdict.verdict.value, verdict.reason)
            judged.append(verdict)
        return judged
