"""A tree of paths in memory, in which symbolic links are followed within the root, as umoci's securejoin follows them.

The tree is nested dictionaries of base names. A directory is a dictionary, with its own entry at :data:`OWN_ENTRY`; everything
else is one integer, ``layer << 32 | ordinal``. A million entries take about 170 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import LayerError, shown

if TYPE_CHECKING:
    from publisher.layers.limits import LayerLimits

    Node = dict[bytes, "Node | int"]
    Steps = list[tuple[bytes, "Node | int | None"]]

OWN_ENTRY = b""
"""Key of a directory's own entry; a name is never empty."""
LAST_LAYER = b"/"
"""Key of the last layer that added something to a directory; a name never has a slash."""
RESERVED_KEYS = (OWN_ENTRY, LAST_LAYER)
"""The keys of a directory that are not names."""

_MAX_LINKS = 255  # symbolic links followed for one path, as in umoci's securejoin
_MAX_COMPONENTS = 10_000  # of one path with the links in it; umoci has no such limit, and images stay far below it


class PathTree:
    """A tree of directories and entries.

    Args:
        limits: limits of the image.

    Attributes:
        root: the root directory.
        links: ``layer << 32 | ordinal`` -> target, of the entries that are symbolic links.
        layer: number of the layer that is being applied, from 0.
    """

    def __init__(self, limits: LayerLimits) -> None:
        self.root: Node = {}
        self.links: dict[int, bytes] = {}
        self.layer = -1
        self._limits = limits
        self._name_count = 0  # an upper bound: removed names are subtracted only when it reaches the limit
        self._last: tuple[bytes, Node, bool] | None = None

    def forget_last_directory(self) -> None:
        """Drop the cached result of :meth:`make_directory`, because the tree was changed above it or where it is."""
        self._last = None

    def make_directory(self, path: bytes) -> tuple[Node, bool]:
        """Return the directory at a path, and whether a symbolic link led elsewhere; create missing directories.

        A file that is in the way is replaced, as in Apptainer; umoci 0.4.7 refuses such a layer.

        Raises:
            LayerError: too many symbolic links, more entries, or a longer path than the limit.
        """
        if self._last is not None and self._last[0] == path:
            return self._last[1], self._last[2]
        steps = self.resolve(path)
        resolved = b"/".join(name for name, _ in steps[1:])
        self.check_length(resolved)
        self.count_names(sum(node is None for _, node in steps))
        directory = self.root
        for name, _ in steps[1:]:
            child = directory.get(name)
            if not isinstance(child, dict):
                child = directory[name] = {}
            child[LAST_LAYER] = self.layer
            directory = child
        moved = resolved != path
        self._last = (path, directory, moved)
        return directory, moved

    def resolve(self, path: bytes) -> Steps:
        """Return the steps from the root to a path, with symbolic links followed within the root; ``..`` cannot leave it.

        Returns:
            ``(name, node)`` per step, the root first; the node is None where nothing exists.

        Raises:
            LayerError: too many symbolic links.
        """
        steps: Steps = [(b"", self.root)]
        remaining = path.split(b"/")[::-1]
        link_count = component_count = 0
        while remaining:
            component = remaining.pop()
            component_count += 1
            if component in (b"", b"."):
                continue
            if component == b"..":
                if len(steps) > 1:
                    steps.pop()
                continue
            directory = steps[-1][1]
            child = directory.get(component) if isinstance(directory, dict) else None
            if isinstance(child, int) and child in self.links:
                link_count += 1
                if link_count > _MAX_LINKS or component_count > _MAX_COMPONENTS:
                    raise LayerError(f"layer {self.layer + 1}: too many symbolic links in the path {shown(path)}")
                target = self.links[child]
                if target.startswith(b"/"):
                    del steps[1:]
                remaining += target.split(b"/")[::-1]
            else:
                steps.append((component, child))
        return steps

    def resolve_parent(self, path: bytes) -> tuple[Node | None, bytes]:
        """Return the directory that a path is in (None where there is no such directory), and the path's last component.

        Symbolic links are followed to the directory, but not at the last component.

        Raises:
            LayerError: too many symbolic links.
        """
        slash = path.rfind(b"/")
        parent = self.resolve(path[:slash] if slash >= 0 else b"")[-1][1]
        return parent if isinstance(parent, dict) else None, path[slash + 1 :]

    def check_length(self, path: bytes) -> None:
        """Raise LayerError if a path is longer than the limit: symbolic links can lead to paths that no entry has.

        Raises:
            LayerError: the path is longer than the limit.
        """
        if len(path) > self._limits.path_length:
            raise LayerError(f"the image has a path of {len(path)} bytes, more than {self._limits.path_length} are allowed")

    def count_names(self, count: int) -> None:
        """Count names that are added to the tree, so that implied and removed names cannot fill the memory.

        Raises:
            LayerError: the tree has more names than the limit of entries.
        """
        self._name_count += count
        if self._name_count > 2 * self._limits.entries:
            self._name_count = count + _names_below(self.root)
            if self._name_count > self._limits.entries:
                raise LayerError(f"the image has more than {self._limits.entries} entries")


def _names_below(top: Node) -> int:
    count, remaining = 0, [top]
    while remaining:
        children = [child for name, child in remaining.pop().items() if name not in RESERVED_KEYS]
        count += len(children)
        remaining += [child for child in children if isinstance(child, dict)]
    return count
