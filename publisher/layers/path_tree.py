"""A tree of paths in memory, in which symbolic links are followed within the root, as umoci's securejoin follows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import LayerError, shown
from publisher.layers.nodes import ROOT, NodeTable

if TYPE_CHECKING:
    from publisher.layers.limits import LayerLimits

    Steps = list[tuple[bytes, int]]

ENTRY = (1 << 41) - 1
"""The bits of a value that say which entry a name has, ``layer << 32 | ordinal``: 32 bits of ordinal and 9 of layer."""
HAS_ENTRY, DIRECTORY, SYMLINK, DEVICE, MOVED, LINKED = (1 << bit for bit in range(41, 47))
"""Flags of a value. MOVED: a symbolic link led the entry to another name; LINKED: the entry has, or had, several names."""
_TOUCHED = 48  # the bits from here on: the layer, from 1, that added the name or something below it

_MAX_LINKS = 255  # symbolic links followed for one path, as in umoci's securejoin
_MAX_COMPONENTS = 10_000  # of one path with the links in it; umoci has no such limit, and images stay far below it


class PathTree:
    """A tree of directories and entries.

    Args:
        limits: limits of the image.

    Attributes:
        nodes: the names; values have the bits above.
        root: the entry of the root, None without one.
        layer: number of the layer that is being applied, from 0.
    """

    def __init__(self, limits: LayerLimits) -> None:
        self.nodes = NodeTable(limits.names_size // 4)
        self.nodes.values[ROOT] = DIRECTORY
        self.root: int | None = None
        self.layer = -1
        self._limits = limits
        self._last: tuple[bytes, int, bool] | None = None

    def forget_last_directory(self) -> None:
        """Drop the cached result of :meth:`make_directory`, because the tree was changed above it or where it is."""
        self._last = None

    def is_directory(self, node: int) -> bool:
        """Return whether a node is a directory; there is none at 0."""
        return bool(self.nodes.values[node] & DIRECTORY)

    def is_new(self, node: int) -> bool:
        """Return whether the current layer has added a name, or something below it."""
        return self.nodes.values[node] >> _TOUCHED == self.layer + 1

    def put(self, directory: int, name: bytes, value: int, target: bytes = b"") -> None:
        """Add a name to a directory for the current layer, or replace what has it.

        Raises:
            LayerError: the tree has more entries, or longer names, than the limits.
        """
        value |= self.layer + 1 << _TOUCHED
        existing = self.nodes.find(directory, name)
        if not existing:
            self.nodes.add(directory, name, value, target)
            self._check_size()
        elif value & DIRECTORY and self.is_directory(existing):
            self.nodes.values[existing] = value
        else:
            self.forget_last_directory()
            self.nodes.replace(existing, value, target)
            self._check_size()

    def remove(self, node: int) -> None:
        """Remove a node and everything below it."""
        self.forget_last_directory()
        self.nodes.remove(node)

    def make_directory(self, path: bytes) -> tuple[int, bool]:
        """Return the directory at a path, and whether a symbolic link led elsewhere; create missing directories.

        A file that is in the way is replaced, as in Apptainer; umoci 0.4.7 refuses such a layer.

        Raises:
            LayerError: too many symbolic links, more entries, longer names, or a longer or deeper path than the limits.
        """
        if self._last is not None and self._last[0] == path:
            return self._last[1], self._last[2]
        steps = self.resolve(path)
        resolved = b"/".join(name for name, _ in steps[1:])
        self.check_length(len(resolved))
        if len(steps) > self._limits.depth:
            raise LayerError(f"the image has more than {self._limits.depth} directories in each other: {shown(resolved)}")
        touched = self.layer + 1 << _TOUCHED
        values, directory = self.nodes.values, ROOT
        for name, node in steps[1:]:
            if not node:
                child = self.nodes.add(directory, name, DIRECTORY | touched)
                self._check_size()
            elif values[node] & DIRECTORY:
                child = node
                values[child] = values[child] & (1 << _TOUCHED) - 1 | touched
            else:
                child = node
                self.nodes.replace(child, DIRECTORY | touched)
            directory = child
        moved = resolved != path
        self._last = (path, directory, moved)
        return directory, moved

    def resolve(self, path: bytes) -> Steps:
        """Return the steps from the root to a path, with symbolic links followed within the root; ``..`` cannot leave it.

        Returns:
            ``(name, node)`` per step, the root first; the node is 0 where nothing exists.

        Raises:
            LayerError: too many symbolic links.
        """
        nodes = self.nodes
        steps: Steps = [(b"", ROOT)]
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
            child = nodes.find(directory, component) if directory else 0
            if nodes.values[child] & SYMLINK:
                link_count += 1
                if link_count > _MAX_LINKS or component_count > _MAX_COMPONENTS:
                    raise LayerError(f"layer {self.layer + 1}: too many symbolic links in the path {shown(path)}")
                target = nodes.target(child)
                if target.startswith(b"/"):
                    del steps[1:]
                remaining += target.split(b"/")[::-1]
            else:
                steps.append((component, child))
        return steps

    def resolve_parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the directory that a path is in (0 where there is no such directory), and the path's last component.

        Symbolic links are followed to the directory, but not at the last component.

        Raises:
            LayerError: too many symbolic links.
        """
        slash = path.rfind(b"/")
        parent = self.resolve(path[:slash] if slash >= 0 else b"")[-1][1]
        return parent if self.is_directory(parent) else 0, path[slash + 1 :]

    def find(self, path: bytes) -> int:
        """Return what is at a path, 0 where there is nothing; the last component is not followed.

        Raises:
            LayerError: too many symbolic links.
        """
        parent, last = self.resolve_parent(path)
        return self.nodes.find(parent, last) if parent else 0

    def check_length(self, length: int) -> None:
        """Raise LayerError if a path is longer than the limit: symbolic links can lead to paths that no entry has.

        Raises:
            LayerError: the path is longer than the limit.
        """
        if length > self._limits.path_length:
            raise LayerError(f"the image has a path of {length} bytes, more than {self._limits.path_length} are allowed")

    def _check_size(self) -> None:
        """Raise LayerError if the tree has more entries, or longer names, than the limits."""
        nodes, limits = self.nodes, self._limits
        if nodes.count > limits.entries:
            raise LayerError(f"the image has more than {limits.entries} entries")
        if nodes.text_size > limits.names_size:
            raise LayerError(f"the names and links of the image have more than {limits.names_size} bytes")
