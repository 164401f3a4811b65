"""Tag patterns: ``*``, ``?`` and ``[...]`` as in :mod:`fnmatch`, case-sensitive.

Whether two patterns can match the same tag, or a pattern can match any tag at all, is decided exactly: the patterns run side by
side as finite automata over the characters that tags are made of, in search of the shortest tag that all of them accept.
"""

from __future__ import annotations

import fnmatch
import itertools
import string
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WILDCARDS = frozenset("*?[]")
_FIRST_CHARACTERS = string.ascii_lowercase + string.digits + string.ascii_uppercase + "_"
_CHARACTERS = _FIRST_CHARACTERS + ".-"
LONGEST_TAG = 128
"""Characters; the longest tag and its characters are defined by the OCI distribution specification ("Pulling manifests")."""
_MAX_STATES = 20_000


def is_pattern(text: str) -> bool:
    """Return whether a text is a tag pattern and not the name of one tag."""
    return not WILDCARDS.isdisjoint(text)


def tokens(pattern: str) -> list[str]:
    """Return the tokens of a tag pattern: ``*``, ``?``, whole ``[...]`` classes and single characters.

    Raises:
        ValueError: a ``[`` is not closed.
    """
    result, position = [], 0
    while position < len(pattern):
        end = _class_end(pattern, position) if pattern[position] == "[" else position + 1
        result.append(pattern[position:end])
        position = end
    return result


def _class_end(pattern: str, start: int) -> int:
    inside = start + 1 + pattern.startswith("!", start + 1)
    closing = pattern.find("]", inside + 1)  # a ']' in the first place is a character of the class
    if closing < 0:
        raise ValueError(f"the '[' in {pattern!r} is not closed; write '[...]'")
    return closing + 1


@dataclass(frozen=True)
class TagSet:
    """The tags that match any pattern of ``include`` and no pattern of ``exclude``."""

    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()

    def __contains__(self, tag: str) -> bool:
        return _matches(tag, self.include) and not _matches(tag, self.exclude)


def _matches(tag: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(tag, pattern) for pattern in patterns)


def shortest_common_tag(*sets: TagSet) -> str | None:
    """Return the shortest tag that is in all of the sets, None if there is no such tag.

    Raises:
        ValueError: a ``[`` is not closed, or the patterns are too many and too long to be compared.
    """
    automata = [_SetAutomaton(tag_set) for tag_set in sets]
    queue = deque(("", states) for states in itertools.product(*(automaton.start for automaton in automata)))
    seen: set[_States] = (
        set()
    )  # without the start states: they accept the empty text, which is not a tag, and may be reached again
    characters = _distinct_characters(automata)
    while queue:
        tag, states = queue.popleft()
        if tag and all(automaton.accepts(state) for automaton, state in zip(automata, states, strict=True)):
            return tag
        for character in characters if len(tag) < LONGEST_TAG else ():
            if tag or character in _FIRST_CHARACTERS:
                steps = (automaton.step(state, character) for automaton, state in zip(automata, states, strict=True))
                reached = set(itertools.product(*steps)) - seen
                seen |= reached
                queue.extend((tag + character, states) for states in sorted(reached))
        if len(seen) > _MAX_STATES:
            raise ValueError("these tag patterns are too complex to be compared; write simpler ones")
    return None


_State = tuple[int, int, tuple[int, ...]]
"""The number of a pattern in ``include``, one position in it, and a bit mask of all positions for each pattern in ``exclude``."""
_States = tuple[_State, ...]


def _distinct_characters(automata: list[_SetAutomaton]) -> list[str]:
    """Return one character of each group that no pattern distinguishes; characters that cannot begin a tag are grouped apart."""
    representatives: dict[object, str] = {}
    for character in _CHARACTERS:
        behaviour = (
            character in _FIRST_CHARACTERS,
            *(pattern.accepts[character] for automaton in automata for pattern in automaton.patterns),
        )
        representatives.setdefault(behaviour, character)
    return list(representatives.values())


class _SetAutomaton:
    """An automaton that accepts the tags of a :class:`TagSet`.

    Attributes:
        patterns: the automata of all its patterns.
        start: the states before the first character.
    """

    def __init__(self, tags: TagSet) -> None:
        self._include = [_PatternAutomaton(pattern) for pattern in tags.include]
        self._exclude = [_PatternAutomaton(pattern) for pattern in tags.exclude]
        self.patterns = [*self._include, *self._exclude]
        excluded = tuple(pattern.start for pattern in self._exclude)
        self.start: list[_State] = [
            (number, position, excluded)
            for number, pattern in enumerate(self._include)
            for position in _single_bits(pattern.start)
        ]

    def step(self, state: _State, character: str) -> list[_State]:
        """Return the states that one more character leads to."""
        number, position, excluded = state
        excluded = tuple(pattern.step(positions, character) for pattern, positions in zip(self._exclude, excluded, strict=True))
        return [(number, reached, excluded) for reached in _single_bits(self._include[number].step(position, character))]

    def accepts(self, state: _State) -> bool:
        """Return whether the characters so far are a tag of the set."""
        number, position, excluded = state
        is_excluded = any(positions & pattern.end for pattern, positions in zip(self._exclude, excluded, strict=True))
        return position == self._include[number].end and not is_excluded


def _single_bits(positions: int) -> Iterator[int]:
    while positions:
        lowest = positions & -positions
        yield lowest
        positions ^= lowest


class _PatternAutomaton:
    """A tag pattern as a nondeterministic automaton; bit N of a state means that N tokens have been matched.

    Attributes:
        accepts: character -> the tokens that match it, as a bit mask.
        start: the state before the first character.
        end: the bit of the position behind the last token.
    """

    def __init__(self, pattern: str) -> None:
        parts = tokens(pattern)
        self._stars = sum(1 << position for position, part in enumerate(parts) if part == "*")
        self.accepts = {character: sum(_matching_bits(parts, character)) for character in _CHARACTERS}
        self.end = 1 << len(parts)
        self.start = self._skip_stars(1)

    def step(self, positions: int, character: str) -> int:
        """Return the positions after one more character."""
        return self._skip_stars((positions & self.accepts[character]) << 1 | positions & self._stars)

    def _skip_stars(self, positions: int) -> int:
        """Add the positions behind stars: a star also matches the empty text."""
        while (more := positions | (positions & self._stars) << 1) != positions:
            positions = more
        return positions


def _matching_bits(parts: list[str], character: str) -> Iterator[int]:
    for position, part in enumerate(parts):
        if part in (character, "?") or (len(part) > 1 and fnmatch.fnmatchcase(character, part)):
            yield 1 << position
