"""Which tags are newest: the orders that ``keep`` counts by. Both are total: no two different tags are equal in them.

``version`` reads a tag as runs of digits and runs of letters; everything between only separates them. Run by run, from left
to right:

- digits compare as numbers (``1.9`` before ``1.10``; ``2023.4`` before ``2024.2``), and above words (``latest`` before ``1.0``);
- a tag that ends comes before one that goes on: ``1.2``, then its variants ``1.2-py3``, then ``1.2.1``;
- but after what goes on with a word for what is not released yet: dev, snapshot, nightly, then alpha, beta, pre or preview,
  and rc; so does ``a`` or ``b`` where a digit follows at once (``1.2b3``);
- other words compare as text without regard to capitals; a ``v`` right before digits does not count.

Tags that are equal in all that (``v1.0``, ``1.0``, ``1.00``) are ordered as text.

``name`` is the order of the text alone, by code points.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Order = Literal["version", "name"]
_Run = tuple[int, int, str]
Key = tuple[tuple[_Run, ...], str]
"""Of a tag: smaller is older."""

_RUN = re.compile(r"(?P<number>[0-9]+)|v(?=[0-9])|(?P<word>[a-z]+)", re.ASCII)
_UNRELEASED = (("dev", "snapshot", "nightly"), ("alpha", "a"), ("beta", "b"), ("pre", "preview"), ("rc",))
_RANKS = {word: rank for rank, words in enumerate(_UNRELEASED) for word in words}
_SHORT = ("a", "b")
_BEFORE_RELEASE, _END, _WORD, _NUMBER = range(4)


def key(order: Order) -> Callable[[str], Key]:
    """What tags are sorted by, oldest first."""
    return _version if order == "version" else _name


def _name(tag: str) -> Key:
    return (), tag


def _version(tag: str) -> Key:
    return (*_runs(tag.lower()), (_END, 0, "")), tag


def _runs(tag: str) -> Iterator[_Run]:
    for match in _RUN.finditer(tag):
        number, word = match["number"], match["word"]
        if number is not None:
            yield _NUMBER, int(number), ""
        elif word in _RANKS and (word not in _SHORT or tag[match.end() : match.end() + 1].isdigit()):
            yield _BEFORE_RELEASE, _RANKS[word], ""
        elif word is not None:
            yield _WORD, 0, word
