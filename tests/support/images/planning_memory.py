"""The memory that a plan takes for layers whose only purpose is to take much, at a hundredth of the limits."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from publisher.errors import LayerError
from publisher.layers.flatten import FlattenedTree
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SCALE = 100
LIMITS = LayerLimits(entries=DEFAULT_LIMITS.entries // _SCALE, names_size=DEFAULT_LIMITS.names_size // _SCALE)
BAR = (300 - 100 << 20) // _SCALE
"""Bytes: 300 MB less the 100 MB that the whole program takes before it plans, at this scale."""


@dataclass(frozen=True)
class Crowd:
    """Many entries of one kind.

    Attributes:
        kind: type flag.
        count: number of entries.
        depth: directories above each; those of one crowd are the same.
        fresh: every entry has directories of its own.
        width: bytes of each name.
        target: bytes of a symbolic link's target.
        through: they are written through a symbolic link into a deep directory.
        removed: the crowd's names are removed again after it, so many times.
    """

    kind: bytes
    count: int
    depth: int
    fresh: bool
    width: int
    target: int
    through: bool
    removed: int

    def entries(self, number: int) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Yield the entries as the index of a layer has them."""
        deep = b"/".join([b"%d" % number] + [b"d" * self.width] * self.depth)
        if self.through:
            yield b"5", deep, b""
            yield b"2", b"l%d" % number, deep
            deep = b"l%d" % number
        yield b"0", b"f%d" % number, b""
        link = b"f%d" % number if self.kind == b"1" else b"t" * self.target if self.kind == b"2" else b""
        for round_ in range(self.removed + 1):
            for position in range(self.count):
                name = b"%x-%d" % (position, round_ if self.removed % 2 else 0)
                above = deep.replace(b"d", b"%x" % position, 1) if self.fresh else deep
                yield self.kind, above + b"/" + name.ljust(self.width, b"n"), link
            if round_ < self.removed:
                yield b"0", deep + b"/.wh..wh..opq", b""


_CROWDS = st.builds(
    Crowd,
    kind=st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6"]),
    count=st.integers(0, LIMITS.entries),
    depth=st.integers(0, 250),
    fresh=st.booleans(),
    width=st.integers(1, 200),
    target=st.integers(1, 4000),
    through=st.booleans(),
    removed=st.sampled_from([0, 0, 1, 2]),
)
STACKS = st.lists(st.lists(_CROWDS, min_size=1, max_size=2), min_size=1, max_size=3)
"""Layers of crowds."""


def peak(stack: Sequence[Sequence[Crowd]]) -> int:
    """Return the most bytes that planning a stack has taken, whether it was refused or not."""
    tracemalloc.start()
    try:
        tree = FlattenedTree(LIMITS)
        for number, layer in enumerate(stack):
            tree.apply(entry for position, crowd in enumerate(layer) for entry in crowd.entries(10 * number + position))
        plan = tree.finish()
        for entry in plan.new_names:
            first = plan.new_names.first(entry)
            for name in plan.new_names.following(first):
                del name
        for name in plan.implied_directories:
            del name
    except LayerError:
        pass
    finally:
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found
