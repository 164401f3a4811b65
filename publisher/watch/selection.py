"""Which names of the list pushed images stand for. Pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.reference import Reference
from publisher.images.entry import render_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from publisher.images.entry import Entry, ImageList

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelectedNames:
    """Names to sync.

    Attributes:
        entries: names of entries, in the list's order.
        patterned: names that only a pattern covers, which may not be among those that it keeps.
    """

    entries: tuple[str, ...] = ()
    patterned: tuple[str, ...] = ()

    def batches(self) -> list[tuple[str, ...]]:
        """Return the names by sync: entries together, each other name alone, because the list may refuse it."""
        return [*([self.entries] if self.entries else []), *((name,) for name in self.patterned)]


def select_names(image_list: ImageList, pushed: Iterable[Reference]) -> SelectedNames:
    """Return the names that pushed images stand for; one that is not in the list is ignored with a line in the log (DEBUG)."""
    wanted = set(pushed)
    found: dict[str, set[Reference]] = {}
    for entry in image_list.entries:
        references = set(_tags_of(entry)) & wanted
        if references:
            found[entry.name] = references
    listed = set().union(*found.values())
    patterned = []
    for image in sorted(wanted - listed, key=str):
        names = [
            name
            for pattern in image_list.patterns
            if pattern.covers(name := render_name(image, pattern.name_template))
            and (pattern.reference.registry, pattern.reference.repository) == (image.registry, image.repository)
        ]
        if names:
            patterned += [name for name in names if name not in found]
        else:
            _log.debug("%s was pushed, but it is not in the list", image)
    return SelectedNames(tuple(found), tuple(dict.fromkeys(patterned)))


def _tags_of(entry: Entry) -> Iterator[Reference]:
    """Yield the tags that an entry follows; what is pinned to a digest follows none."""
    for part in (entry.reference, *map(entry.reference_for, entry.platforms)):
        if part.digest is None:
            yield Reference(part.registry, part.repository, part.tag)
