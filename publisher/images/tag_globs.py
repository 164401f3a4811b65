"""Wildcards for tags: ``*``, ``?`` and ``[...]`` as in :mod:`fnmatch`, case-sensitive.

What two wildcards have in common, or whether one can match any tag at all, is decided exactly: they are run side by side as
finite automata over the characters that tags are made of, for the shortest tag that all accept.
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
_FIRST = string.ascii_lowercase + string.digits + string.ascii_uppercase + "_"
_CHARACTERS = _FIRST + ".-"
LONGEST_TAG = 128
"""Characters; this and what a tag may be made of are from the OCI distribution specification ("Pulling manifests")."""
_MOST_STATES = 20_000


def is_wildcard(text: str) -> bool:
    """Whether a text for a tag is more than one tag's name."""
    return not WILDCARDS.isdisjoint(text)


def tokens(glob: str) -> list[str]:
    """What a wildcard is made of: ``*``, ``?``, whole ``[...]``, single characters.

    Raises:
        ValueError: a ``[`` is not closed.
    """
    found, at = [], 0
    while at < len(glob):
        end = _class_end(glob, at) if glob[at] == "[" else at + 1
        found.append(glob[at:end])
        at = end
    return found


def _class_end(glob: str, at: int) -> int:
    inside = at + 1 + glob.startswith("!", at + 1)
    closed = glob.find("]", inside + 1)  # one that stands first is a character of the class
    if closed < 0:
        raise ValueError(f"the '[' of {glob!r} is not closed; write '[...]'")
    return closed + 1


@dataclass(frozen=True)
class TagSet:
    """The tags that one of ``take`` matches and none of ``leave``."""

    take: tuple[str, ...]
    leave: tuple[str, ...] = ()

    def __contains__(self, tag: str) -> bool:
        return _matches(tag, self.take) and not _matches(tag, self.leave)


def _matches(tag: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(tag, glob) for glob in globs)


def example(*sets: TagSet) -> str | None:
    """The shortest tag that is in all of the sets, None where there is none.

    Raises:
        ValueError: a ``[`` is not closed, or the wildcards are too many and too long to be told apart.
    """
    walks = [_Walk(one) for one in sets]
    waiting = deque(("", states) for states in itertools.product(*(walk.start for walk in walks)))
    seen: set[_States] = set()  # without the starts: nothing is no tag, though a star may stand where it stood
    characters = _distinct_characters(walks)
    while waiting:
        tag, states = waiting.popleft()
        if tag and all(walk.accepts(state) for walk, state in zip(walks, states, strict=True)):
            return tag
        for character in characters if len(tag) < LONGEST_TAG else ():
            if tag or character in _FIRST:
                steps = (walk.step(state, character) for walk, state in zip(walks, states, strict=True))
                reached = set(itertools.product(*steps)) - seen
                seen |= reached
                waiting.extend((tag + character, states) for states in sorted(reached))
        if len(seen) > _MOST_STATES:
            raise ValueError("these wildcards cannot be told apart with reasonable effort; write simpler ones")
    return None


_State = tuple[int, int, tuple[int, ...]]
"""Which of ``take`` is followed, the one place in it, and all places of each of ``leave``: none of these may match."""
_States = tuple[_State, ...]


def _distinct_characters(walks: list[_Walk]) -> list[str]:
    """One character for all those that no wildcard tells from it, and that may begin a tag or may not alike."""
    found: dict[object, str] = {}
    for character in _CHARACTERS:
        alike = (character in _FIRST, *(glob.accepts[character] for walk in walks for glob in walk.globs))
        found.setdefault(alike, character)
    return list(found.values())


class _Walk:
    """Where the wildcards of a set may stand, after the same characters."""

    def __init__(self, tags: TagSet) -> None:
        self._take = [_Glob(glob) for glob in tags.take]
        self._leave = [_Glob(glob) for glob in tags.leave]
        self.globs = [*self._take, *self._leave]
        left = tuple(glob.start for glob in self._leave)
        self.start: list[_State] = [
            (which, place, left) for which, glob in enumerate(self._take) for place in _single(glob.start)
        ]

    def step(self, state: _State, character: str) -> list[_State]:
        which, place, left = state
        left = tuple(glob.step(places, character) for glob, places in zip(self._leave, left, strict=True))
        return [(which, reached, left) for reached in _single(self._take[which].step(place, character))]

    def accepts(self, state: _State) -> bool:
        which, place, left = state
        excluded = any(places & glob.end for glob, places in zip(self._leave, left, strict=True))
        return place == self._take[which].end and not excluded


def _single(places: int) -> Iterator[int]:
    while places:
        lowest = places & -places
        yield lowest
        places ^= lowest


class _Glob:
    """A wildcard as a nondeterministic automaton; bit N of a state says that N tokens are behind it."""

    def __init__(self, glob: str) -> None:
        parts = tokens(glob)
        self._stars = sum(1 << position for position, part in enumerate(parts) if part == "*")
        self.accepts = {character: sum(_places(parts, character)) for character in _CHARACTERS}
        self.end = 1 << len(parts)
        self.start = self._past_stars(1)

    def step(self, places: int, character: str) -> int:
        return self._past_stars((places & self.accepts[character]) << 1 | places & self._stars)

    def _past_stars(self, places: int) -> int:
        """A star may stand for nothing."""
        while (more := places | (places & self._stars) << 1) != places:
            places = more
        return places


def _places(parts: list[str], character: str) -> Iterator[int]:
    for position, part in enumerate(parts):
        if part in (character, "?") or (len(part) > 1 and fnmatch.fnmatchcase(character, part)):
            yield 1 << position
