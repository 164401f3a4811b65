"""The CVMFS side behind one interface: a tree of sandboxes, links and the manifest, changed by transactions.

``directory.py`` is the embedded default, ``cvmfs.py`` (later) the production form. ``tests/contract/test_repositories.py``
is the contract that every implementation passes unchanged. Paths are relative to the repository's root, with ``/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path


class Transaction(ABC):
    """Changes that become visible together when the ``with`` block of :meth:`Repository.transaction` ends well.

    Readers may see the parts appear one after another, but only in the order: trees, links, files, ``index.json`` last;
    so that nothing visible ever names what is not there. Nothing is visible of a transaction whose body raised.
    """

    @abstractmethod
    def tree(self, path: str) -> Path:
        """A directory *not yet made*, on the repository's file system, for the caller to make and fill; it appears at ``path``.

        Raises:
            RepositoryError: ``path`` is unsafe, already there, or already in this transaction.
        """

    @abstractmethod
    def link(self, path: str, target: str) -> None:
        """A symbolic link at ``path`` with the relative ``target``, whatever link stood there before.

        Raises:
            RepositoryError: unsafe path, absolute target or one that leaves the repository, or something other than a link there.
        """

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """A file at ``path`` with ``content``, replacing a file that stood there."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Take away the tree, link or file at ``path``; nothing happens where there is none."""


class Repository(ABC):
    """A repository that sandboxes are published in."""

    name: str
    """The repository's name in the manifest: the FQRN in production."""

    @abstractmethod
    def recover(self) -> list[str]:
        """Finish or discard what killed runs left behind; a line for each thing done. Called at the start of a run."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction. Published when the block ends; discarded when it raises.

        Raises:
            RepositoryError: another transaction is open (somebody else's is never touched), or publishing failed.
        """

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The published bytes of a file, None where there is none."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a tree, link or file is published at ``path`` (a dangling link does not count)."""

    @abstractmethod
    def links(self) -> dict[str, str]:
        """All published links outside ``.images`` and ``.publisher``: path -> target."""
