"""The plan of a flattened image: what happens to every entry of every layer."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.layers.nodes import NodeTable

DROP, KEEP, RENAME = 0, 1, 2
"""What happens to an entry: it is left out, written under its own name, or written under :meth:`FlattenPlan.new_names`."""


class NewNames:
    """The names of the entries that moved or have hard links, in the tree's order; some bytes for each name.

    Args:
        nodes: the tree, which is not changed any more.
        counts: number of entries of each layer.
    """

    def __init__(self, nodes: NodeTable, counts: list[int]) -> None:
        self._nodes = nodes
        self._counts = counts
        self._last: dict[int, array[int]] = {}  # layer -> ordinal -> node of the last name
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
        """Return the node of an entry's first name."""
        return self._next[self._last[entry >> 32][entry & 0xFFFFFFFF]]

    def following(self, first: int) -> Iterator[bytes]:
        """Yield the names of an entry after its first one, whose node is given."""
        node = self._next[first]
        while node != first:
            yield self._nodes.path(node)
            node = self._next[node]

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

    @property
    def entry_count(self) -> int:
        """Return the number of entries of layers that survive."""
        return sum(len(actions) - actions.count(DROP) for actions in self.actions)
