"""The interface of a repository: a tree of sandboxes, links and the manifest, changed by transactions.

``directory.py`` implements it for a plain directory (the embedded default), ``cvmfs/`` for a CVMFS repository (production).
Every implementation passes the tests in ``tests/contract/test_repositor*.py`` unchanged. Paths are relative to the
repository's root and use ``/``.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from publisher.system.tar_stream import TarStream

T = TypeVar("T")


class Transaction(ABC):
    """Changes that are published together when the ``with`` block of :meth:`Repository.transaction` ends without an error.

    Readers may see the changes appear one after another, but only in this order: trees, links, files, ``index.json``, removals
    (links first). So nothing visible ever names something that does not exist. If the block raises, nothing is published.

    If one path is given two links or two files, the last one counts. Every method raises RepositoryError if the path is unsafe
    (see :func:`publisher.system.safepath.split`), goes through a symbolic link, is above or below another path of the same
    transaction, or is already used for something else in it; and SpaceError if the disk is full.
    """

    @abstractmethod
    def tree(self, path: str) -> Path:
        """Return a directory that does *not exist yet*, for the caller to create and fill; it is published at ``path``.

        The directory is on the repository's file system. A caller who cannot fill it calls :meth:`remove` with the same path;
        the rest of the transaction is then published without it.

        Raises:
            RepositoryError: ``path`` already exists, or is already in this transaction. When the block ends: the caller did not
                create the directory.
        """

    @abstractmethod
    def link(self, path: str, target: str) -> None:
        """Create a symbolic link at ``path`` with the relative ``target``; an existing link is replaced.

        Raises:
            RepositoryError: the target is absolute or leaves the repository, or something other than a link is at ``path``.
        """

    @abstractmethod
    def write(self, path: str, content: bytes | Path) -> None:
        """Write a file at ``path`` with ``content``, or with the content of the file given; an existing file is replaced.

        Raises:
            RepositoryError: something other than a file is at ``path``.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove the tree, link or file at ``path``; do nothing if there is none.

        A change that this transaction would make at ``path`` is cancelled, whatever state it is in. Parent directories that
        become empty are removed too.
        """

    def complete(self, path: str) -> Path | None:
        """Return the tree at ``path``, which :meth:`Repository.ingest` has published, for the caller to complete.

        With the transaction it counts as published. :meth:`remove` removes it.

        Returns:
            The published tree; None if there is none that waits for this.
        """
        del path
        return None

    def clone(self, source: str, path: str) -> Path | None:
        """Return a copy of the published tree ``source``, for the caller to change; it is published at ``path``.

        The cost does not depend on the size of the tree; :meth:`remove` cancels the clone.

        Returns:
            The copy; None, with nothing changed, if the repository cannot clone (:attr:`Repository.can_clone`), or cannot do it
            now: only the first change of a transaction can be a clone, and the parent directory of ``path`` has to be
            published already. The caller then uses :meth:`tree`.

        Raises:
            RepositoryError: ``path`` already exists.
        """
        del source, path
        return None


class Repository(ABC):
    """A repository that sandboxes are published in."""

    name: str
    """The repository's name in the manifest: the FQRN in production."""
    root: Path
    """The directory on this host where the published content can be read; never written to."""
    can_clone: bool = False
    """Whether a transaction may begin with a clone; if not, callers need not look for a similar tree."""
    shared_through: str | None = None
    """The URL of the gateway through which publishers on several hosts publish, None if only this host does."""
    keeps_xattrs: bool = True
    """Whether published trees keep extended attributes; a clone then needs a file index that knows them."""

    @property
    def is_shared(self) -> bool:
        """Return whether publishers on other hosts may publish meanwhile: what is read then counts only within a transaction."""
        return self.shared_through is not None

    @abstractmethod
    def hold(self) -> AbstractContextManager[None]:
        """Keep other publishers of this repository from running until the block ends, whatever state directories they have.

        A run reads the manifest once and removes data at its end, so another run between would lose what the first one knows. A
        publisher that dies gives the repository back at once.

        Raises:
            AnotherRunError: another publisher is running.
            RepositoryError: the repository cannot be used.
        """

    @abstractmethod
    def recover(self) -> list[str]:
        """Finish or discard what killed runs left behind, and return a line for each action. Called at the start of a run."""

    def examine(self) -> list[str]:
        """Return a line for each thing that should be changed, without changing anything. Raise RepositoryError for a fault."""
        return []

    @abstractmethod
    def require_idle(self) -> None:
        """Check, before images are built, that no transaction of somebody else keeps them from being published.

        Raises:
            RepositoryError: another transaction is open; it is not touched.
        """

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction, which is published when the block ends and discarded if the block raises.

        Raises:
            RepositoryError: another transaction is open (it is not touched), or publishing failed.
            RemovalError: some paths could not be removed; its ``published`` says whether the other changes were published.
            SpaceError: the disk is full.
        """

    def largest_ingested(self, path: str) -> int | None:
        """Return the bytes of the largest file that :meth:`ingest` can publish at a path; None if it cannot publish a tree there.

        Raises:
            RepositoryError: the repository cannot be used.
        """
        del path
        return None

    def ingest(self, path: str) -> AbstractContextManager[TarStream]:
        """Publish a new tree from a tar stream, without unpacking it; the block adds its members, whose end is added after it.

        The names in the stream begin with the last name of ``path``. The tree does not exist (:meth:`exists`) until a
        transaction has completed it (:meth:`Transaction.complete`). If the block raises, or this process is killed, nothing is
        published.

        Raises:
            RepositoryError, SpaceError: nothing is published.
        """
        raise NotImplementedError(f"{self.name} does not ingest {path}")

    def exclusively(self) -> AbstractContextManager[None]:
        """Keep publishers on other hosts from publishing until the block ends: what it reads is what is published.

        Within :meth:`hold` there is nothing to do unless the repository :attr:`is_shared`.

        Raises:
            AnotherRunError: another publisher is publishing.
            RepositoryError: the repository cannot be used.
        """
        return contextlib.nullcontext()

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Return the content of a published file, or None if there is none. Links are followed within the repository only."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Return whether a tree, link or file is published at ``path``; dangling links and links that leave do not count."""

    @abstractmethod
    def links(self) -> dict[str, str]:
        """Return all published links outside ``.images`` and ``.publisher``, dangling ones too: path -> target, sorted."""

    def read_consistently(self, read: Callable[[], T]) -> T:
        """Return the result of ``read``, which reads below :attr:`root`; it is called again if a publish came in between."""
        return read()

    def take_warnings(self) -> list[str]:
        """Return, once, a line for each problem of a transaction that was published nevertheless."""
        return []
