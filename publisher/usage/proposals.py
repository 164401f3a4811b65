"""What the use of images suggests: names that nobody uses, and images that belong on the list. Only proposals. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.images.entry import Entry
from publisher.status.answer import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.status.answer import Known
    from publisher.usage.records import NameUsage, UseCount

MONTH = 30 * 86400


@dataclass(frozen=True)
class UnusedName:
    """A published name that no known job has used for long.

    Attributes:
        name: the name.
        last: when a job last used it, 0 for never as far as is known.
        line: the line of its own entry in the list, 0 if a pattern stands for it or it left the list.
    """

    name: str
    last: int
    line: int


@dataclass(frozen=True)
class ProposedImage:
    """An image that jobs name by ``docker://`` and that is not published."""

    reference: str
    use: UseCount


def unused_names(known: Known, usage: Mapping[str, NameUsage], before: int) -> list[UnusedName]:
    """Return the usable names that were published before a time and that no job has used since, in alphabetical order.

    Args:
        known: all that is known of the images.
        usage: name -> its use.
        before: seconds since the epoch.
    """
    found = []
    for name, record in sorted(known.snapshot.records.items()):
        published = max((version.published for _, version in record.versions()), default=0)
        last = usage[name].total.last if name in usage else 0
        if published < before and last < before and answer(known, [name]).is_usable:
            listed = known.listed(name)
            found.append(UnusedName(name, last, listed.line if isinstance(listed, Entry) else 0))
    return found


def proposed_images(known: Known, candidates: Mapping[str, UseCount]) -> list[ProposedImage]:
    """Return the candidates that are neither published nor listed now, the most used first."""
    return [
        ProposedImage(reference, use)
        for reference, use in candidates.items()
        if f"docker://{reference}" not in known.records_by_key and f"docker://{reference}" not in known.entries_by_key
    ]
