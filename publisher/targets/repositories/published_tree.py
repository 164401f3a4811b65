"""What is published below a directory, for looking at: the readers' side of every repository that is a tree of files here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError
from publisher.system import durable
from publisher.targets.repositories.staging import AREA, parts_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_NOT_LISTED = (AREA, ".images", ".publisher")


class PublishedTree:
    """The tree below ``root``, whose links are followed as long as they stay inside."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        """See :meth:`publisher.targets.repositories.base.Repository.read`."""
        with self._failures(f"read {path!r}"):
            published = self._resolved(path)
            if published is None or not published.is_file():
                return None
            return published.read_bytes()

    def exists(self, path: str) -> bool:
        """See :meth:`publisher.targets.repositories.base.Repository.exists`."""
        with self._failures(f"look at {path!r}"):
            return self._resolved(path) is not None

    def links(self) -> dict[str, str]:
        """See :meth:`publisher.targets.repositories.base.Repository.links`."""
        found: dict[str, str] = {}
        waiting = [""]
        with self._failures("list the links"):
            while waiting:
                below = waiting.pop()
                for entry in self._entries(below):
                    path = f"{below}{entry.name}"
                    if entry.is_symlink():
                        found[path] = os.readlink(entry.path)  # noqa: PTH115 - the text, not a Path made of it
                    elif entry.is_dir() and path not in _NOT_LISTED:
                        waiting.append(f"{path}/")
        return dict(sorted(found.items()))

    def _entries(self, below: str) -> list[os.DirEntry[str]]:
        """Entries of a directory, none where it was just removed or was never made."""
        try:
            with os.scandir(self._root / below) as entries:
                return list(entries)
        except FileNotFoundError:
            return []

    def _resolved(self, path: str) -> Path | None:
        """The path with all links followed, None where it dangles or leaves the repository."""
        root = Path(os.path.realpath(self._root))  # Path.resolve raises RuntimeError for a loop of links before Python 3.13
        published = Path(os.path.realpath(root.joinpath(*parts_of(path))))
        inside = published.is_relative_to(root) and not published.is_relative_to(root / AREA)
        return published if inside and published.exists() else None

    def _failures(self, doing: str) -> AbstractContextManager[None]:
        return durable.failures(RepositoryError, f"repository {self._root}: cannot {doing}")
