"""Carries out an adoption (:mod:`publisher.maintain.adoption.judge`), in portions: an interrupted run goes on where it was."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from publisher.maintain.adoption import judge
from publisher.maintain.adoption.judge import Adoption, JudgedLink, LinkVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from publisher.images.reader import Entry
    from publisher.maintain.adoption.judge import OldLink
    from publisher.plan.model import UnlistedPattern
    from publisher.publish.intake import Intake
    from publisher.publish.publication import Publication
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository

_PORTION = 200  # links of which registries are asked before they are published


class Adopter:
    """One adoption.

    Args:
        repository: where the older tool's links are.
        intake: asks registries.
        entries: what the list wants.
        unlisted: wildcards whose tags nobody knows now.
        clock: seconds since the epoch.
        anyway: what nobody can tell anything about now is taken in too.
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

    def run(self, snapshot: Snapshot, publication: Publication | None) -> Adoption:
        """Judge the links that the catalog does not have, and publish their records.

        Args:
            snapshot: what is published.
            publication: opened; None to look only.

        Raises:
            RepositoryError, OriginError, SpaceError: what was published before stays.
        """
        found = Adoption()
        links = judge.old_links(self._repository.links(), self._repository.name)
        waiting = iter([link for link in links if link.name not in snapshot.records])
        while portion := list(itertools.islice(waiting, _PORTION)):
            judged = self._judge(portion, snapshot)
            found.add(judged)
            records = {one.link.name: one.record for one in judged if one.record is not None}
            if publication is not None and records:
                published = publication.change(snapshot, records, relink=False)
                snapshot = published.snapshot
                if published.behind is not None:
                    raise published.behind
        return found

    def _judge(self, links: list[OldLink], snapshot: Snapshot) -> list[JudgedLink]:
        there = [link for link in links if self._repository.exists(link.sandbox)]
        entries = [self._entries[link.name] for link in there if link.name in self._entries]
        answers = self._intake.ask(entries, snapshot.records)
        images = self._intake.manifests(entries, answers)
        now = int(self._clock())
        judged = [JudgedLink(link, LinkVerdict.DANGLING, link.sandbox) for link in links if link not in there]
        for link in there:
            entry = self._entries.get(link.name)
            if entry is None:
                one = judge.judge_unlisted(link, self._unlisted, now)
            else:
                one = judge.judge(link, entry, answers[link.name], images.get(link.name, {}), now)
            judged.append(judge.taken_anyway(one, entry, now) if self._anyway and one.record is None else one)
        return judged
