"""The plan of a flattened image: what happens to every entry of every layer."""

from __future__ import annotations

import copy
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.layers.index import read_entries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from publisher.layers.nodes import NodeTable

DROP, KEEP, RENAME = 0, 1, 2
"""What happens to an entry: it is left out, written under its own name, or written under :meth:`FlattenPlan.new_names`."""


class NewNames:
    """The names of the entries that moved or have hard links, in the tree's order; some bytes for each name.

    Args:
        nodes: the tree, which is not changed any more.
        counts: number of entries of each layer.

    Attributes:
        wanted: the only names to return, None for all.
    """

    def __init__(self, nodes: NodeTable, counts: list[int]) -> None:
        self._nodes = nodes
        self._counts = counts
        self._last: dict[int, array[int]] = {}  # layer -> ordinal -> node of the last name
        self.wanted: Collection[bytes] | None = None
        self._next = nodes.freeze()  # node -> node of the entry's next name; after the last comes the first

    def add(self, entry: int, node: int) -> None:
        """Add a name of the entry ``layer << 32 | ordinal``."""
        layer, ordinal = entry >> 32, entry & 0xFFFFFFFF
        if layer not in self._last:
            self._last[layer] = array("I", bytes(4)) * self._counts[layer]
        last = self._last[layer][ordinal]
        self._next[node] = self._next[last] if last else node
        if last:
            self._next[last] = node
        self._last[layer][ordinal] = node

    def first(self, entry: int) -> int:
        """Return the node of an entry's first name, 0 if none of its names is wanted."""
        first = self._next[self._last[entry >> 32][entry & 0xFFFFFFFF]]
        return next((node for node in (first, *self._others(first)) if self._is_wanted(node)), 0)

    def following(self, first: int) -> Iterator[bytes]:
        """Yield the names of an entry after its first one, whose node is given."""
        yield from (self._nodes.path(node) for node in self._others(first) if self._is_wanted(node))

    def only(self, wanted: Collection[bytes]) -> NewNames:
        """Return those of the names that are wanted."""
        restricted = copy.copy(self)
        restricted.wanted = wanted
        return restricted

    def _others(self, first: int) -> Iterator[int]:
        node = self._next[first]
        while node != first:
            yield node
            node = self._next[node]

    def _is_wanted(self, node: int) -> bool:
        return self.wanted is None or self._nodes.path(node) in self.wanted

    def path(self, node: int) -> bytes:
        """Return the name at a node."""
        return self._nodes.path(node)

    def __iter__(self) -> Iterator[int]:
        """Yield the entries that have new names."""
        for layer, nodes in self._last.items():
            yield from (layer << 32 | ordinal for ordinal, node in enumerate(nodes) if node)


@dataclass
class FlattenPlan:
    """A plan that names the surviving entries of an image.

    Attributes:
        actions: per layer one byte per entry: :data:`DROP`, :data:`KEEP` or :data:`RENAME`.
        new_names: the names of the entries that are renamed.
        implied: nodes of directories without an entry of their own, parents first.
        dropped: kind -> number of the entries that the tree policy dropped, or kept with a warning; some are counted only while
            the stream is written.
        root: ``layer << 32 | ordinal`` of the root directory's entry, None where no layer has one.
    """

    actions: list[bytearray]
    new_names: NewNames
    implied: array[int] = field(default_factory=lambda: array("I"))
    dropped: dict[str, int] = field(default_factory=dict)
    root: int | None = None

    @property
    def implied_directories(self) -> Iterator[bytes]:
        """Yield the directories without an entry of their own, parents first."""
        return map(self.new_names.path, self.implied)

    def only(self, wanted: Collection[bytes], indexes: Iterable[Path]) -> FlattenPlan:
        """Return the plan of a part of the tree: the paths that are wanted, with nothing else.

        Args:
            wanted: paths of the published tree. A hard link without its first name becomes a file of its own.
            indexes: header indexes of the layers, from the bottom up.
        """
        names = self.new_names.only(wanted)
        chosen = []
        for layer, (actions, index) in enumerate(zip(self.actions, indexes, strict=True)):
            part = bytearray(len(actions))
            for ordinal, (action, (_, name, _)) in enumerate(zip(actions, read_entries(index), strict=True)):
                if name in wanted if action == KEEP else action == RENAME and names.first(layer << 32 | ordinal):
                    part[ordinal] = action
            chosen.append(part)
        implied = array("I", (node for node in self.implied if names.path(node) in wanted))
        return FlattenPlan(chosen, names, implied, dict(self.dropped), self.root)

    @property
    def entry_count(self) -> int:
        """Return the number of entries of layers that survive."""
        return sum(len(actions) - actions.count(DROP) for actions in self.actions)
