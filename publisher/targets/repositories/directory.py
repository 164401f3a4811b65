"""The embedded default: a repository that is a plain directory, on this host or on a shared file system.

A transaction is staged in ``.transaction/`` of the repository itself, so that everything becomes visible by renames; its redo
journal makes a kill at any point cost no more than the next :meth:`~DirectoryRepository.recover`.

``.transaction/`` holds ``lock`` (flock(2), with the holder's pid), ``journal``, the open transaction's ``stage.*`` and what was
taken away and waits to be deleted (``removed.*``).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import RemovalError, RepositoryError
from publisher.system import durable as storage
from publisher.system import safepath
from publisher.targets.repositories import lock
from publisher.targets.repositories.base import Repository
from publisher.targets.repositories.journal import Journal
from publisher.targets.repositories.published_tree import PublishedTree
from publisher.targets.repositories.staging import AREA, StagedTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from publisher.targets.repositories.base import Transaction


class DirectoryRepository(Repository):
    """A repository at ``root``, made by the first transaction; ``name`` is the base name of ``root`` unless given.

    ``durable`` opens a file system for being synchronised, see :func:`publisher.system.durable.durable`.
    """

    def __init__(
        self,
        root: Path,
        name: str | None = None,
        *,
        durable: Callable[[Path], AbstractContextManager[Callable[[], None]]] = storage.durable,
    ) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - Path.resolve would follow links, Path.absolute keeps ".."
        self.name = name or self.root.name
        self._durable = durable
        self._published = PublishedTree(self.root)
        self._area = self.root / AREA
        self._journal = self._area / "journal"

    def recover(self) -> list[str]:
        """See :meth:`Repository.recover`. A transaction that is open in a living process is left alone.

        Raises:
            RepositoryError: the journal cannot be read or carried out.
            SpaceError: no room to carry it out.
        """
        if not self._area.is_dir():
            return []
        try:
            with self._lock():
                return self._settle()
        except lock.RepositoryLockedError:
            return []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See :meth:`Repository.transaction`. What a killed run left is finished or discarded first.

        Raises:
            RepositoryError: another transaction is open, or a file operation failed.
            RemovalError: all else is published.
            SpaceError: no room.
        """
        with self._lock(), contextlib.ExitStack() as stack:
            self._settle()
            stage = self._area / f"stage.{storage.token()}"
            with self._failures("open a transaction"):
                sync = stack.enter_context(self._durable(self._area))
                stage.mkdir(mode=0o700)
            staged = StagedTransaction(self.root, stage)
            try:
                yield staged
                journal = self._commit(staged, sync)
            except BaseException:
                self._discard(stage)
                raise
            stuck = self._carry_out(journal, sync) if journal else {}
            self._sweep()
            if stuck:
                raise RemovalError(stuck, published=True)

    def read(self, path: str) -> bytes | None:
        """See :meth:`Repository.read`."""
        return self._published.read(path)

    def exists(self, path: str) -> bool:
        """See :meth:`Repository.exists`."""
        return self._published.exists(path)

    def links(self) -> dict[str, str]:
        """See :meth:`Repository.links`."""
        return self._published.links()

    def _failures(self, doing: str, hint: str | None = None) -> AbstractContextManager[None]:
        return storage.failures(RepositoryError, f"repository {self.root}: cannot {doing}", hint)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the repository's lock, making what it stands in."""
        with contextlib.ExitStack() as stack:
            with self._failures("take the lock"):
                self._make_area()
                stack.enter_context(lock.held(self._area / "lock", self.root))
            yield

    def _make_area(self) -> None:
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            safepath.open_to_readers(self.root)
        self._area.mkdir(mode=0o700, exist_ok=True)

    def _commit(self, staged: StagedTransaction, sync: Callable[[], None]) -> Journal:
        """The commit point: whatever happens after it, the transaction will be carried out."""
        with self._failures("publish"):
            journal = staged.journal()
            if journal:
                sync()
                journal.save(self._journal)
            return journal

    def _discard(self, stage: Path) -> None:
        """Give up before the commit point; what cannot be deleted now is left to the next :meth:`recover`."""
        with contextlib.suppress(OSError):
            self._journal.unlink(missing_ok=True)
            storage.delete(stage)

    def _carry_out(self, journal: Journal, sync: Callable[[], None]) -> dict[str, RepositoryError]:
        """Redo the journal; it goes when its work is on disk, and durably so, before anything else is staged.

        What could not be taken away is returned, and not tried again: it would hold up every later transaction.
        """
        with self._failures("finish a transaction", hint="what is missing is made up for by the next run"):
            stuck = journal.redo(self.root, self._area)
            sync()
            self._journal.unlink()
            files.sync_directory(str(self._area))
            return stuck

    def _settle(self) -> list[str]:
        """Finish what was committed, discard what was not. The lock is held."""
        done = []
        with self._failures("recover"):
            journal = Journal.load(self._journal)
        if journal is not None:
            with contextlib.ExitStack() as stack:
                with self._failures("recover"):
                    sync = stack.enter_context(self._durable(self._area))
                stuck = self._carry_out(journal, sync)
            done.append(f"finished an interrupted transaction: {journal}")
            done += [str(error) for error in stuck.values()]
            self._sweep()
            return done
        return self._sweep()

    def _sweep(self) -> list[str]:
        """Delete what no transaction needs. What cannot be deleted is reported and stays: it is in nobody's way."""
        done = []
        with self._failures("sweep the staging area"):
            leftovers = sorted(path for path in self._area.iterdir() if path.name != "lock")
        for path in leftovers:
            try:
                kind = "a removed tree" if path.name.startswith("removed.") else "an interrupted transaction"
                storage.delete(path)
                done.append(f"discarded what was left of {kind}: {AREA}/{path.name}")
            except OSError as failure:
                done.append(f"cannot delete {AREA}/{path.name}: {failure}")
        return done
