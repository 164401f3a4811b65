"""The allowed differences of the published tree from those of umoci and Apptainer: the list of docs/fidelity.md, as data.

Each difference turns their tree into the one that is expected of us; what is in no difference has to be equal.
"""

from __future__ import annotations

import stat
from time import time as now
from typing import TYPE_CHECKING

from tests.support.images.tar_stream import NOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.images.layers import Node

    Tree = dict[bytes, Node]

_HELD = ("user.", "security.capability")
_OTHERS = ("user.overlay.", "user.rootlesscontainers")
ROOT = b"."
ANY_TIME = -(1 << 62)
"""The time of an implied directory, which does not follow from the other tree."""
_STARTED = int(now()) - 5


def _readable(tree: Tree) -> Tree:
    return {
        path: node._replace(mode=node.mode | (0o555 if node.kind == stat.S_IFDIR or node.mode & 0o111 else 0o444))
        if node.kind != stat.S_IFLNK
        else node
        for path, node in tree.items()
    }


def _no_devices(tree: Tree) -> Tree:
    return {path: node for path, node in tree.items() if node.kind not in (stat.S_IFCHR, stat.S_IFBLK)}


def _no_reserved_names(tree: Tree) -> Tree:
    return {
        path: node for path, node in tree.items() if not any(part.startswith((b".cvmfs", b".wh.")) for part in path.split(b"/"))
    }


def _implied(tree: Tree) -> Tree:
    """Replace the times of implied directories and their parents, which umoci sets to the time of unpacking."""
    return {path: node._replace(mtime=ANY_TIME) if _made_up(node) else node for path, node in tree.items()}


def _held_times(tree: Tree) -> Tree:
    newest = max(0, _newest(tree))

    def held(time: int) -> int:
        return time if time == ANY_TIME else min(max(time, 0), newest)

    return {path: node._replace(mtime=held(node.mtime)) for path, node in tree.items()}


def _held_attributes(tree: Tree) -> Tree:
    def held(name: str) -> bool:
        return name.startswith(_HELD) and not name.startswith(_OTHERS)

    return {
        path: node._replace(attributes=tuple(pair for pair in node.attributes if held(pair[0]))) for path, node in tree.items()
    }


def _root(tree: Tree) -> Tree:
    lost = any(node.mtime == ANY_TIME for path, node in tree.items() if path != ROOT)  # one of them may have been the newest
    return tree | {ROOT: tree[ROOT]._replace(uid=0, gid=0, mtime=ANY_TIME if lost else _newest(tree), attributes=())}


def _linked_files(tree: Tree) -> Tree:
    return {path: node if node.kind == stat.S_IFREG else node._replace(names=(path,)) for path, node in tree.items()}


def _newest(tree: Tree) -> int:
    times = [node.mtime for path, node in tree.items() if path != ROOT and node.mtime != ANY_TIME]
    return max((time for time in times if time <= NOW), default=0)


def _made_up(node: Node) -> bool:
    return node.kind == stat.S_IFDIR and _STARTED <= node.mtime <= now() + 5


DIFFERENCES: dict[str, Callable[[Tree], Tree]] = {
    "device nodes": _no_devices,
    "reserved names": _no_reserved_names,
    "modes": _readable,
    "directories without an entry": _implied,
    "times": _held_times,
    "extended attributes": _held_attributes,
    "hard links of links and fifos": _linked_files,
    "the root directory": _root,
}
"""Name in docs/fidelity.md -> the change that it makes to the other tree; applied in this order."""


def same(ours: Node, theirs: Node) -> bool:
    """Return whether a node is as expected. Apptainer makes implied directories writable by the group."""
    if theirs.mtime == ANY_TIME:
        ours, theirs = (node._replace(mtime=ANY_TIME, mode=node.mode & ~0o022) for node in (ours, theirs))
    return ours == theirs


def expected(theirs: Tree) -> Tree:
    """Return the tree that must be published if umoci or Apptainer make ``theirs``."""
    for difference in DIFFERENCES.values():
        theirs = difference(theirs)
    return theirs
