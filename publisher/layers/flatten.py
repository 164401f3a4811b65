"""Which entries of which layers survive: the indexes of the layers are applied in memory, from the bottom up, as umoci unpacks.

umoci's extractor, which Apptainer uses too, is the reference: entries are applied in the archive's order; parents are followed
through the tree's own symbolic links, within the root; a whiteout removes what lower layers added, but nothing that its own layer
added; a hard link gets the inode that its target has at that moment. The order matters: one pass from the top layer down would be
wrong wherever a symbolic link of a lower layer leads a file of a higher layer elsewhere.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from publisher.errors import LayerError, shown
from publisher.layers.flatten_plan import KEEP, RENAME, FlattenPlan, NewNames
from publisher.layers.index import read_entries
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.layers.nodes import ROOT
from publisher.layers.path_tree import DEVICE, DIRECTORY, ENTRY, HAS_ENTRY, LINKED, MOVED, SYMLINK, PathTree
from publisher.layers.tree_policy import EXPANDED_LINKS, WHITEOUT, reason_to_drop, reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from publisher.layers.path_tree import Steps

_OPAQUE = b".wh..wh..opq"
_INVALID_WHITEOUTS = (b".wh.", b".wh..", b".wh...")  # of no name, of the directory itself, of its parent
_TICK_MASK = 0xFFFF  # ``tick`` is called once per 65,536 entries
_FLAGS = {b"2": SYMLINK, b"3": DEVICE, b"4": DEVICE, b"5": DIRECTORY}
_ALL_LAYERS = 4  # as many entries as the image may have, layers may have together


class FlattenedTree:
    """The flattened tree, while layers are applied to it.

    Args:
        limits: limits of the image.
        tick: called now and then; may raise an exception to stop.
    """

    def __init__(self, limits: LayerLimits = DEFAULT_LIMITS, tick: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._tick = tick
        self._tree = PathTree(limits)
        self._counts: list[int] = []

    def apply(self, entries_of_layer: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Apply one layer: ``(kind, name, link)`` of each entry, in the archive's order.

        Raises:
            LayerError: a hard link without a target, a loop of symbolic links, or a whiteout without a name; more entries, or
                longer names or paths, than the limits.
        """
        tree = self._tree
        tree.layer += 1
        tree.forget_last_directory()
        base = tree.layer << 32
        ordinal = -1
        for ordinal, (kind, name, link) in enumerate(entries_of_layer):
            if not ordinal & _TICK_MASK:
                self._tick()
            if not name:
                tree.root = base | ordinal
                continue
            slash = name.rfind(b"/")
            parent, last = (name[:slash], name[slash + 1 :]) if slash >= 0 else (b"", name)
            if last.startswith(WHITEOUT):
                self._apply_whiteout(parent, last, name)
            elif kind == b"1":
                self._add_hard_link(name, parent, last, link)
            else:
                directory, moved = tree.make_directory(parent)
                flags = _FLAGS.get(kind, 0) | HAS_ENTRY | (MOVED if moved else 0)
                tree.put(directory, last, base | ordinal | flags, link)
        self._counts.append(ordinal + 1)
        if sum(self._counts) > _ALL_LAYERS * self._limits.entries:
            raise LayerError(f"the layers have more than {_ALL_LAYERS * self._limits.entries} entries together")

    def lookup(self, path: bytes) -> str | None:
        """Return what is at a path, with symbolic links followed within the root: ``directory``, ``file``, or None."""
        steps = self._resolve(path)
        node = steps[-1][1] if steps else 0
        return None if not node else "directory" if self._tree.is_directory(node) else "file"

    def is_occupied(self, path: bytes) -> bool:
        """Return whether there is anything at a path itself, even a dangling symbolic link."""
        return bool(self._tree.find(path))

    def remove(self, path: bytes) -> None:
        """Remove whatever is at a path; symbolic links are followed to its parent only."""
        node = self._tree.find(path)
        if node:
            self._tree.remove(node)

    def remove_file(self, path: bytes) -> None:
        """Remove the file that is at a path itself: no directory, and nothing behind a symbolic link at its end."""
        steps = self._resolve(path)
        node = steps[-1][1] if steps else 0
        if node and node == self._tree.find(path) and not self._tree.is_directory(node):
            self._tree.remove(node)

    def destination(self, path: bytes) -> bytes | None:
        """Return the path that an entry for ``path`` would get, with symbolic links followed within the root.

        None where it cannot be added: a file is in the way, the links form a loop, or the tree policy drops such names.
        """
        steps = self._resolve(path)
        if not steps or any((node and not self._tree.is_directory(node)) or reserved(name) for name, node in steps):
            return None
        return b"/".join(name for name, _ in steps[1:])

    def finish(self) -> FlattenPlan:
        """Return the plan; the tree belongs to it from then on, and cannot be used any more.

        Raises:
            LayerError: a longer path than the limit.
        """
        tree, self._tree = self._tree, PathTree(self._limits)
        plan = FlattenPlan([bytearray(count) for count in self._counts], NewNames(tree.nodes, self._counts), root=tree.root)
        for node in self._walk(tree, plan.dropped):
            value = tree.nodes.values[node]
            entry = value & ENTRY
            if not value & HAS_ENTRY:
                plan.implied.append(node)
            elif value & (MOVED | LINKED):
                plan.new_names.add(entry, node)
                plan.actions[entry >> 32][entry & 0xFFFFFFFF] = RENAME
            else:
                plan.actions[entry >> 32][entry & 0xFFFFFFFF] = KEEP
        tree.nodes.forget_children()
        return plan

    def _add_hard_link(self, path: bytes, parent: bytes, last: bytes, target: bytes) -> None:
        tree = self._tree
        directory, _ = tree.make_directory(parent)
        existing = tree.nodes.find(directory, last)
        if existing:
            tree.remove(existing)  # as umoci does before it links: a link to itself has no target
        node = tree.find(target)
        if not node or tree.is_directory(node):
            problem = "which is a directory" if node or not target else "which does not exist"
            raise LayerError(f"layer {tree.layer + 1}: {shown(path)} is a hard link to {shown(target)}, {problem}")
        values = tree.nodes.values
        values[node] |= LINKED
        tree.put(directory, last, values[node] & (ENTRY | HAS_ENTRY | SYMLINK | DEVICE | LINKED), tree.nodes.target(node))

    def _apply_whiteout(self, parent: bytes, last: bytes, path: bytes) -> None:
        tree = self._tree
        if last in _INVALID_WHITEOUTS:
            raise LayerError(f"layer {tree.layer + 1}: whiteout without a file name: {shown(path)}")
        directory = tree.resolve(parent)[-1][1]
        if not tree.is_directory(directory):
            return
        if last == _OPAQUE:
            self._prune(directory)
            return
        existing = tree.nodes.find(directory, last[len(WHITEOUT) :])
        if existing and not tree.is_new(existing):
            tree.remove(existing)
        elif tree.is_directory(existing):
            self._prune(existing)

    def _prune(self, top: int) -> None:
        """Remove everything below a directory that the current layer has not added."""
        tree = self._tree
        remaining = [top]
        while remaining:
            for child in tree.nodes.children(remaining.pop()):
                if not tree.is_new(child):
                    tree.remove(child)
                elif tree.is_directory(child):
                    remaining.append(child)

    def _resolve(self, path: bytes) -> Steps:
        """Return the steps to a path as :meth:`PathTree.resolve` does, but no steps where the links form a loop."""
        try:
            return self._tree.resolve(path)
        except LayerError:
            return []

    @staticmethod
    def _walk(tree: PathTree, dropped: dict[str, int]) -> Iterator[int]:
        """Yield the nodes that the tree policy keeps, parents first.

        Args:
            tree: the tree.
            dropped: kind -> number of the entries that are dropped, or kept with a warning; is filled on the way.

        Raises:
            LayerError: a longer path than the limit.
        """
        nodes = tree.nodes
        directories, prefixes = array("I", [ROOT]), array("I", [0])  # to walk, and the lengths of their paths with a slash
        while directories:
            directory, prefix = directories.pop(), prefixes.pop()
            for node in nodes.children(directory):
                name, value = nodes.name(node), nodes.values[node]
                reason = reason_to_drop(name, is_device=bool(value & DEVICE))
                if reason is not None:
                    dropped[reason] = dropped.get(reason, 0) + 1
                    continue
                tree.check_length(prefix + len(name))
                if value & DIRECTORY:
                    directories.append(node)
                    prefixes.append(prefix + len(name) + 1)
                elif value & SYMLINK and b"$(" in nodes.target(node):
                    dropped[EXPANDED_LINKS] = dropped.get(EXPANDED_LINKS, 0) + 1
                yield node


def flatten(
    indexes: Sequence[Path], limits: LayerLimits = DEFAULT_LIMITS, tick: Callable[[], None] = lambda: None
) -> FlattenedTree:
    """Return the flattened tree of layers.

    Args:
        indexes: header indexes of the layers, from the bottom up.
        limits: limits of the image.
        tick: called now and then; may raise an exception to stop.

    Raises:
        LayerError: as :meth:`FlattenedTree.apply`, or more layers than the limit.
    """
    if len(indexes) > limits.layers:
        raise LayerError(f"the image has {len(indexes)} layers, more than {limits.layers} are allowed")
    tree = FlattenedTree(limits, tick)
    for index in indexes:
        tree.apply(read_entries(index))
    return tree
