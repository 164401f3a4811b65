"""Reading what is published below a directory, as every repository does that is a tree of files on this host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError
from publisher.system import durable
from publisher.targets.repositories.staging import STAGING_AREA, split_path

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_UNLISTED = (STAGING_AREA, ".images", ".publisher")


class PublishedTree:
    """The published tree below ``root``; links are followed as long as they stay inside."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        """See :meth:`publisher.targets.repositories.base.Repository.read`."""
        with self._failures(f"read {path!r}"):
            published = self._resolve(path)
            if published is None or not published.is_file():
                return None
            return published.read_bytes()

    def exists(self, path: str) -> bool:
        """See :meth:`publisher.targets.repositories.base.Repository.exists`."""
        with self._failures(f"look at {path!r}"):
            return self._resolve(path) is not None

    def links(self) -> dict[str, str]:
        """See :meth:`publisher.targets.repositories.base.Repository.links`."""
        links: dict[str, str] = {}
        waiting = [""]
        with self._failures("list the links"):
            while waiting:
                directory = waiting.pop()
                for entry in self._entries(directory):
                    path = f"{directory}{entry.name}"
                    if entry.is_symlink():
                        links[path] = os.readlink(entry.path)  # noqa: PTH115 - the text, not a Path made of it
                    elif entry.is_dir() and path not in _UNLISTED:
                        waiting.append(f"{path}/")
        return dict(sorted(links.items()))

    def _entries(self, directory: str) -> list[os.DirEntry[str]]:
        """Return the entries of a directory; an empty list if it was just removed or never existed."""
        try:
            with os.scandir(self._root / directory) as entries:
                return list(entries)
        except FileNotFoundError:
            return []

    def _resolve(self, path: str) -> Path | None:
        """Return the path with all links followed; None if it dangles or leaves the repository."""
        root = Path(os.path.realpath(self._root))  # Path.resolve raises RuntimeError for a loop of links before Python 3.13
        published = Path(os.path.realpath(root.joinpath(*split_path(path))))
        inside = published.is_relative_to(root) and not published.is_relative_to(root / STAGING_AREA)
        return published if inside and published.exists() else None

    def _failures(self, action: str) -> AbstractContextManager[None]:
        return durable.failures(RepositoryError, f"repository {self._root}: cannot {action}")
