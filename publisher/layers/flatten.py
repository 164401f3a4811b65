"""Which entry of which layer survives: the layers' indexes replayed from the bottom up, in memory, the way umoci unpacks.

umoci's extractor (which Apptainer uses too) is the reference: entries apply in the archive's order; parents are followed
through the tree's own symbolic links, scoped to the root; a whiteout removes what lower layers left, and nothing that its
own layer brought; a hard link takes the inode that its target has at that moment. The order matters: one pass from the top
layer down is wrong wherever a lower layer's symbolic link leads a higher layer's file elsewhere.

The tree is nested dictionaries of base names. A directory is a dictionary whose own entry stands under :data:`_SELF`; all
else is one integer, ``layer << 32 | ordinal``. A million entries take about 170 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import LayerError
from publisher.layers.flatten_plan import MOVE, PASS, FlattenPlan
from publisher.layers.index import entries
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    Node = dict[bytes, "Node | int"]

_SELF = b""  # key of a directory's own entry; no name is empty
_TOUCHED = b"/"  # key of the last layer that brought something into a directory; no name has a slash
_OWN = (_SELF, _TOUCHED)
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_NOBODYS = (b".wh.", b".wh..", b".wh...")  # of nothing, of the directory itself, of the one above it
_MOST_LINKS = 255  # symbolic links followed for one path, as umoci's securejoin
_MOST_PARTS = 10_000  # parts of one path and of the links on its way; umoci has no such bound, and no image comes near it
_VARIANT = "links with $(, which clients of CVMFS expand"
_OFTEN = 0xFFFF  # entries between two looks at the clock


class FlattenedTree:
    """The flattened tree while layers are replayed.

    Args:
        limits: what the image may ask for.
        tick: called now and then; may raise to end the replaying.
    """

    def __init__(self, limits: LayerLimits = DEFAULT_LIMITS, tick: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._tick = tick
        self._grown = 0  # names that came into the tree, those that left it only now and then taken off
        self._root: Node = {}
        self._links: dict[int, bytes] = {}  # entry -> target, for symbolic links
        self._devices: set[int] = set()
        self._linked: set[int] = set()  # entries with hard links
        self._moved: set[int] = set()  # entries that a symbolic link led to another name
        self._touched_links: set[tuple[int, bytes]] = set()  # (directory, name) of this layer's links to older entries
        self._counts: list[int] = []
        self._layer = -1
        self._last: tuple[bytes, Node, bool] | None = None

    def apply(self, entries_of_layer: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Replay one layer: ``(kind, name, link)`` of each entry, in the archive's order.

        Raises:
            LayerError: a hard link without a target, a symbolic-link loop, a whiteout of no name; more entries, or a longer path,
                than the limit.
        """
        self._layer += 1
        self._touched_links.clear()
        self._last = None
        base = self._layer << 32
        ordinal = -1
        for ordinal, (kind, name, link) in enumerate(entries_of_layer):
            if not ordinal & _OFTEN:
                self._tick()
            if not name:
                self._root[_SELF] = base | ordinal
                continue
            slash = name.rfind(b"/")
            parent, last = (name[:slash], name[slash + 1 :]) if slash >= 0 else (b"", name)
            if last.startswith(_WHITEOUT):
                self._whiteout(parent, last, name)
            else:
                self._entry(kind, parent, last, link, base | ordinal)
        self._counts.append(ordinal + 1)

    def lookup(self, path: bytes) -> str | None:
        """What stands at a path, symbolic links followed within the root: ``directory``, ``file``, or None."""
        steps = self._steps(path)
        node = steps[-1][1] if steps else None
        return None if node is None else "directory" if isinstance(node, dict) else "file"

    def occupied(self, path: bytes) -> bool:
        """Whether anything stands at a path itself, be it a symbolic link that leads nowhere."""
        slash = path.rfind(b"/")
        parent = self._resolve(path[:slash] if slash >= 0 else b"")[-1][1]
        return isinstance(parent, dict) and path[slash + 1 :] in parent

    def remove(self, path: bytes) -> None:
        """Take away whatever stands at a path (its parents followed through symbolic links)."""
        slash = path.rfind(b"/")
        parent = self._resolve(path[:slash] if slash >= 0 else b"")[-1][1]
        if isinstance(parent, dict):
            parent.pop(path[slash + 1 :], None)
            self._last = None

    def resting_place(self, path: bytes) -> bytes | None:
        """Where an entry for ``path`` would come to stand: symbolic links followed.

        None where that is nowhere: a file is in the way, the links lead in a circle, or the tree policy drops such names.
        """
        steps = self._steps(path)
        if not steps or any(isinstance(node, int) or _reserved(name) for name, node in steps):
            return None
        return b"/".join(name for name, _ in steps[1:])

    def finish(self) -> FlattenPlan:
        """The plan. The tree is used up by it: its memory is needed for the emission.

        Raises:
            LayerError: more entries, or a longer path, than the limit.
        """
        plan = FlattenPlan([bytearray(count) for count in self._counts])
        own = self._root.get(_SELF)
        plan.root = own if isinstance(own, int) else None
        for kept, (path, entry) in enumerate(self._walk(plan.dropped), 1):
            if kept > self._limits.entries:
                raise LayerError(f"the image has more than {self._limits.entries} entries")
            self._check_length(path)
            if entry is None:
                plan.implied.append(path)
            elif entry in self._linked or entry in self._moved:
                plan.names.setdefault(entry, []).append(path)
                plan.actions[entry >> 32][entry & 0xFFFFFFFF] = MOVE
            else:
                plan.actions[entry >> 32][entry & 0xFFFFFFFF] = PASS
        self._root = {}
        self._links = {}
        return plan

    # --- replaying

    def _entry(self, kind: bytes, parent: bytes, last: bytes, link: bytes, entry: int) -> None:
        directory, moved = self._directory(parent)
        standing = directory.get(last)
        if standing is None:
            self._grow(1)
        if kind == b"5":
            if not isinstance(standing, dict):
                standing = directory[last] = {}
                self._last = None
            standing[_SELF] = entry
            standing[_TOUCHED] = self._layer
        else:
            if isinstance(standing, dict):
                self._last = None
            if kind == b"1":
                directory.pop(last, None)  # umoci clobbers first: a link to itself has no target
                entry = self._hard_link(link, parent, last)
                self._touched_links.add((id(directory), last))
                moved = False
            directory[last] = entry
            if kind == b"2":
                self._links[entry] = link
            elif kind in b"34":
                self._devices.add(entry)
        if moved:
            self._moved.add(entry)

    def _hard_link(self, target: bytes, parent: bytes, last: bytes) -> int:
        slash = target.rfind(b"/")
        directory = self._resolve(target[:slash] if slash >= 0 else b"")[-1][1]
        entry = directory.get(target[slash + 1 :]) if isinstance(directory, dict) else None
        if not isinstance(entry, int) or target[slash + 1 :] in _OWN:
            what = "a directory" if isinstance(entry, dict) else "nothing that is there"
            raise LayerError(f"layer {self._layer + 1}: {_join(parent, last)!r} is a hard link to {target!r}, which is {what}")
        self._linked.add(entry)
        return entry

    def _whiteout(self, parent: bytes, last: bytes, name: bytes) -> None:
        if last in _NOBODYS:
            raise LayerError(f"layer {self._layer + 1}: whiteout of no name in its directory: {name!r}")
        directory = self._resolve(parent)[-1][1]
        if not isinstance(directory, dict):
            return
        self._last = None
        if last == _OPAQUE:
            self._prune(directory)
            return
        victim = last[len(_WHITEOUT) :]
        standing = directory.get(victim)
        if isinstance(standing, dict) and standing.get(_TOUCHED) == self._layer:
            self._prune(standing)
        elif standing is not None and victim not in _OWN and not self._is_new(directory, victim, standing):
            del directory[victim]

    def _prune(self, top: Node) -> None:
        """Remove all below a directory that this layer has not brought."""
        todo = [top]
        while todo:
            directory = todo.pop()
            for name in [name for name in directory if name not in _OWN]:
                child = directory[name]
                if self._is_new(directory, name, child):
                    if isinstance(child, dict):
                        todo.append(child)
                else:
                    del directory[name]

    def _is_new(self, directory: Node, name: bytes, child: Node | int) -> bool:
        if isinstance(child, dict):
            return child.get(_TOUCHED) == self._layer
        return child >> 32 == self._layer or (id(directory), name) in self._touched_links

    # --- paths

    def _directory(self, path: bytes) -> tuple[Node, bool]:
        """The directory that an entry's parent path means, made where it is missing; and whether a link led elsewhere."""
        if self._last is not None and self._last[0] == path:
            return self._last[1], self._last[2]
        steps = self._resolve(path)
        resolved = b"/".join(name for name, _ in steps[1:])
        self._check_length(resolved)
        self._grow(sum(node is None for _, node in steps))
        directory = self._root
        for name, _ in steps[1:]:
            child = directory.get(name)
            if not isinstance(child, dict):  # a file in the way makes room, as in Apptainer; umoci 0.4.7 refuses the layer
                child = directory[name] = {}
            child[_TOUCHED] = self._layer
            directory = child
        moved = resolved != path
        self._last = (path, directory, moved)
        return directory, moved

    def _resolve(self, path: bytes) -> list[tuple[bytes, Node | int | None]]:
        """The steps from the root to what a path means, symbolic links followed within the root (as securejoin does).

        ``(name, node)`` per step, the root first; node is None where nothing stands. ``..`` cannot leave the root.
        """
        steps: list[tuple[bytes, Node | int | None]] = [(b"", self._root)]
        todo = path.split(b"/")[::-1]
        hops = parts = 0
        while todo:
            part = todo.pop()
            parts += 1
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(steps) > 1:
                    steps.pop()
                continue
            here = steps[-1][1]
            child = here.get(part) if isinstance(here, dict) else None
            if isinstance(child, int) and child in self._links:
                hops += 1
                if hops > _MOST_LINKS or parts > _MOST_PARTS:
                    raise LayerError(f"layer {self._layer + 1}: too many symbolic links on the way to {path!r}")
                target = self._links[child]
                if target.startswith(b"/"):
                    del steps[1:]
                todo += target.split(b"/")[::-1]
            else:
                steps.append((part, child))
        return steps

    def _steps(self, path: bytes) -> list[tuple[bytes, Node | int | None]]:
        """As :meth:`_resolve`, nothing where the links lead in a circle."""
        try:
            return self._resolve(path)
        except LayerError:
            return []

    def _check_length(self, path: bytes) -> None:
        """Links lead to paths that no entry spells."""
        if len(path) > self._limits.path_length:
            raise LayerError(f"the image has a path of {len(path)} bytes, more than {self._limits.path_length} are allowed")

    def _grow(self, names: int) -> None:
        """Names come into the tree: directories that no entry describes, and what is removed later, must not fill the memory."""
        self._grown += names
        if self._grown > 2 * self._limits.entries:
            self._grown = names + _names_below(self._root)
            if self._grown > self._limits.entries:
                raise LayerError(f"the image has more than {self._limits.entries} entries")

    # --- the end

    def _walk(self, dropped: dict[str, int]) -> Iterator[tuple[bytes, int | None]]:
        """All that survives the tree policy: path, and its entry (None for a directory without one), parents first.

        A link with ``$(`` in its target survives and is counted: CVMFS clients expand that, and a SIF's readers do not.
        """
        stack: list[tuple[Node, bytes]] = [(self._root, b"")]
        while stack:
            directory, prefix = stack.pop()
            for name, child in directory.items():
                if name in _OWN:
                    continue
                reason = self._policy(name, child)
                if reason is not None:
                    dropped[reason] = dropped.get(reason, 0) + 1
                elif isinstance(child, dict):
                    own = child.get(_SELF)
                    yield prefix + name, own if isinstance(own, int) else None
                    stack.append((child, prefix + name + b"/"))
                else:
                    if b"$(" in self._links.get(child, b""):
                        dropped[_VARIANT] = dropped.get(_VARIANT, 0) + 1
                    yield prefix + name, child

    def _policy(self, name: bytes, child: Node | int) -> str | None:
        """Why a name is not published, None where it is (docs/design.md, "Tree policy")."""
        if isinstance(child, int) and child in self._devices:
            return "device nodes"
        return _reserved(name)


def flatten(
    indexes: Sequence[Path], limits: LayerLimits = DEFAULT_LIMITS, tick: Callable[[], None] = lambda: None
) -> FlattenedTree:
    """Replay layers from the bottom up; ``tick`` is called now and then and may raise.

    Raises:
        LayerError: as :meth:`FlattenedTree.apply`; more layers than the limit.
    """
    if len(indexes) > limits.layers:
        raise LayerError(f"the image has {len(indexes)} layers, more than {limits.layers} are allowed")
    tree = FlattenedTree(limits, tick)
    for index in indexes:
        tree.apply(entries(index))
    return tree


def _names_below(top: Node) -> int:
    count, todo = 0, [top]
    while todo:
        children = [child for name, child in todo.pop().items() if name not in _OWN]
        count += len(children)
        todo += [child for child in children if isinstance(child, dict)]
    return count


def _reserved(name: bytes) -> str | None:
    if name.startswith(b".cvmfs"):
        return "names that CVMFS reserves"
    if name.startswith(_WHITEOUT):
        return "names of whiteouts"
    return None


def _join(parent: bytes, last: bytes) -> bytes:
    return parent + b"/" + last if parent else last
