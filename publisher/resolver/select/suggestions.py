"""Names that a user may have meant: published names that differ from the requested one by case, a few letters or the tag."""

from __future__ import annotations

import time

from publisher.resolver.errors import FetchError, UnknownImageError
from publisher.resolver.select import resolve
from publisher.resolver.system import log
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.system.notes import Warnings
from publisher.resolver.trust import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from publisher.resolver.config.settings import ResolverSettings

MAX_SUGGESTIONS = 3
_NAMES_TIME = 2.0  # seconds for reading the names of all images that this host knows
_MAX_EDITS = 2


def add_suggestions(error: UnknownImageError, text: str, settings: ResolverSettings, now: float) -> UnknownImageError:
    """Return the error for an unknown image with up to three similar names, as far as this host knows them."""

    def work() -> bytes:
        query = lookup.parse_query(text, settings.roots)
        name = query.keys[0].partition("://")[2].partition("/")[2] if "://" in query.keys[0] else query.keys[0]
        manifest = resolve.load_manifest(settings, now, Warnings(), refresh=settings.refresh, wait=False)
        return sentence(similar(name, manifest.names(time.monotonic() + _NAMES_TIME))).encode()

    try:
        suggested = ForkedCall(work).result(time.monotonic() + 2 * _NAMES_TIME).decode()
    except FetchError as failure:
        log.debug("no suggestions for %s: %s", text, failure)
        return error
    return UnknownImageError(f"{error.reason}{suggested}", hint=error.hint)


def similar(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three names that are similar to ``name``, the most similar one first.

    Similar are names that differ in case only, in one or two letters, or in the tag.
    """
    repository = name.rpartition(":")[0]
    ranked = []
    for other in known:
        distance = _edits(name.lower(), other.lower())
        if other.lower() == name.lower():
            ranked.append((0, 0, other))
        elif distance <= _MAX_EDITS and other.rpartition(":")[0] != repository:
            ranked.append((1, distance, other))
        elif other.rpartition(":")[0] == repository:
            ranked.append((2, distance, other))
    return [other for _, _, other in sorted(ranked)[:MAX_SUGGESTIONS]]


def sentence(names: list[str]) -> str:
    """Return the question that ends a message; empty without names."""
    if not names:
        return ""
    *first, last = names
    return f"; did you mean {', '.join(first)} or {last}?" if first else f"; did you mean {last}?"


def _edits(one: str, two: str) -> int:
    """Return how many letters must be inserted, removed, replaced or swapped with their neighbour; 3 stands for more than two."""
    if abs(len(one) - len(two)) > _MAX_EDITS:
        return _MAX_EDITS + 1
    before: list[int] = []
    row = list(range(len(two) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(two, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == two[j - 2] and one[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > _MAX_EDITS:
            return _MAX_EDITS + 1
    return row[-1]
