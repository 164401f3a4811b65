"""Where the page is written to: a directory, or the origin, beside the manifest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from publisher.errors import PageError
from publisher.state import paths
from publisher.system import safepath
from publisher.system.durable import failures

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.targets.origins.base import Origin


class PageTarget(ABC):
    """A place of the page's files; ``name`` tells it from others."""

    name: str

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """Write a file as a whole. Raise PublisherError."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file; do nothing if there is none. Raise PublisherError."""


class PageDirectory(PageTarget):
    """A directory, which a web server may serve. It need not survive a power failure: the page can be written again."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root

    def write(self, path: str, content: bytes) -> None:
        """See :meth:`PageTarget.write`; the file is readable for everybody."""
        parts = safepath.split(path, PageError)
        with failures(PageError, f"the status page {self._root / path} cannot be written"):
            self._root.mkdir(parents=True, exist_ok=True)
            file = safepath.locate(self._root, parts, PageError)
            safepath.make_parents(self._root, parts)
            new = file.with_name(f".{file.name}.new")
            new.write_bytes(content)
            new.chmod(0o644)
            new.replace(file)

    def remove(self, path: str) -> None:
        """See :meth:`PageTarget.remove`."""
        with failures(PageError, f"{self._root / path} of the status page cannot be removed"):
            safepath.locate(self._root, safepath.split(path, PageError), PageError).unlink(missing_ok=True)


class PageInOrigin(PageTarget):
    """The directory ``page/`` of an origin, beside the manifest."""

    def __init__(self, origin: Origin, name: str) -> None:
        self.name = name
        self._origin = origin

    def write(self, path: str, content: bytes) -> None:
        """See :meth:`PageTarget.write`."""
        self._origin.replace(f"{paths.ORIGIN_PAGE}/{path}", content)

    def remove(self, path: str) -> None:
        """See :meth:`PageTarget.remove`."""
        self._origin.remove(f"{paths.ORIGIN_PAGE}/{path}")
