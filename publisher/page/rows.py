"""The row of each image: what the page says of it in one line, from the answer about it and its entry in the list. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.records import CURRENT, EXPIRING, split_platform
from publisher.images.entry import render_name
from publisher.state.paths import DEFAULT_ARCHITECTURE
from publisher.status.answer import ImageState, answer
from publisher.usage.records import UseCount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.contract.records import Record, Version
    from publisher.images.entry import Entry, Pattern
    from publisher.status.answer import ImageAnswer, Known
    from publisher.usage.records import NameUsage

_DAY = 86400


@dataclass(frozen=True)
class Row:
    """What the page says of an image in one line.

    Attributes:
        name: the CVMFS name.
        state: a value of :class:`publisher.status.answer.ImageState`.
        reason: why, as a sentence.
        since: when the state began, seconds since the epoch; 0 if that is not known.
        until: when an expiring image leaves; 0 for others.
        usable: whether jobs can run it now.
        digest: digest of the tag when it was last published; empty if it never was.
        source: its reference, empty if that is not known.
        registry: the registry in it.
        changed: when the newest of its current builds was published; 0 if none is.
        checked: when its registry was last asked, 0 for "in the last sync".
        tries, next_try: how often it failed in a row, and when it is tried again at the earliest; 0 for the next sync.
        platforms: the architectures that can be used, such as ``amd64``.
        variants: architecture and conditions of its builds for some hosts only, such as ``amd64,nvidia-gpu``.
        sandbox, sif: bytes of its two forms on the first of these; 0 for a form that is not published.
        owner, project, group: who is responsible for it, what uses it, and where it is in the list; empty if unknown.
        jobs, hosts: how many jobs and hosts have used it at least, in two digits; 0 if none is known.
        used: the last day on which a job used it, as its first second; 0 if none is known.
    """

    name: str
    state: str
    reason: str
    since: int = 0
    until: int = 0
    usable: bool = False
    digest: str = ""
    source: str = ""
    registry: str = ""
    changed: int = 0
    checked: int = 0
    tries: int = 0
    next_try: int = 0
    platforms: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    sandbox: int = 0
    sif: int = 0
    owner: str = ""
    project: str = ""
    group: str = ""
    jobs: int = 0
    hosts: int = 0
    used: int = 0

    def to_json(self) -> dict[str, object]:
        """Return the row as JSON values, for images.json; times that are not known are null."""
        times = {name: getattr(self, name) or None for name in ("since", "until", "changed", "checked", "next_try", "used")}
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "platforms": list(self.platforms), "variants": list(self.variants), **times}


def make_rows(known: Known, usage: Mapping[str, NameUsage] | None = None) -> list[Row]:
    """Return the row of every image that is listed, published, or stood for by a pattern, in alphabetical order.

    ``usage`` has the use of names. Rows have it rounded, so that a busy image changes its page a few times and not with each job.
    """
    used = {name: found.total for name, found in (usage or {}).items()}
    return [_row(answer(known, [name]), known.listed(name), used.get(name, UseCount())) for name in known.names]


def active_versions(record: Record | None) -> list[tuple[str, Version]]:
    """Return platform and version of what a name means, the default platform first."""
    if record is None:
        return []
    found = [(platform, versions[0]) for platform, versions in record.platforms.items() if versions]
    active = [(platform, version) for platform, version in found if version.state in {CURRENT, EXPIRING}]
    return sorted(active, key=lambda pair: (pair[0] != DEFAULT_ARCHITECTURE, pair[0]))


def patterns_json(known: Known) -> list[dict[str, object]]:
    """Return the patterns of the list as JSON values: with them the page answers for names that a pattern does not select."""
    if known.image_list is None:
        return []
    names = known.snapshot.outcomes.patterns
    return [
        {
            "pattern": str(pattern),
            "prefix": render_name(pattern.reference.pointing_at(""), pattern.name_template),
            "keep": pattern.keep,
            "newest": list(names.get(str(pattern), ())[:5]),
        }
        for pattern in known.image_list.patterns
    ]


def _registry(source: str) -> str:
    """Return the registry of a reference; of a SIF at a URL its server, or ``osdf``."""
    scheme, _, rest = source.rpartition("://")
    return rest.partition("/")[0] or scheme


def _row(found: ImageAnswer, listed: Entry | Pattern | None, use: UseCount) -> Row:
    active, last = active_versions(found.record), found.last
    versions = [version for _, version in active]
    first = versions[0] if versions else None
    until = [version.until for version in versions if version.until is not None]
    source = found.reference or ("" if listed is None else f"{listed.reference}:{found.name.rpartition(':')[2]}")
    return Row(
        found.name,
        found.state.value,
        found.reason,
        since=found.since or 0,
        until=max(until) if until and found.state is ImageState.EXPIRING else 0,
        usable=found.is_usable,
        digest="" if found.record is None else found.record.digest,
        source=source,
        registry=_registry(source),
        changed=max((version.published for version in versions), default=0),
        checked=0 if last is None else last.last_try,
        tries=0 if last is None else last.tries,
        next_try=0 if last is None else last.next_try,
        platforms=tuple(dict.fromkeys(split_platform(platform)[0] for platform, _ in active)),
        variants=tuple(platform for platform, _ in active if split_platform(platform)[1]),
        sandbox=first.unpacked_size if first is not None and first.sandbox is not None else 0,
        sif=first.sif.size if first is not None and first.sif is not None else 0,
        owner=(listed and listed.owner) or "",
        project=(listed and listed.project) or "",
        group="" if listed is None else listed.group,
        jobs=_rounded(use.jobs),
        hosts=_rounded(use.hosts),
        used=use.last // _DAY * _DAY,
    )


def _rounded(count: int) -> int:
    """Return a number in two digits."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit
