"""The CVMFS side behind one interface: a tree of sandboxes, links and the manifest, changed by transactions.

``directory.py`` is the embedded default, ``cvmfs/`` the production form. ``tests/contract/test_repositor*.py``
is the contract that every implementation passes unchanged. Paths are relative to the repository's root, with ``/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

T = TypeVar("T")


class Transaction(ABC):
    """Changes that become visible together when the ``with`` block of :meth:`Repository.transaction` ends well.

    Readers may see the parts appear one after another, but only in the order: trees, links, files, ``index.json``, removals
    (of links first); so that nothing visible ever names what is not there. Nothing is visible of a transaction whose body raised.

    Of two links or two files at one path the last counts. Every method raises RepositoryError for an unsafe path (see
    :func:`publisher.system.safepath.split`), one that goes through a symbolic link, one above or below another of the same transaction
    and one that this transaction puts something else at; and SpaceError where there is no room.
    """

    @abstractmethod
    def tree(self, path: str) -> Path:
        """A directory *not yet made*, on the repository's file system, for the caller to make and fill; it appears at ``path``.

        A caller who cannot fill it calls :meth:`remove` with the same path: the rest of the transaction is published without it.

        Raises:
            RepositoryError: ``path`` is already there, or already in this transaction. When the block ends: nothing was made.
        """

    @abstractmethod
    def link(self, path: str, target: str) -> None:
        """A symbolic link at ``path`` with the relative ``target``, whatever link stood there before.

        Raises:
            RepositoryError: absolute target or one that leaves the repository, or something other than a link there.
        """

    @abstractmethod
    def write(self, path: str, content: bytes | Path) -> None:
        """A file at ``path`` with ``content`` (or that of the file given), replacing a file that stood there.

        Raises:
            RepositoryError: something other than a file there.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Take away the tree, link or file at ``path``; nothing happens where there is none.

        What this transaction was to put there is cancelled, whatever state it is in; directories above that become empty go too.
        """

    def clone(self, source: str, path: str) -> Path | None:
        """A copy of the published tree ``source``, for the caller to change; it appears at ``path``.

        What it costs does not depend on what is in the tree. None where the repository cannot do it (:attr:`Repository.clones`),
        or not now: not before all other changes of a transaction, without the directory that ``path`` is in being published, or
        a second time. Nothing is changed then, and :meth:`tree` is the way. :meth:`remove` takes it back.

        Raises:
            RepositoryError: ``path`` is already there.
        """
        del source, path
        return None


class Repository(ABC):
    """A repository that sandboxes are published in."""

    name: str
    """The repository's name in the manifest: the FQRN in production."""
    root: Path
    """Where what is published can be read on this host; looked at, never written to."""
    clones: bool = False
    """Whether a transaction may begin with a clone: where not, nobody need look for something similar."""

    @abstractmethod
    def recover(self) -> list[str]:
        """Finish or discard what killed runs left behind; a line for each thing done. Called at the start of a run."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction. Published when the block ends; discarded when it raises.

        Raises:
            RepositoryError: another transaction is open (somebody else's is never touched), or publishing failed.
            RemovalError: of these it says itself what is published.
            SpaceError: no room.
        """

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The published bytes of a file, None where there is none. Links are followed as long as they stay in the repository."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a tree, link or file is published at ``path`` (a link that dangles or leaves the repository does not count)."""

    @abstractmethod
    def links(self) -> dict[str, str]:
        """All published links outside ``.images`` and ``.publisher``, dangling ones too: path -> target, sorted by path."""

    def look(self, read: Callable[[], T]) -> T:
        """What ``read`` finds below :attr:`root`, all at one time: again from its start where a publish came in between."""
        return read()

    def noticed(self) -> list[str]:
        """A line for each thing that went wrong while transactions were published that are published all the same; told once."""
        return []
