"""Which entries of which layers survive: the indexes of the layers are applied in memory, from the bottom up, as umoci unpacks.

umoci's extractor, which Apptainer uses too, is the reference: entries are applied in the archive's order; parents are followed
through the tree's own symbolic links, within the root; a whiteout removes what lower layers added, but nothing that its own layer
added; a hard link gets the inode that its target has at that moment. The order matters: one pass from the top layer down would be
wrong wherever a symbolic link of a lower layer leads a file of a higher layer elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import LayerError, shown
from publisher.layers.flatten_plan import KEEP, RENAME, FlattenPlan
from publisher.layers.index import read_entries
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.layers.path_tree import LAST_LAYER, OWN_ENTRY, RESERVED_KEYS, PathTree
from publisher.layers.tree_policy import EXPANDED_LINKS, WHITEOUT, reason_to_drop, reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from publisher.layers.path_tree import Node, Steps

_OPAQUE = b".wh..wh..opq"
_INVALID_WHITEOUTS = (b".wh.", b".wh..", b".wh...")  # of no name, of the directory itself, of its parent
_TICK_MASK = 0xFFFF  # ``tick`` is called once per 65,536 entries


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
        self._devices: set[int] = set()  # entries that are device nodes
        self._linked: set[int] = set()  # entries that have hard links
        self._moved: set[int] = set()  # entries that a symbolic link led to another name
        self._new_links: set[tuple[int, bytes]] = set()  # (directory, name) of this layer's hard links to older entries
        self._counts: list[int] = []

    def apply(self, entries_of_layer: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Apply one layer: ``(kind, name, link)`` of each entry, in the archive's order.

        Raises:
            LayerError: a hard link without a target, a loop of symbolic links, or a whiteout without a name; more entries, or a
                longer path, than the limit.
        """
        tree = self._tree
        tree.layer += 1
        tree.forget_last_directory()
        self._new_links.clear()
        base = tree.layer << 32
        ordinal = -1
        for ordinal, (kind, name, link) in enumerate(entries_of_layer):
            if not ordinal & _TICK_MASK:
                self._tick()
            if not name:
                tree.root[OWN_ENTRY] = base | ordinal
                continue
            slash = name.rfind(b"/")
            parent, last = (name[:slash], name[slash + 1 :]) if slash >= 0 else (b"", name)
            if last.startswith(WHITEOUT):
                self._apply_whiteout(parent, last, name)
            else:
                self._add(kind, parent, last, link, base | ordinal)
        self._counts.append(ordinal + 1)

    def lookup(self, path: bytes) -> str | None:
        """Return what is at a path, with symbolic links followed within the root: ``directory``, ``file``, or None."""
        steps = self._resolve(path)
        node = steps[-1][1] if steps else None
        return None if node is None else "directory" if isinstance(node, dict) else "file"

    def is_occupied(self, path: bytes) -> bool:
        """Return whether there is anything at a path itself, even a dangling symbolic link."""
        parent, last = self._tree.resolve_parent(path)
        return parent is not None and last in parent

    def remove(self, path: bytes) -> None:
        """Remove whatever is at a path; symbolic links are followed to its parent only."""
        parent, last = self._tree.resolve_parent(path)
        if parent is not None:
            parent.pop(last, None)
            self._tree.forget_last_directory()

    def destination(self, path: bytes) -> bytes | None:
        """Return the path that an entry for ``path`` would get, with symbolic links followed within the root.

        None where it cannot be added: a file is in the way, the links form a loop, or the tree policy drops such names.
        """
        steps = self._resolve(path)
        if not steps or any(isinstance(node, int) or reserved(name) for name, node in steps):
            return None
        return b"/".join(name for name, _ in steps[1:])

    def finish(self) -> FlattenPlan:
        """Return the plan, and discard the tree to free its memory.

        Raises:
            LayerError: more entries, or a longer path, than the limit.
        """
        plan = FlattenPlan([bytearray(count) for count in self._counts])
        own = self._tree.root.get(OWN_ENTRY)
        plan.root = own if isinstance(own, int) else None
        for count, (path, entry) in enumerate(self._walk(plan.dropped), 1):
            if count > self._limits.entries:
                raise LayerError(f"the image has more than {self._limits.entries} entries")
            self._tree.check_length(path)
            if entry is None:
                plan.implied_directories.append(path)
            elif entry in self._linked or entry in self._moved:
                plan.new_names.setdefault(entry, []).append(path)
                plan.actions[entry >> 32][entry & 0xFFFFFFFF] = RENAME
            else:
                plan.actions[entry >> 32][entry & 0xFFFFFFFF] = KEEP
        self._tree = PathTree(self._limits)
        return plan

    def _add(self, kind: bytes, parent: bytes, last: bytes, link: bytes, entry: int) -> None:
        tree = self._tree
        directory, moved = tree.make_directory(parent)
        existing = directory.get(last)
        if existing is None:
            tree.count_names(1)
        if kind == b"5":
            if not isinstance(existing, dict):
                existing = directory[last] = {}
                tree.forget_last_directory()
            existing[OWN_ENTRY] = entry
            existing[LAST_LAYER] = tree.layer
        else:
            if isinstance(existing, dict):
                tree.forget_last_directory()
            if kind == b"1":
                directory.pop(last, None)  # as umoci does before it links: a link to itself has no target
                entry = self._link_target(link, parent, last)
                self._new_links.add((id(directory), last))
                moved = False
            directory[last] = entry
            if kind == b"2":
                tree.links[entry] = link
            elif kind in b"34":
                self._devices.add(entry)
        if moved:
            self._moved.add(entry)

    def _link_target(self, target: bytes, parent: bytes, last: bytes) -> int:
        """Return the entry that a hard link gets."""
        directory, name = self._tree.resolve_parent(target)
        entry = directory.get(name) if directory is not None else None
        if not isinstance(entry, int) or name in RESERVED_KEYS:
            problem = "which is a directory" if isinstance(entry, dict) else "which does not exist"
            path = parent + b"/" + last if parent else last
            raise LayerError(f"layer {self._tree.layer + 1}: {shown(path)} is a hard link to {shown(target)}, {problem}")
        self._linked.add(entry)
        return entry

    def _apply_whiteout(self, parent: bytes, last: bytes, path: bytes) -> None:
        if last in _INVALID_WHITEOUTS:
            raise LayerError(f"layer {self._tree.layer + 1}: whiteout without a file name: {shown(path)}")
        directory = self._tree.resolve(parent)[-1][1]
        if not isinstance(directory, dict):
            return
        self._tree.forget_last_directory()
        if last == _OPAQUE:
            self._prune(directory)
            return
        name = last[len(WHITEOUT) :]
        existing = directory.get(name)
        if isinstance(existing, dict) and existing.get(LAST_LAYER) == self._tree.layer:
            self._prune(existing)
        elif existing is not None and name not in RESERVED_KEYS and not self._is_new(directory, name, existing):
            del directory[name]

    def _prune(self, top: Node) -> None:
        """Remove everything below a directory that the current layer has not added."""
        remaining = [top]
        while remaining:
            directory = remaining.pop()
            for name in [name for name in directory if name not in RESERVED_KEYS]:
                child = directory[name]
                if self._is_new(directory, name, child):
                    if isinstance(child, dict):
                        remaining.append(child)
                else:
                    del directory[name]

    def _is_new(self, directory: Node, name: bytes, child: Node | int) -> bool:
        """Return whether the current layer has added a name, or something below it."""
        if isinstance(child, dict):
            return child.get(LAST_LAYER) == self._tree.layer
        return child >> 32 == self._tree.layer or (id(directory), name) in self._new_links

    def _resolve(self, path: bytes) -> Steps:
        """Return the steps to a path as :meth:`PathTree.resolve` does, but no steps where the links form a loop."""
        try:
            return self._tree.resolve(path)
        except LayerError:
            return []

    def _walk(self, dropped: dict[str, int]) -> Iterator[tuple[bytes, int | None]]:
        """Yield what the tree policy keeps: path, and entry (None for a directory without one), parents first.

        Args:
            dropped: kind -> number of the entries that are dropped, or kept with a warning; is filled on the way.
        """
        stack: list[tuple[Node, bytes]] = [(self._tree.root, b"")]
        links = self._tree.links
        while stack:
            directory, prefix = stack.pop()
            for name, child in directory.items():
                if name in RESERVED_KEYS:
                    continue
                reason = reason_to_drop(name, child if isinstance(child, int) else None, self._devices)
                if reason is not None:
                    dropped[reason] = dropped.get(reason, 0) + 1
                elif isinstance(child, dict):
                    own = child.get(OWN_ENTRY)
                    yield prefix + name, own if isinstance(own, int) else None
                    stack.append((child, prefix + name + b"/"))
                else:
                    if b"$(" in links.get(child, b""):
                        dropped[EXPANDED_LINKS] = dropped.get(EXPANDED_LINKS, 0) + 1
                    yield prefix + name, child


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
