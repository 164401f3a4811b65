"""A repository that is a plain directory, on this host or on a shared file system: the embedded default.

A transaction is staged in ``.transaction/`` of the repository itself, so that renames publish it. A redo journal makes a kill at
any point harmless: the next :meth:`DirectoryRepository.recover` finishes or discards the transaction.

``.transaction/`` contains ``lock`` and ``run`` (flock(2), with the holder's process id; of a transaction, and of a whole run),
``journal``, the open transaction's ``stage.*`` and removed trees that wait to be deleted (``removed.*``).
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import RemovalError, RepositoryError
from publisher.system import durable as storage
from publisher.system import safepath
from publisher.targets.repositories.base import Repository
from publisher.targets.repositories.journal import Journal
from publisher.targets.repositories.lock import RUN_LOCK, RepositoryLockedError, hold_lock, hold_run
from publisher.targets.repositories.published_tree import PublishedTree
from publisher.targets.repositories.staging import STAGING_AREA, StagedTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from publisher.targets.repositories.base import Transaction

_log = logging.getLogger(__name__)


class DirectoryRepository(Repository):
    """A repository at ``root``, created by the first transaction.

    Args:
        root: the directory.
        name: the repository's name in the manifest, the base name of ``root`` if None.
        durable: opens a file system so that it can be synchronised, see :func:`publisher.system.durable.durable`.
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
        self._area = self.root / STAGING_AREA
        self._journal = self._area / "journal"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """See :meth:`Repository.hold`."""
        with contextlib.ExitStack() as stack:
            with self._failures("take the lock of a run"):
                self._make_area()
                stack.enter_context(hold_run(self._area, self.root))
            yield

    def recover(self) -> list[str]:
        """See :meth:`Repository.recover`. A transaction that is open in a living process is left alone.

        Raises:
            RepositoryError: the journal cannot be read or carried out.
            SpaceError: the disk is too full to carry it out.
        """
        if not self._area.is_dir():
            return []
        try:
            with self._lock():
                return self._settle()
        except RepositoryLockedError as error:
            _log.info("%s; there is nothing to recover", error.reason)
            return []

    def require_idle(self) -> None:
        """See :meth:`Repository.require_idle`. Only this program opens transactions here, and its lock keeps them apart."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See :meth:`Repository.transaction`. What a killed run left is finished or discarded first.

        Raises:
            RepositoryError: another transaction is open, or a file operation failed.
            RemovalError: some removals failed; everything else is published.
            SpaceError: the disk is full.
        """
        with self._lock(), contextlib.ExitStack() as stack:
            self._settle()
            stage = self._area / f"stage.{storage.token()}"
            with self._failures("open a transaction"):
                sync = stack.enter_context(self._durable(self._area))
                stage.mkdir(mode=0o700)
            _log.info("repository %s: opened a transaction", self.root)
            staged = StagedTransaction(self.root, stage)
            try:
                yield staged
                journal = self._commit(staged, sync)
            except BaseException:
                self._discard(stage)
                raise
            stuck = self._carry_out(journal, sync) if journal else {}
            self._sweep()
            _log.info("repository %s: published %s", self.root, journal or "nothing: there was no change")
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

    def _failures(self, action: str, hint: str | None = None) -> AbstractContextManager[None]:
        return storage.failures(RepositoryError, f"repository {self.root}: cannot {action}", hint)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the repository's lock for the block; create the directory that it is in."""
        with contextlib.ExitStack() as stack:
            with self._failures("take the lock"):
                self._make_area()
                stack.enter_context(hold_lock(self._area / "lock", self.root))
            yield

    def _make_area(self) -> None:
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            safepath.open_to_readers(self.root)
        self._area.mkdir(mode=0o700, exist_ok=True)

    def _commit(self, staged: StagedTransaction, sync: Callable[[], None]) -> Journal:
        """Write the journal. This is the commit point: afterwards the transaction will be carried out."""
        with self._failures("publish"):
            journal = staged.journal()
            if journal:
                sync()
                journal.save(self._journal)
            return journal

    def _discard(self, stage: Path) -> None:
        """Discard an uncommitted transaction; what cannot be deleted now is left to the next :meth:`recover`."""
        with contextlib.suppress(OSError):
            self._journal.unlink(missing_ok=True)
            storage.delete(stage)
        _log.info("repository %s: aborted a transaction", self.root)

    def _carry_out(self, journal: Journal, sync: Callable[[], None]) -> dict[str, RepositoryError]:
        """Redo the journal, and delete it once its changes are on disk, before anything else is staged.

        Removals that failed are returned and not tried again, because they would hold up every later transaction.
        """
        with self._failures("finish a transaction", hint="the next run finishes it"):
            stuck = journal.redo(self.root, self._area)
            sync()
            self._journal.unlink()
            files.sync_directory(str(self._area))
            return stuck

    def _settle(self) -> list[str]:
        """Finish a committed transaction, or discard what is left of an uncommitted one. The caller holds the lock."""
        with self._failures("recover"):
            journal = Journal.load(self._journal)
        if journal is None:
            actions = self._sweep()
        else:
            with contextlib.ExitStack() as stack:
                with self._failures("recover"):
                    sync = stack.enter_context(self._durable(self._area))
                stuck = self._carry_out(journal, sync)
            actions = [f"finished an interrupted transaction: {journal}", *map(str, stuck.values())]
            self._sweep()
        for action in actions:
            _log.info("repository %s: recovery: %s", self.root, action)
        return actions

    def _sweep(self) -> list[str]:
        """Delete what no transaction needs. What cannot be deleted is reported and stays; it does not block anything."""
        actions = []
        with self._failures("sweep the staging area"):
            leftovers = sorted(path for path in self._area.iterdir() if path.name not in {"lock", RUN_LOCK})
        for path in leftovers:
            try:
                kind = "a removed tree" if path.name.startswith("removed.") else "an interrupted transaction"
                storage.delete(path)
                actions.append(f"discarded what was left of {kind}: {STAGING_AREA}/{path.name}")
            except OSError as error:
                actions.append(f"cannot delete {STAGING_AREA}/{path.name}: {error}")
        return actions
