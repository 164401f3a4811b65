"""A patch of images.yaml that takes entries out, for a person to apply. Pure.

Lines are removed, so that comments and order stay. The patched list is read again: only what leaves exactly the wanted entries is
proposed.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.images import reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from publisher.images.entry import ImageList


def removal_patch(content: bytes, file: str, names: Iterable[str], name_template: str) -> tuple[str, list[str]]:
    """Return a unified diff that removes the entries of names from the list, and the names that it cannot remove.

    Args:
        content: the list.
        file: its path, for the head of the diff.
        names: names of entries.
        name_template: as :func:`publisher.images.reader.parse` takes it.

    Raises:
        ListError: the list is not valid.
    """
    before = reader.parse(content, file, name_template)
    lines = content.decode().splitlines(keepends=True)
    wanted = set(names)
    by_line: dict[int, set[str]] = {}
    for entry in before.entries:
        by_line.setdefault(entry.line, set()).add(entry.name)
    of_patterns = {pattern.line for pattern in before.patterns}
    items = {line: there for line, there in by_line.items() if there <= wanted and line not in of_patterns}

    def attempt(numbers: Iterable[int], removed: set[int], gone: set[str]) -> tuple[set[int], set[str]]:
        chosen = list(numbers)
        more = removed.union(*(_item_lines(lines, line) for line in chosen))
        less = gone.union(*(items[line] for line in chosen))
        return (more, less) if _leaves(before, _without(lines, more), less, file, name_template) else (removed, gone)

    removed, gone = attempt(items, set(), set())
    for line in items if not removed else ():  # one of them cannot be removed: find out which
        removed, gone = attempt([line], removed, gone)
    after = _without(lines, removed)
    return "".join(difflib.unified_diff(lines, after, f"a/{file}", f"b/{file}")), sorted(wanted - gone)


def _item_lines(lines: Sequence[str], number: int) -> set[int]:
    """Return the numbers of the lines of the list item that begins in a line: up to the next line that is not deeper."""
    start = lines[number - 1]
    depth = len(start) - len(start.lstrip())
    found = {number}
    for following in range(number + 1, len(lines) + 1):
        text = lines[following - 1]
        if not text.strip() or len(text) - len(text.lstrip()) <= depth:
            break
        found.add(following)
    return found


def _leaves(before: ImageList, lines: Sequence[str], gone: AbstractSet[str], file: str, name_template: str) -> bool:
    """Return whether the list that lines make has the same entries and patterns as before but for names."""
    try:
        after = reader.parse("".join(lines).encode(), file, name_template)
    except PublisherError:
        return False
    return after.patterns == before.patterns and after.entries == tuple(one for one in before.entries if one.name not in gone)


def _without(lines: Sequence[str], removed: AbstractSet[int]) -> list[str]:
    return [line for number, line in enumerate(lines, 1) if number not in removed]
