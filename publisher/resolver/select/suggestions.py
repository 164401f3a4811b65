"""Names that a user may have meant: published names that differ from the requested one by case, a few letters or the tag."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SUGGESTIONS = 3
_MAX_EDITS = 2


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
