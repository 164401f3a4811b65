"""The orders that decide which tags are newest, for ``keep``. Both are total: no two different tags are equal.

``version`` reads a tag as runs of digits and runs of letters; all other characters only separate runs. Tags are compared run by
run, from left to right:

- Digits compare as numbers (``1.9`` before ``1.10``, ``2023.4`` before ``2024.2``) and are newer than words (``latest`` before
  ``1.0``).
- A shorter tag comes before a longer one that begins with it: ``1.2``, then its variants ``1.2-py3``, then ``1.2.1``.
- A word for a pre-release makes a tag older than the release: dev, snapshot and nightly first, then alpha, beta, pre or preview,
  and rc. ``a`` and ``b`` are pre-releases only if a digit follows at once (``1.2b3``).
- Other words compare as text and ignore case. A ``v`` directly before digits is ignored.

Tags that are equal in all this (``v1.0``, ``1.0``, ``1.00``) are ordered as text.

``name`` compares the text alone, by code points.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Order = Literal["version", "name"]
_Run = tuple[int, int, str]
Key = tuple[tuple[_Run, ...], str]
"""The sort key of a tag; a smaller key means an older tag."""

_RUN = re.compile(r"(?P<number>[0-9]+)|v(?=[0-9])|(?P<word>[a-z]+)", re.ASCII)
_PRERELEASES = (("dev", "snapshot", "nightly"), ("alpha", "a"), ("beta", "b"), ("pre", "preview"), ("rc",))
_RANKS = {word: rank for rank, words in enumerate(_PRERELEASES) for word in words}
_SHORT_PRERELEASES = ("a", "b")
_PRERELEASE, _END, _WORD, _NUMBER = range(4)


def key(order: Order) -> Callable[[str], Key]:
    """Return the function from a tag to its sort key, oldest tag first."""
    return _version_key if order == "version" else _name_key


def _name_key(tag: str) -> Key:
    return (), tag


def _version_key(tag: str) -> Key:
    return (*_runs(tag.lower()), (_END, 0, "")), tag


def _runs(tag: str) -> Iterator[_Run]:
    for match in _RUN.finditer(tag):
        number, word = match["number"], match["word"]
        if number is not None:
            yield _NUMBER, int(number), ""
        elif word in _RANKS and (word not in _SHORT_PRERELEASES or tag[match.end() : match.end() + 1].isdigit()):
            yield _PRERELEASE, _RANKS[word], ""
        elif word is not None:
            yield _WORD, 0, word
