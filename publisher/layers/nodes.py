"""A tree of names in flat arrays: some 40 bytes for each name, and the name itself, where objects of Python take 150 to 400.

Layers come from strangers, and a layer of a few kilobytes can name a million directories.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = 1
"""The node of the root; 0 is no node."""

_REMOVED = 0xFFFFFFFF  # in the hash table: something was here, look further
_LEAST_SLOTS = 1 << 10


class NodeTable:
    """A tree whose nodes are numbers. Children have an order: a new one is the last, and one that is changed stays where it is.

    Args:
        garbage: bytes of names that nothing uses any more, after which the memory for names is tidied up.

    Attributes:
        values: node -> a number that the user chooses, up to 64 bits.
        count: nodes below the root.
        text_size: bytes of all names and targets.
    """

    def __init__(self, garbage: int = 16 << 20) -> None:
        self._garbage = garbage
        self.values = array("Q", (0, 0))
        self.count = 0
        self.text_size = 0
        self._parents = array("I", (0, 0))  # 0 also for a node that was removed
        self._starts = array("I", (0, 0))  # where a node's name is in the texts
        self._last_children = array("I", (0, 0))
        self._next = array("I", (0, 0))  # sibling, after the last comes the first; of a removed node, the next removed one
        self._previous = array("I", (0, 0))
        self._texts = bytearray(b"\0\0")  # of each node: name, NUL, target, NUL
        self._slots = array("I", bytes(4 * _LEAST_SLOTS))  # open addressing by parent and name
        self._used_slots = 0  # with those that are marked as removed
        self._removed = 0  # the first node that can be used again

    def find(self, parent: int, name: bytes) -> int:
        """Return the child of a node that has a name, 0 where there is none."""
        slots, parents, starts, texts = self._slots, self._parents, self._starts, self._texts
        mask = len(slots) - 1
        slot = hash((parent, name)) & mask
        key = name + b"\0"
        while node := slots[slot]:
            if node != _REMOVED and parents[node] == parent and texts.startswith(key, starts[node]):
                return node
            slot = slot + 1 & mask
        return 0

    def add(self, parent: int, name: bytes, value: int, target: bytes = b"") -> int:
        """Add a child that the parent does not have yet, as the last one, and return it."""
        node, following, previous = self._removed, self._next, self._previous
        if node:
            self._removed = following[node]
            self._parents[node], self.values[node], self._last_children[node] = parent, value, 0
        else:
            node = len(self.values)
            self.values.append(value)
            self._parents.append(parent)
            self._starts.append(0)
            self._last_children.append(0)
            following.append(0)
            previous.append(0)
        self._append_text(node, name, target)
        last = self._last_children[parent] or node
        following[node] = following[last] if last != node else node
        following[last], previous[node], previous[following[node]] = node, last, node
        self._last_children[parent] = node
        self.count += 1
        self._used_slots += 1
        slots = self._slots
        if 3 * self._used_slots > 2 * len(slots):
            self._make_slots()  # with the new node
        else:
            mask = len(slots) - 1
            slot = hash((parent, name)) & mask
            while slots[slot]:
                slot = slot + 1 & mask
            slots[slot] = node
        return node

    def replace(self, node: int, value: int, target: bytes = b"") -> None:
        """Give a node another value and target; it keeps its name and its place. Its children are removed."""
        for child in [*self.children(node)]:
            self.remove(child)
        self.values[node] = value
        if target != self.target(node):
            name = self.name(node)
            self._discard_text(node)
            self._append_text(node, name, target)

    def remove(self, node: int) -> None:
        """Remove a node and everything below it."""
        self._unlink(node)
        below = [node]
        while below:
            removed = below.pop()
            below += self.children(removed)
            self._take_out(removed)
            self._discard_text(removed)
            self._parents[removed] = 0
            self._next[removed], self._removed = self._removed, removed
            self.count -= 1
        if len(self._texts) - self.text_size - 2 * self.count > self._garbage:
            self._compact()

    def children(self, node: int) -> Iterator[int]:
        """Yield the children of a node in their order. The one that was yielded may be removed, others may not."""
        last = self._last_children[node]
        child = self._next[last] if last else 0
        while child:
            following = 0 if child == last else self._next[child]
            yield child
            child = following

    def name(self, node: int) -> bytes:
        """Return the name of a node."""
        start = self._starts[node]
        return bytes(self._texts[start : self._texts.index(0, start)])

    def target(self, node: int) -> bytes:
        """Return the target of a node, ``b""`` where it has none."""
        start = self._texts.index(0, self._starts[node]) + 1
        return bytes(self._texts[start : self._texts.index(0, start)])

    def path(self, node: int) -> bytes:
        """Return the names from the root to a node, with slashes between them."""
        names = []
        while node != ROOT:
            names.append(self.name(node))
            node = self._parents[node]
        return b"/".join(reversed(names))

    def freeze(self) -> array[int]:
        """Free what only changes and searches need; return an array of a number for each node, all 0."""
        self._slots = self._previous = array("I")
        return array("I", bytes(4)) * len(self.values)

    def forget_children(self) -> None:
        """Free what :meth:`children` needs, too; names and paths stay."""
        self._last_children = self._next = array("I")

    def _unlink(self, node: int) -> None:
        parent, before, after = self._parents[node], self._previous[node], self._next[node]
        self._next[before], self._previous[after] = after, before
        if self._last_children[parent] == node:
            self._last_children[parent] = 0 if before == node else before

    def _take_out(self, node: int) -> None:
        mask = len(self._slots) - 1
        slot = hash((self._parents[node], self.name(node))) & mask
        while self._slots[slot] != node:
            slot = slot + 1 & mask
        self._slots[slot] = _REMOVED

    def _make_slots(self) -> None:
        """Make the hash table anew, with space for twice as many names as there are."""
        size = _LEAST_SLOTS
        while size < 2 * self.count:
            size *= 2
        slots = self._slots = array("I", bytes(4)) * size
        self._used_slots = self.count
        for node in range(ROOT + 1, len(self.values)):
            if self._parents[node]:
                slot = hash((self._parents[node], self.name(node))) & size - 1
                while slots[slot]:
                    slot = slot + 1 & size - 1
                slots[slot] = node

    def _append_text(self, node: int, name: bytes, target: bytes) -> None:
        self._starts[node] = len(self._texts)
        self._texts += b"%b\0%b\0" % (name, target)
        self.text_size += len(name) + len(target)

    def _discard_text(self, node: int) -> None:
        self.text_size -= len(self.name(node)) + len(self.target(node))

    def _compact(self) -> None:
        """Copy the texts that are in use."""
        texts = bytearray(b"\0\0")
        for node in range(ROOT + 1, len(self.values)):
            if self._parents[node]:
                start = self._starts[node]
                end = self._texts.index(0, self._texts.index(0, start) + 1) + 1
                self._starts[node] = len(texts)
                texts += self._texts[start:end]
        self._texts = texts
