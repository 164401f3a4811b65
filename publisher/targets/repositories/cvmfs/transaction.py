"""The changes of an open transaction of a CVMFS repository.

The first change opens the transaction at the server. So a block without changes costs nothing, and the first change can name a
published tree that the transaction begins with. Changes are staged below the mount itself, as in a directory repository, and
renames inside the overlay's upper directory put them in place. So they are refused for the same reasons, and nothing is copied.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.errors import CommandError, RemovalError, RepositoryError, SpaceError
from publisher.system import command, durable, safepath
from publisher.targets.repositories.base import Transaction
from publisher.targets.repositories.cvmfs.ingested_tree import incomplete
from publisher.targets.repositories.journal import remove_each
from publisher.targets.repositories.staging import STAGING_AREA, StagedTransaction, split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from publisher.targets.repositories.journal import Journal

_DELETION_TIMEOUT = 3600.0  # seconds; deleting 22,500 entries through the overlay took 4 s


class CvmfsTransaction(Transaction):
    """A transaction that stages its changes below the repository's mount.

    Args:
        mount: the repository's mount, writable once the transaction is open at the server.
        begin: opens the transaction at the server, with a template (source and destination) or None; returns False if the
            template was refused.
        parents: directories that are created with the first tree, so that later transactions can clone into them.

    Attributes:
        completed: paths of the ingested trees that it completes.
    """

    def __init__(self, mount: Path, begin: Callable[[tuple[str, str] | None], bool], parents: Sequence[str] = ()) -> None:
        self._mount = mount
        self._begin = begin
        self._parents = frozenset(parents)
        self._staged: StagedTransaction | None = None
        self._clone: str | None = None
        self._placed: list[str] = []  # new trees that may be out of the staging area
        self.completed: set[str] = set()
        self._deleted = False  # something that an ingested tree had left
        self._over = False

    def tree(self, path: str) -> Path:
        """See :meth:`Transaction.tree`. A tree that was ingested and never completed is deleted."""
        staged = self._require_stage(path)
        if self._is_incomplete(path):
            self._delete(path)
            self._delete_mark(path)
        return staged.tree(path)

    def complete(self, path: str) -> Path | None:
        """See :meth:`Transaction.complete`."""
        self._require_stage(path)
        if not self._is_incomplete(path):
            return None
        self._delete_mark(path)
        self.completed.add(path)
        return self._mount / path

    def link(self, path: str, target: str) -> None:
        """See :meth:`Transaction.link`."""
        self._require_stage(path).link(path, target)

    def write(self, path: str, content: bytes | Path) -> None:
        """See :meth:`Transaction.write`."""
        self._require_stage(path).write(path, content)

    def remove(self, path: str) -> None:
        """See :meth:`Transaction.remove`. A clone is deleted at once, so that its path can be used again."""
        staged = self._require_stage(path, clone=True)
        if path == self._clone:
            self._delete(path)
            self._clone = None
        elif path in self.completed:
            self._delete(path)
            self.completed.remove(path)
        else:
            staged.remove(path)

    def clone(self, source: str, path: str) -> Path | None:
        """See :meth:`Transaction.clone`. The tool clones only one tree, and only when it opens a transaction."""
        original, copy = (safepath.locate(self._mount, _check_path(name), RepositoryError) for name in (source, path))
        if os.path.lexists(copy):
            raise RepositoryError(f"{path} already exists")
        is_first_change = self._staged is None and not self._over
        possible = is_first_change and copy.parent.is_dir() and original.is_dir() and not original.is_symlink()
        if not possible or not self._begin((source, path)):
            return None
        self._stage()
        self._clone = path
        return self._mount / path

    def put_in_place(self) -> bool:
        """Close the transaction and carry out its changes below the mount; return whether there is anything to publish.

        Raises:
            RemovalError: something could not be deleted, and may be half deleted: the transaction must not be published.
            RepositoryError, SpaceError: the changes could not be carried out.
        """
        self._over = True
        if self._staged is None:
            return False
        with durable.failures(RepositoryError, f"{self._mount}: cannot put the staged changes in place"):
            journal = self._staged.journal()
            self._carry_out(journal)
            durable.delete(self._mount / STAGING_AREA)
        return bool(journal) or self._clone is not None or self._deleted

    def make_room(self) -> None:
        """Delete what the transaction has added: on a full disk even the tool's abort needs some space. Never raises."""
        self._over = True
        if self._staged is None:
            return
        for path in (STAGING_AREA, *self._placed):
            with contextlib.suppress(OSError):
                durable.delete(self._mount / path)

    def _carry_out(self, journal: Journal) -> None:
        """Carry out the journal. Removals are deleted here: published directories cannot be renamed in an overlay (EXDEV)."""
        self._placed = [tree.path for tree in journal.trees]
        replace(journal, removals=()).redo(self._mount, self._mount / STAGING_AREA)
        stuck = remove_each(journal.removals, self._delete)
        if stuck:
            raise RemovalError(stuck, published=False)
        if journal.trees or self._clone is not None:
            for parent in sorted(self._parents):
                if not (self._mount / parent).is_dir():
                    safepath.make_parents(self._mount, (*parent.split("/"), ""))

    def _delete_mark(self, path: str) -> None:
        self._delete(incomplete(path))
        self._deleted = True

    def _is_incomplete(self, path: str) -> bool:
        return os.path.lexists(self._mount / incomplete(path))

    def _require_stage(self, path: str, *, clone: bool = False) -> StagedTransaction:
        """Return the staging area; the first change whose path is valid opens the transaction."""
        _check_path(path)
        if self._over:
            raise RepositoryError(f"{path}: the transaction is over")
        if self._clone is not None and not (clone and path == self._clone) and _overlap(path, self._clone):
            raise RepositoryError(f"{path}: this transaction adds {self._clone}")
        if self._staged is None:
            self._begin(None)
            return self._stage()
        return self._staged

    def _stage(self) -> StagedTransaction:
        stage = self._mount / STAGING_AREA / "stage"
        with durable.failures(RepositoryError, f"{self._mount}: cannot open a transaction"):
            stage.mkdir(parents=True)
        self._staged = StagedTransaction(self._mount, stage)
        return self._staged

    def _delete(self, path: str) -> None:
        """Delete a path and parents that become empty, through the overlay: ``rm`` copes with any depth and any name."""
        victim = safepath.locate(self._mount, split_path(path), RepositoryError)
        if victim.is_dir() and not victim.is_symlink():
            _delete_tree(victim)
        else:
            victim.unlink(missing_ok=True)
        parent = path.rpartition("/")[0]
        while parent and parent not in self._parents and _remove_if_empty(self._mount / parent):
            parent = parent.rpartition("/")[0]


def _delete_tree(tree: Path) -> None:
    make_writable = [] if os.geteuid() == 0 else [["chmod", "-R", "u+rwX", "--", str(tree)]]
    try:
        for argv in (*make_writable, ["rm", "-rf", "--one-file-system", "--", str(tree)]):
            command.run(argv, deadline=_DELETION_TIMEOUT)
    except CommandError as error:
        if os.strerror(errno.ENOSPC) in error.stderr:
            raise SpaceError(f"cannot delete {tree}: the disk is full", hint="free space in /var/spool/cvmfs") from error
        raise RepositoryError(f"cannot delete {tree}: {error.reason}", hint=error.hint) from error


def _remove_if_empty(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


def _check_path(path: str) -> tuple[str, ...]:
    """Return the parts of a path that is safe in a CVMFS repository. Raises RepositoryError."""
    parts = split_path(path)
    if parts[0].startswith(".cvmfs"):
        raise RepositoryError(f"unsafe name {path!r}: names that begin with .cvmfs are reserved for CVMFS at the root")
    return parts


def _overlap(first: str, second: str) -> bool:
    """Return whether two paths are the same, or one is above the other."""
    return f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/")
